# A root CA and a subordinate IoT CA, by openssl ca. Their keys are files: a CA's place is not on the device.

chapter_pki() {
    chapter "pki: a root CA, and an IoT CA under it"
    cp "$here"/pki/*.cnf "$folder/ca/"

    step "the root CA" "openssl ca" <<'END'
mkdir -p ca/root-ca/private ca/root-ca/db ca/root-ca/issued && chmod 700 ca/root-ca/private && : >ca/root-ca/db/issued.txt
openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out ca/root-ca/private/root-ca.key
openssl req -new -config ca/root-ca.cnf -key ca/root-ca/private/root-ca.key -out ca/root-ca.csr
openssl ca -batch -notext -config ca/root-ca.cnf -selfsign -extensions root_ca_ext -in ca/root-ca.csr -out ca/root-ca/root-ca.crt
END
    step "the IoT CA, signed by the root CA" "openssl ca" <<'END'
mkdir -p ca/iot-ca/private ca/iot-ca/db ca/iot-ca/issued && chmod 700 ca/iot-ca/private && : >ca/iot-ca/db/issued.txt
openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out ca/iot-ca/private/iot-ca.key
openssl req -new -config ca/iot-ca.cnf -key ca/iot-ca/private/iot-ca.key -out ca/iot-ca.csr
openssl ca -batch -notext -config ca/root-ca.cnf -extensions iot_ca_ext -in ca/iot-ca.csr -out ca/iot-ca/iot-ca.crt
cat ca/iot-ca/iot-ca.crt ca/root-ca/root-ca.crt >chain.crt
END
    step "a certificate for the servers of this demo" "openssl ca" <<'END'
openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out server.key
openssl req -new -key server.key -subj /CN=localhost -addext subjectAltName=DNS:localhost -out server.csr
openssl ca -batch -notext -config ca/iot-ca.cnf -extensions server_ext -in server.csr -out server.crt
cat server.crt ca/iot-ca/iot-ca.crt >server-chain.crt
END
}
