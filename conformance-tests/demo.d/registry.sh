# The fleet's registry: devices and gateways come to a broker and to an HTTP bridge with tokens that their TPMs sign.

chapter_registry() {
    chapter "registry: devices that authenticate with tokens (JWT) of their TPMs, as to IoT Core"
    registry_places
    step "a registry that takes only certificates of the IoT CA" keyrivet-server <<'END'
keyrivet-server registry create $KEYRIVET_REGISTRY --ca ca/iot-ca/iot-ca.crt
END
    step "a gateway and two devices with keys in the TPM" keyrivet-server <<'END'
keyrivet-server gateway create gateway --auth-method ASSOCIATION_AND_DEVICE_AUTH_TOKEN --public-key gateway.crt,type=rs256
keyrivet-server device create sensor --public-key path=sensor.crt,type=es256
keyrivet-server device create camera --public-key path=camera.crt,type=es256
keyrivet-server gateway bind --gateway gateway --device sensor
keyrivet-server device list
keyrivet-server gateway list
END
    refused "a device with a certificate of another CA" keyrivet-server <<'END'
openssl req -x509 -newkey rsa:2048 -nodes -keyout other.key -subj /CN=other -days 2 -out other.crt 2>/dev/null
keyrivet-server device create other --public-key other.crt,type=rs256
END
    registry_servers
    registry_tokens
    registry_downwards
    registry_gateway
    registry_http
    registry_without_tpm
    step "who was refused, and why" keyrivet-server <<'END'
sleep 1
keyrivet-server audit --refused
END
}

# Where things are: what `export` shows here, a configuration would hold.
registry_places() {
    export KEYRIVET_REGISTRY_STORE=$folder/registry.db KEYRIVET_PROJECT=my-project KEYRIVET_REGION=eu KEYRIVET_REGISTRY=my-registry
    export DEVICES=projects/my-project/locations/eu/registries/my-registry/devices
    free_ports REGISTRY_PORT CERTIFICATE_PORT INNER_PORT HTTP_PORT HOOKS_PORT
    export KEYRIVET_BROKER=mqtt://127.0.0.1:$INNER_PORT KEYRIVET_BROKER_USER=backend BROKER="-h localhost -p $REGISTRY_PORT --cafile chain.crt"
    declare -p KEYRIVET_{REGISTRY_STORE,PROJECT,REGION,REGISTRY,BROKER,BROKER_USER} DEVICES BROKER {REGISTRY,CERTIFICATE,INNER,HTTP}_PORT |
        sed 's/^declare -x/export/' >>"$folder/env"
}

registry_servers() {
    local user=""
    [[ $(id -u) != 0 ]] || user="user root"
    fill mosquitto-registry.conf "PLUGIN=$programs/libkeyrivet_mosquitto.so" "FOLDER=$folder" "PORT=$REGISTRY_PORT" \
        "CERTIFICATE_PORT=$CERTIFICATE_PORT" "INNER_PORT=$INNER_PORT" "USER=$user" >"$folder/mosquitto-registry.conf"
    step "somebody who may read what devices publish" mosquitto_passwd <<'END'
(umask 077 && cp pin.txt backend-password.txt && mosquitto_passwd -c -b broker-passwords backend $(cat backend-password.txt))
printf 'user backend\ntopic read registries/#\n' >broker-acl
END
    say "the broker with our plugin, and the HTTP bridge"
    background broker <<<"mosquitto -c mosquitto-registry.conf"
    background bridge <<'END'
keyrivet-server serve --listen 127.0.0.1:$HTTP_PORT --hooks 127.0.0.1:$HOOKS_PORT --tls-certificate server-chain.crt --tls-key server.key
END
    wait_until "the broker" listens "$REGISTRY_PORT"
    wait_until "the bridge" listens "$HTTP_PORT"
    say "a backend listens to all devices"
    background events <<<"keyrivet-server events --follow --broker-password-file backend-password.txt"
    wait_until "the backend" grep -q "keyrivet-events" "$folder/log/broker"
    sleep 0.3
}

