# Mutual TLS to a mosquitto broker that asks for certificates of the IoT CA.

chapter_mqtt() {
    chapter "mqtt: mutual TLS to mosquitto"
    local user=""
    # As root, mosquitto would become a user who may not read this folder.
    [[ $(id -u) != 0 ]] || user="user root"
    free_ports MQTT_PORT
    fill mosquitto.conf "PORT=$MQTT_PORT" "FOLDER=$folder" "USER=$user" >"$folder/mosquitto.conf"

    say "the broker, on 127.0.0.1:$MQTT_PORT"
    background mosquitto <<<"mosquitto -c mosquitto.conf"
    wait_until "the broker" listens "$MQTT_PORT"

    step "a key file that only names a key: a pkcs11: URI in PEM" openssl <<'END'
printf '%s\n' 'asn1 = SEQUENCE:uri' '[uri]' 'type = "VISIBLESTRING:PKCS#11 Provider URI v1.0"' \
    "uri = UTF8:pkcs11:token=gateway;object=rsa;type=private?pin-source=file:$PWD/pin.txt" >uri.cnf
openssl asn1parse -genconf uri.cnf -noout -out uri.der
(echo '-----BEGIN PKCS#11 PROVIDER URI-----' && openssl base64 -in uri.der && echo '-----END PKCS#11 PROVIDER URI-----') >gateway.pem
cat gateway.pem
END
    say "somebody listens: the gateway, with its RSA key"
    mqtt_subscriber
    wait_until "the subscription" grep -q SUBACK "$folder/log/mosquitto_sub"
    sleep 0.3 # It lets go of the TPM a moment later, which should not count as the next step's.

    step "a message with the key file, through the provider" "mosquitto_pub" <<'END'
OPENSSL_CONF=openssl-keyrivet.cnf mosquitto_pub -h localhost -p $MQTT_PORT --cafile chain.crt --cert camera.crt --key camera.pem \
    -q 1 -t devices/camera -m 'hello from the camera'
END
    # mosquitto_pub opens --key as a file before it asks the engine: a file of the URI's name has to be there.
    step "a message with a pkcs11: URI, through the engine" "mosquitto_pub" <<'END'
URI='pkcs11:token=sensor;object=ec;type=private' && touch "$URI"
mosquitto_pub -h localhost -p $MQTT_PORT --cafile chain.crt --cert sensor.crt --tls-engine pkcs11 --keyform engine --key "$URI" \
    -q 1 -t devices/sensor -m 'hello from the sensor'
END
    wait_until "both messages" grep -q "from the sensor" "$folder/log/mosquitto_sub"
    step "what the listener got" mosquitto_sub <<'END'
grep '^devices/camera hello from the camera$' log/mosquitto_sub
grep '^devices/sensor hello from the sensor$' log/mosquitto_sub
END
    refused "a client without a certificate" mosquitto_pub <<'END'
mosquitto_pub -h localhost -p $MQTT_PORT --cafile chain.crt -q 1 -t devices/nobody -m 'let me in'
END
    refused "a client with a certificate of another CA" mosquitto_pub <<'END'
openssl req -x509 -newkey rsa:2048 -nodes -keyout stranger.key -subj /CN=stranger -days 2 -out stranger.crt 2>/dev/null
mosquitto_pub -h localhost -p $MQTT_PORT --cafile chain.crt --cert stranger.crt --key stranger.key -q 1 -t devices/stranger -m 'let me in'
END
    step "what the broker says about the two" mosquitto <<'END'
grep -o 'SSL routines.*' log/mosquitto
END
}

mqtt_subscriber() {
    background mosquitto_sub <<'END'
env OPENSSL_CONF=openssl-keyrivet.cnf stdbuf -oL mosquitto_sub -d -v -h localhost -p $MQTT_PORT --cafile chain.crt --cert gateway.crt --key gateway.pem -t 'devices/#'
END
}
