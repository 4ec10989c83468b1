# The private key is nowhere on disk in a form that is of use without this TPM.

chapter_proof() {
    chapter "proof: what a thief of the disk has"
    export OTHER_TPM
    OTHER_TPM=$(software_tpm_tcti "$folder/tpm-other")
    step "all there is of the keys: files encrypted by the TPM" openssl <<'END'
grep -rh -- '-----BEGIN' store camera.pem | sort | uniq -c
END
    step "what programs get when they ask for a private key: the same" "pkcs11-tool, openssl" <<'END'
pkcs11-tool --module $MODULE --token-label gateway --login --pin env:PIN --list-objects --type privkey | grep -E 'label|Access'
openssl pkey -provider keyrivet -provider default -in 'pkcs11:token=gateway;object=rsa;type=private?pin-source=file:pin.txt' | grep BEGIN
END
    step "here, the key file signs" "openssl dgst (provider)" <<'END'
openssl dgst -provider keyrivet -provider default -sha256 -sign camera.pem -out proof.signature env
openssl pkey -provider keyrivet -provider default -in camera.pem -pubout -out camera.pub
openssl dgst -sha256 -verify camera.pub -signature proof.signature env
END
    say "a second TPM: the thief's, with a storage root key of its own"
    start_software_tpm "$folder/tpm-other"
    KEYRIVET_TCTI=$OTHER_TPM KEYRIVET_STORE=$folder/store-of-thief step "the thief makes a token there" pkcs11-tool <<'END'
mkdir $KEYRIVET_STORE
pkcs11-tool --module $MODULE --init-token --slot 0 --label thief --so-pin env:SO_PIN
END
    refused "there, the key file does not sign" "openssl dgst (provider)" <<'END'
KEYRIVET_TCTI=$OTHER_TPM openssl dgst -provider keyrivet -provider default -sha256 -sign camera.pem -out stolen.signature env
END
    refused "nor does a copy of the whole store, even with the PIN" "pkcs11-tool" <<'END'
cp -a store stolen-store
KEYRIVET_TCTI=$OTHER_TPM KEYRIVET_STORE=$PWD/stolen-store KEYRIVET_LOG=error pkcs11-tool --module $MODULE --token-label gateway --login --pin env:PIN \
    --id 01 --sign --mechanism SHA256-RSA-PKCS --input-file env --output-file stolen.signature
END
}