registry_tokens() {
    step "an event, with a token that the TPM signs" "mosquitto_pub, keyrivet jwt" <<'END'
mosquitto_pub $BROKER -i $DEVICES/camera -u unused -P "$(keyrivet jwt --key camera.pem --aud my-project --exp 1h)" \
    -q 1 -t /devices/camera/events -m 'a picture'
END
    step "the same kind of token, by openssl" "mosquitto_pub, openssl dgst" <<'END'
now=$(date +%s)
unsigned=$(printf '{"alg":"RS256","typ":"JWT"}' | base64url).$(printf '{"aud":"my-project","iat":%d,"exp":%d}' $now $((now + 3600)) | base64url)
signature=$(printf %s "$unsigned" | openssl dgst -provider keyrivet -provider default -sha256 \
    -sign 'pkcs11:token=gateway;object=rsa;type=private?pin-source=file:pin.txt' | base64url)
mosquitto_pub $BROKER -i $DEVICES/gateway -u unused -P "$unsigned.$signature" -q 1 -t /devices/gateway/events -m 'all is well'
END
    step "an event with a certificate instead, its key in the TPM" "mosquitto_pub (provider)" <<'END'
OPENSSL_CONF=openssl-keyrivet.cnf mosquitto_pub -h localhost -p $CERTIFICATE_PORT --cafile chain.crt --cert camera.crt --key camera.pem \
    -i $DEVICES/camera -q 1 -t /devices/camera/events/night -m 'a dark picture'
END
    wait_until "the events" grep -q "a dark picture" "$folder/log/events"
    step "what the backend got" "keyrivet-server events" <<'END'
cat log/events
END
    refused "a token of another device" "mosquitto_pub, keyrivet jwt" <<'END'
mosquitto_pub $BROKER -i $DEVICES/sensor -u unused -P "$(keyrivet jwt --key camera.pem --aud my-project)" -q 1 -t /devices/sensor/events -m x
END
    refused "a token for another project" "mosquitto_pub, keyrivet jwt" <<'END'
mosquitto_pub $BROKER -i $DEVICES/camera -u unused -P "$(keyrivet jwt --key camera.pem --aud other-project)" -q 1 -t /devices/camera/events -m x
END
    step "what the broker says about the two" mosquitto <<'END'
grep -o 'keyrivet: refused.*' log/broker
END
}

registry_downwards() {
    step "a configuration for the sensor" keyrivet-server <<'END'
keyrivet-server config set --device sensor --data 'interval=60'
END
    say "the sensor listens"
    background sensor <<'END'
stdbuf -oL mosquitto_sub -d -v $BROKER -i $DEVICES/sensor -u unused -P "$(keyrivet jwt --key 'pkcs11:token=sensor;object=ec' --aud my-project)" -q 1 -t /devices/sensor/config -t '/devices/sensor/commands/#'
END
    wait_until "the configuration" grep -q "interval=60" "$folder/log/sensor"
    step "another one, and a command" keyrivet-server <<'END'
keyrivet-server config set --device sensor --data 'interval=5'
keyrivet-server command send --device sensor --data 'blink' --subfolder lamp
END
    wait_until "the new configuration" grep -q "interval=5$" "$folder/log/sensor"
    step "what the sensor got" mosquitto_sub <<'END'
grep '^/devices/sensor' log/sensor
END
    end_background sensor
}

registry_gateway() {
    step "the gateway attaches the sensor, which signs a token for that" "mosquitto_pub, keyrivet jwt" <<'END'
sensor=$(keyrivet jwt --key 'pkcs11:token=sensor;object=ec' --aud my-project)
gateway=$(keyrivet jwt --key 'pkcs11:token=gateway;object=rsa' --pin-file pin.txt --aud my-project)
mosquitto_pub $BROKER -i $DEVICES/gateway -u unused -P "$gateway" -q 1 -t /devices/sensor/attach -m "{\"authorization\":\"$sensor\"}"
END
    step "and publishes for it" "mosquitto_pub, keyrivet jwt" <<'END'
gateway=$(keyrivet jwt --key 'pkcs11:token=gateway;object=rsa' --pin-file pin.txt --aud my-project)
mosquitto_pub $BROKER -i $DEVICES/gateway -u unused -P "$gateway" -q 1 -t /devices/sensor/events -m 'warm, says the gateway'
END
    wait_until "the sensor's event" grep -q "warm, says the gateway" "$folder/log/events"
}

