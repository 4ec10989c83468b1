# Which programs the demo and the tests need, and the Debian packages they are in.
# One line each: what must be there (a program, or a file), and its package.

packages_for_demo='
swtpm                                               swtpm
tpm2_shutdown                                       tpm2-tools
pkcs11-tool                                         opensc
p11tool                                             gnutls-bin
p11-kit                                             p11-kit
openssl                                             openssl
mosquitto                                           mosquitto
mosquitto_pub                                       mosquitto-clients
nginx                                               nginx-light
curl                                                curl
xxd                                                 xxd
/usr/lib/*/engines-3/pkcs11.so                      libengine-pkcs11-openssl
/usr/lib/python3/dist-packages/jwt/__init__.py      python3-jwt
/usr/lib/python3/dist-packages/cryptography/x509    python3-cryptography
'
packages_for_build='
cc                                                  gcc
/usr/include/stdio.h                                libc6-dev
pkg-config                                          pkg-config
/usr/include/tss2/tss2_sys.h                        libtss2-dev
'
packages_for_tests='
readelf                                             binutils
script                                              bsdutils
kill                                                procps
/usr/include/openssl/core_dispatch.h                libssl-dev
tpm2-abrmd                                          tpm2-abrmd
/usr/lib/*/libtss2-tcti-tabrmd.so.0                 libtss2-tcti-tabrmd0
/usr/lib/*/libtss2-tcti-swtpm.so.0                  libtss2-tcti-swtpm0
dbus-daemon                                         dbus
stunnel4                                            stunnel4
/usr/lib/*/ossl-modules/tpm2.so                     tpm2-openssl
python3                                             python3
gcore                                               gdb
/usr/lib/postgresql/*/bin/postgres                  postgresql
rabbitmqctl                                         rabbitmq-server
/usr/lib/llvm-*/lib/libclang-[0-9]*.so*                    libclang-dev
/usr/sbin/sshd                                      openssh-server
ssh-keygen                                          openssh-client
certutil                                            libnss3-tools
softhsm2-util                                       softhsm2
/usr/lib/*/p11-kit-proxy.so                         p11-kit-modules
/usr/lib/python3/dist-packages/PyKCS11/__init__.py  python3-pykcs11
flock                                               util-linux
unshare                                             util-linux
/usr/include/mosquitto_plugin.h                     mosquitto-dev
/usr/include/mosquitto.h                            libmosquitto-dev
/usr/lib/python3/dist-packages/paho/mqtt/client.py  python3-paho-mqtt
'

packages_for_fuzzing='
c++                                                 g++
/usr/include/openssl/core_dispatch.h                libssl-dev
'

# For tests of programs that Debian 12 does not have.
packages_for_later_tests='
/usr/lib/*/ossl-modules/pkcs11.so                   pkcs11-provider
'
packages_for_bench='
/usr/lib/*/pkcs11/libtpm2_pkcs11.so                 libtpm2-pkcs11-1
/usr/lib/*/ossl-modules/tpm2.so                     tpm2-openssl
sqlite3                                             sqlite3
'

# require_packages TABLE...: installs what is missing, as root; says what to install otherwise.
require_packages() {
    local what package missing=()
    while read -r what package; do
        [[ -z $what ]] || is_there "$what" || missing+=("$package")
    done <<<"$*"
    ((${#missing[@]})) || return 0
    if [[ $(id -u) != 0 ]]; then
        echo "Missing: ${missing[*]}. Install them as root, then run this again:" >&2
        echo "    apt-get install ${missing[*]}" >&2
        exit 1
    fi
    echo "Installing: ${missing[*]}"
    apt-get update -q >/dev/null
    DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends "${missing[@]}" >/dev/null
}

require_rust() {
    command -v cargo >/dev/null && return
    echo "Rust is missing: apt-get install cargo (Debian 13 or later), or https://rustup.rs" >&2
    exit 1
}

is_there() {
    case $1 in
    /*) compgen -G "$1" >/dev/null ;;
    *) command -v "$1" >/dev/null ;;
    esac
}
