/* The OpenSSL headers that make up the ABI between the core and a provider; see ../src/ffi/core_abi.rs. */
#include <openssl/core.h>
#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/core_object.h>
/* Numbers that travel in parameters. */
#include <openssl/prov_ssl.h>
#include <openssl/rsa.h>
#include <openssl/store.h>
