# Mutual TLS to nginx, by curl: through the provider and through the engine, TLS 1.2 and 1.3.

chapter_https() {
    chapter "https: mutual TLS to nginx"
    local user=""
    [[ $(id -u) != 0 ]] || user="user root;"
    free_ports HTTPS_PORT
    fill nginx.conf "PORT=$HTTPS_PORT" "FOLDER=$folder" "USER=$user" >"$folder/nginx.conf"

    say "the server, on 127.0.0.1:$HTTPS_PORT"
    background nginx <<<"nginx -p $folder -e stderr -c nginx.conf"
    wait_until "the server" listens "$HTTPS_PORT"

    step "TLS 1.2 with the key file, through the provider" curl <<'END'
OPENSSL_CONF=openssl-keyrivet.cnf curl -sSf --tlsv1.2 --tls-max 1.2 --cacert chain.crt --cert camera.crt --key camera.pem \
    https://localhost:$HTTPS_PORT/ | grep 'CN=camera.*TLSv1.2'
END
    step "TLS 1.3 with the key file, through the provider" curl <<'END'
OPENSSL_CONF=openssl-keyrivet.cnf curl -sSf --tlsv1.3 --cacert chain.crt --cert camera.crt --key camera.pem \
    https://localhost:$HTTPS_PORT/ | grep 'CN=camera.*TLSv1.3'
END
    step "TLS 1.2 with a pkcs11: URI and a PIN, through the engine" curl <<'END'
curl -sSf --tlsv1.2 --tls-max 1.2 --cacert chain.crt --cert gateway.crt --engine pkcs11 --key-type ENG \
    --key 'pkcs11:token=gateway;object=rsa;type=private?pin-source=file:pin.txt' https://localhost:$HTTPS_PORT/ | grep 'CN=gateway.*TLSv1.2'
END
    step "TLS 1.3 with a pkcs11: URI and a PIN, through the engine" curl <<'END'
curl -sSf --tlsv1.3 --cacert chain.crt --cert gateway.crt --engine pkcs11 --key-type ENG \
    --key 'pkcs11:token=gateway;object=rsa;type=private?pin-source=file:pin.txt' https://localhost:$HTTPS_PORT/ | grep 'CN=gateway.*TLSv1.3'
END
    refused "a client without a certificate" curl <<'END'
curl -sS --fail-with-body --cacert chain.crt https://localhost:$HTTPS_PORT/
END
}