registry_http() {
    step "the sensor through its gateway, by HTTP: gateway_id" "curl, keyrivet jwt" <<'END'
TOKEN=$(keyrivet jwt --key 'pkcs11:token=sensor;object=ec' --aud my-project)
curl -sS --fail-with-body --cacert chain.crt -X POST -H "Authorization: Bearer $TOKEN" -H 'content-type: application/json' \
    --data '{"gateway_info": {"gateway_id": "gateway"}, "binary_data": "Zm9v"}' -H 'cache-control: no-cache' \
    https://localhost:$HTTP_PORT/v1/$DEVICES/sensor:publishEvent
END
    step "the gateway for the sensor, by HTTP: delegated_device_id" "curl, keyrivet jwt" <<'END'
TOKEN=$(keyrivet jwt --key 'pkcs11:token=gateway;object=rsa' --pin-file pin.txt --aud my-project)
curl -sS --fail-with-body --cacert chain.crt -X POST -H "Authorization: Bearer $TOKEN" -H 'content-type: application/json' \
    --data '{"gateway_info": {"delegated_device_id": "sensor"}, "binary_data": "Zm9v"}' -H 'cache-control: no-cache' \
    https://localhost:$HTTP_PORT/v1/$DEVICES/gateway:publishEvent
END
    refused "for a device that is not bound: no bare 'Precondition check failed'" "curl, keyrivet jwt" <<'END'
TOKEN=$(keyrivet jwt --key 'pkcs11:token=gateway;object=rsa' --pin-file pin.txt --aud my-project)
curl -sS --fail-with-body --cacert chain.crt -X POST -H "Authorization: Bearer $TOKEN" -H 'content-type: application/json' \
    --data '{"gateway_info": {"delegated_device_id": "camera"}, "binary_data": "Zm9v"}' -H 'cache-control: no-cache' \
    https://localhost:$HTTP_PORT/v1/$DEVICES/gateway:publishEvent
END
    step "so do what it says" "keyrivet-server, curl" <<'END'
keyrivet-server gateway bind --gateway gateway --device camera
camera=$(keyrivet jwt --key camera.pem --aud my-project)
TOKEN=$(keyrivet jwt --key 'pkcs11:token=gateway;object=rsa' --pin-file pin.txt --aud my-project)
mosquitto_pub $BROKER -i $DEVICES/gateway -u unused -P "$TOKEN" -q 1 -t /devices/camera/attach -m "{\"authorization\":\"$camera\"}"
curl -sS --fail-with-body --cacert chain.crt -X POST -H "Authorization: Bearer $TOKEN" -H 'content-type: application/json' \
    --data '{"gateway_info": {"delegated_device_id": "camera"}, "binary_data": "Zm9v"}' -H 'cache-control: no-cache' \
    https://localhost:$HTTP_PORT/v1/$DEVICES/gateway:publishEvent
END
    wait_until "the events of the bridge" grep -q 'devices/camera/events","data":"foo"\|"data":"foo".*devices/camera/events' "$folder/log/events"
}

registry_without_tpm() {
    step "a device without a TPM: the same recipe, the provider left out" "openssl, mosquitto_pub" <<'END'
openssl genrsa -out plain.key 2048 2>/dev/null
openssl req -new -key plain.key -subj /O=Example/CN=plain -addext subjectAltName=DNS:plain.example.com -out plain.csr
openssl ca -batch -notext -config ca/iot-ca.cnf -extensions device_ext -in plain.csr -out plain.crt
keyrivet-server device create plain --public-key plain.crt,type=rs256
now=$(date +%s)
unsigned=$(printf '{"alg":"RS256","typ":"JWT"}' | base64url).$(printf '{"aud":"my-project","iat":%d,"exp":%d}' $now $((now + 3600)) | base64url)
signature=$(printf %s "$unsigned" | openssl dgst -sha256 -sign plain.key | base64url)
mosquitto_pub $BROKER -i $DEVICES/plain -u unused -P "$unsigned.$signature" -q 1 -t /devices/plain/events -m 'no TPM here'
END
    wait_until "its event" grep -q "no TPM here" "$folder/log/events"
}
