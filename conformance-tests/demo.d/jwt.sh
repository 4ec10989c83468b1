# JSON Web Tokens as IoT Core wanted them for MQTT: signed in the TPM, checked by a library that knows nothing of it.

chapter_jwt() {
    chapter "jwt: tokens signed in the TPM"
    cp "$here/demo.d/verify-jwt" "$folder/verify-jwt"
    step "header and claims: for whom, since when, until when" openssl <<'END'
base64url() { openssl base64 -A | tr '+/' '-_' | tr -d =; }
now=$(date +%s)
for alg in RS256 ES256; do
    header=$(printf '{"alg":"%s","typ":"JWT"}' $alg | base64url)
    claims=$(printf '{"aud":"my-project","iat":%d,"exp":%d}' $now $((now + 1200)) | base64url)
    printf '%s.%s' $header $claims >$alg.unsigned
done
cat RS256.unsigned
END
    step "RS256 by openssl" "openssl dgst (provider)" <<'END'
openssl dgst -provider keyrivet -provider default -sha256 \
    -sign 'pkcs11:token=gateway;object=rsa;type=private?pin-source=file:pin.txt' -out RS256.signature RS256.unsigned
printf '%s.%s' $(cat RS256.unsigned) $(base64url <RS256.signature) >gateway-openssl.jwt
END
    step "RS256 by pkcs11-tool" pkcs11-tool <<'END'
pkcs11-tool --module $MODULE --token-label gateway --login --pin env:PIN --id 01 \
    --sign --mechanism SHA256-RSA-PKCS --input-file RS256.unsigned --output-file RS256.signature
printf '%s.%s' $(cat RS256.unsigned) $(base64url <RS256.signature) >gateway-pkcs11.jwt
END
    # A JWS wants r and s side by side, openssl gives a SEQUENCE of two INTEGERs (RFC 7518, 3.4).
    step "ES256 by openssl" "openssl dgst (provider)" <<'END'
openssl dgst -provider keyrivet -provider default -sha256 -sign camera.pem -out ES256.der ES256.unsigned
openssl asn1parse -inform DER -in ES256.der | sed -n 's/.*INTEGER *://p' | while read n; do printf '%64s' $n; done | tr ' ' 0 | xxd -r -p >ES256.signature
printf '%s.%s' $(cat ES256.unsigned) $(base64url <ES256.signature) >camera-openssl.jwt
END
    step "ES256 by pkcs11-tool" pkcs11-tool <<'END'
openssl dgst -sha256 -binary -out ES256.digest ES256.unsigned
pkcs11-tool --module $MODULE --token-label sensor --id 01 --sign --mechanism ECDSA --input-file ES256.digest --output-file ES256.signature
printf '%s.%s' $(cat ES256.unsigned) $(base64url <ES256.signature) >sensor-pkcs11.jwt
END
    step "all four hold, by the devices' certificates" "PyJWT" <<'END'
./verify-jwt gateway.crt my-project gateway-openssl.jwt gateway-pkcs11.jwt
./verify-jwt camera.crt my-project camera-openssl.jwt
./verify-jwt sensor.crt my-project sensor-pkcs11.jwt
END
    refused "one device's token by another device's certificate" "PyJWT" <<'END'
./verify-jwt camera.crt my-project sensor-pkcs11.jwt
END
}
