# Every program that uses p11-kit sees the token, once a module file is in place.

p11kit_system_file=""

chapter_p11kit() {
    chapter "p11kit: the token for GnuTLS and all that asks p11-kit"
    mkdir -p "$folder/p11-kit/pkcs11/modules"
    step "the module file; once installed, in /usr/share/p11-kit/modules" p11-kit <<'END'
echo "module: $MODULE" >p11-kit/pkcs11/modules/keyrivet.module
END
    export XDG_CONFIG_HOME=$folder/p11-kit
    local as_user=""
    [[ $(id -u) != 0 ]] || p11kit_for_root
    step "p11-kit knows the module" p11-kit <<END
${as_user}p11-kit list-modules | grep -A 5 -E '^(module: )?keyrivet'
END
    step "the objects of a token" p11tool <<END
${as_user}p11tool --batch --list-all 'pkcs11:token=sensor'
END
    step "the objects of a token with a PIN" p11tool <<END
GNUTLS_PIN=\$PIN ${as_user}p11tool --batch --login --list-all 'pkcs11:token=gateway'
END
    unset XDG_CONFIG_HOME
}

# p11-kit reads no personal configuration for root: be somebody else in name, or put the file in the system for a moment.
p11kit_for_root() {
    if unshare --user --map-user=1000 true 2>/dev/null; then
        as_user="unshare --user --map-user=1000 "
        note "(p11-kit reads personal module files for everybody but root; hence unshare)"
    else
        p11kit_system_file=/etc/pkcs11/modules/keyrivet-demo.module
        mkdir -p /etc/pkcs11/modules
        cp "$folder/p11-kit/pkcs11/modules/keyrivet.module" "$p11kit_system_file"
        note "(p11-kit reads no personal module files for root; so it is in $p11kit_system_file until the demo ends)"
    fi
}

p11kit_remove_from_system() { [[ -z $p11kit_system_file ]] || rm -f "$p11kit_system_file"; }
