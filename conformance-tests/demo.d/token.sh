# Two tokens, one with a PIN and one without, and keys that the TPM makes and keeps.

chapter_token() {
    chapter "token: two tokens and three keys in the TPM"
    step "loading the module and listing its slots costs the TPM nothing" pkcs11-tool <<'END'
pkcs11-tool --module $MODULE --list-slots
END
    step "a token with a PIN, in the free slot (it is listed last)" pkcs11-tool <<'END'
slot=$(pkcs11-tool --module $MODULE --list-slots | sed -n 's/^Slot .*(\(0x[0-9a-f]*\)).*/\1/p' | tail -n 1)
pkcs11-tool --module $MODULE --init-token --slot $slot --label gateway --so-pin env:SO_PIN
pkcs11-tool --module $MODULE --init-pin --token-label gateway --login --login-type so --so-pin env:SO_PIN --new-pin env:PIN
END
    step "a token without: for devices that nobody types a PIN into" pkcs11-tool <<'END'
slot=$(pkcs11-tool --module $MODULE --list-slots | sed -n 's/^Slot .*(\(0x[0-9a-f]*\)).*/\1/p' | tail -n 1)
pkcs11-tool --module $MODULE --init-token --slot $slot --label sensor --so-pin env:SO_PIN
pkcs11-tool --module $MODULE --init-pin --token-label sensor --login --login-type so --so-pin env:SO_PIN --new-pin ""
END
    step "an RSA-2048 key in the TPM" pkcs11-tool <<'END'
pkcs11-tool --module $MODULE --token-label gateway --login --pin env:PIN --keypairgen --key-type rsa:2048 --label rsa --id 01
END
    step "a P-256 key in the TPM" pkcs11-tool <<'END'
pkcs11-tool --module $MODULE --token-label gateway --login --pin env:PIN --keypairgen --key-type EC:prime256v1 --label ec --id 02
END
    step "a P-256 key that needs no PIN" pkcs11-tool <<'END'
pkcs11-tool --module $MODULE --token-label sensor --keypairgen --key-type EC:prime256v1 --label ec --id 01
END
    step "a P-256 key in a file of its own, of use to this TPM only" "openssl genpkey" <<'END'
openssl genpkey -provider keyrivet -provider default -algorithm EC -pkeyopt group:P-256 -out camera.pem
cat camera.pem
END
}
