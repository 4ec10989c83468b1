# Certificate signing requests, signed in the TPM, three ways; the IoT CA makes them certificates.

chapter_csr() {
    chapter "csr: requests from the TPM, certificates from the IoT CA"
    step "a request through the provider, the key named by a URI" "openssl req (provider)" <<'END'
openssl req -provider keyrivet -provider default -new -key 'pkcs11:token=gateway;object=rsa;type=private?pin-source=file:pin.txt' \
    -subj /O=Example/CN=gateway -addext subjectAltName=DNS:gateway.example.com -out gateway.csr
openssl req -in gateway.csr -noout -verify -subject
END
    step "a request through the provider, the key in a file" "openssl req (provider)" <<'END'
openssl req -provider keyrivet -provider default -new -key camera.pem \
    -subj /O=Example/CN=camera -addext subjectAltName=DNS:camera.example.com -out camera.csr
openssl req -in camera.csr -noout -verify -subject
END
    step "a request through the pkcs11 engine and our module" "openssl req (engine)" <<'END'
openssl req -engine pkcs11 -keyform engine -new -key 'pkcs11:token=sensor;object=ec;type=private' \
    -subj /O=Example/CN=sensor -addext subjectAltName=DNS:sensor.example.com -out sensor.csr
openssl req -in sensor.csr -noout -verify -subject
END
    step "the IoT CA signs them" "openssl ca" <<'END'
for device in gateway camera sensor; do
    openssl ca -batch -notext -config ca/iot-ca.cnf -extensions device_ext -in $device.csr -out $device.crt
    openssl x509 -in $device.crt -noout -subject -ext subjectAltName
    openssl verify -CAfile ca/root-ca/root-ca.crt -untrusted ca/iot-ca/iot-ca.crt $device.crt
done
END
    step "the certificates go on the tokens, beside their keys" pkcs11-tool <<'END'
openssl x509 -in gateway.crt -outform DER -out gateway.der
openssl x509 -in sensor.crt -outform DER -out sensor.der
pkcs11-tool --module $MODULE --token-label gateway --login --pin env:PIN --write-object gateway.der --type cert --label rsa --id 01
pkcs11-tool --module $MODULE --token-label sensor --write-object sensor.der --type cert --label ec --id 01
END
    step "listing objects costs the TPM nothing" pkcs11-tool <<'END'
pkcs11-tool --module $MODULE --token-label sensor --list-objects
END
}
