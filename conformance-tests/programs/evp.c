/*
 * A program that knows OpenSSL's EVP only, for tests: what it is told to do with a key, it does and checks.
 * usage: evp KEY sign|decrypt|derive|chain|once|threads|fork|families      KEY is anything that OSSL_STORE_open takes
 */
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/store.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SIGNATURES = 10, THREADS = 4, CHILDREN = 3, FAMILIES = 10 };

static const unsigned char MESSAGE[] = "a message of more than one part";

static void fail(const char *what, int line)
{
    fprintf(stderr, "line %d: %s failed\n", line, what);
    ERR_print_errors_fp(stderr);
    exit(1);
}

#define CHECK(condition) ((condition) ? (void)0 : fail(#condition, __LINE__))

static EVP_PKEY *load(const char *name)
{
    EVP_PKEY *key = NULL;
    OSSL_STORE_CTX *store = OSSL_STORE_open(name, NULL, NULL, NULL, NULL);

    CHECK(store != NULL);
    CHECK(OSSL_STORE_expect(store, OSSL_STORE_INFO_PKEY) == 1);
    while (key == NULL && !OSSL_STORE_eof(store)) {
        OSSL_STORE_INFO *info = OSSL_STORE_load(store);

        if (info != NULL)
            key = OSSL_STORE_INFO_get1_PKEY(info);
        OSSL_STORE_INFO_free(info);
    }
    CHECK(OSSL_STORE_close(store) == 1);
    CHECK(key != NULL);
    return key;
}

/* The public key as anybody else would have it. */
static EVP_PKEY *public_of(EVP_PKEY *key)
{
    unsigned char *der = NULL;
    int length = i2d_PUBKEY(key, &der);
    const unsigned char *at = der;
    EVP_PKEY *public;

    CHECK(length > 0);
    public = d2i_PUBKEY(NULL, &at, length);
    CHECK(public != NULL);
    OPENSSL_free(der);
    return public;
}

static void verify(EVP_PKEY *key, const unsigned char *signature, size_t length)
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();

    CHECK(EVP_DigestVerifyInit(context, NULL, EVP_sha256(), NULL, key) == 1);
    CHECK(EVP_DigestVerify(context, signature, length, MESSAGE, sizeof MESSAGE) == 1);
    EVP_MD_CTX_free(context);
    context = EVP_MD_CTX_new();
    CHECK(EVP_DigestVerifyInit(context, NULL, EVP_sha256(), NULL, key) == 1);
    CHECK(EVP_DigestVerify(context, signature, length, MESSAGE, sizeof MESSAGE - 1) != 1);
    ERR_clear_error();
    EVP_MD_CTX_free(context);
}

static void sign(EVP_PKEY *key)
{
    unsigned char signature[1024];
    size_t length = 0, part = sizeof MESSAGE / 2;
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    EVP_PKEY *public = public_of(key);

    CHECK(EVP_DigestSignInit(context, NULL, EVP_sha256(), NULL, key) == 1);
    CHECK(EVP_DigestSignUpdate(context, MESSAGE, part) == 1);
    CHECK(EVP_DigestSignUpdate(context, MESSAGE + part, sizeof MESSAGE - part) == 1);
    CHECK(EVP_DigestSignFinal(context, NULL, &length) == 1);
    CHECK(length <= sizeof signature);
    CHECK(EVP_DigestSignFinal(context, signature, &length) == 1);
    EVP_MD_CTX_free(context);
    verify(key, signature, length);
    verify(public, signature, length);
    EVP_PKEY_free(public);
}

static void decrypt(EVP_PKEY *key)
{
    unsigned char secret[1024], plain[1024];
    size_t secret_length = sizeof secret, length = sizeof plain;
    EVP_PKEY *public = public_of(key);
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_pkey(NULL, public, NULL);

    CHECK(EVP_PKEY_encrypt_init(context) == 1);
    CHECK(EVP_PKEY_encrypt(context, secret, &secret_length, MESSAGE, sizeof MESSAGE) == 1);
    EVP_PKEY_CTX_free(context);
    context = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
    CHECK(EVP_PKEY_decrypt_init(context) == 1);
    CHECK(EVP_PKEY_decrypt(context, plain, &length, secret, secret_length) == 1);
    CHECK(length == sizeof MESSAGE && memcmp(plain, MESSAGE, length) == 0);
    EVP_PKEY_CTX_free(context);
    EVP_PKEY_free(public);
}

static size_t agree(EVP_PKEY *one, EVP_PKEY *other, unsigned char *secret, size_t size)
{
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_pkey(NULL, one, NULL);

    CHECK(EVP_PKEY_derive_init(context) == 1);
    CHECK(EVP_PKEY_derive_set_peer(context, other) == 1);
    CHECK(EVP_PKEY_derive(context, secret, &size) == 1);
    EVP_PKEY_CTX_free(context);
    return size;
}

static void derive(EVP_PKEY *key)
{
    unsigned char ours[128], theirs[128];
    EVP_PKEY *peer = EVP_PKEY_Q_keygen(NULL, "provider=default", "EC", "P-256");
    EVP_PKEY *peers_public, *public = public_of(key);
    size_t length;

    CHECK(peer != NULL);
    peers_public = public_of(peer);
    length = agree(key, peers_public, ours, sizeof ours);
    CHECK(length == 32 && agree(peer, public, theirs, sizeof theirs) == length);
    CHECK(memcmp(ours, theirs, length) == 0);
    EVP_PKEY_free(peer);
    EVP_PKEY_free(peers_public);
    EVP_PKEY_free(public);
}

static X509 *certificate(EVP_PKEY *key, const char *name, X509 *issuer)
{
    X509 *made = X509_new();
    X509_EXTENSION *authority = X509V3_EXT_conf_nid(NULL, NULL, NID_basic_constraints, "critical,CA:TRUE");

    CHECK(X509_set_version(made, X509_VERSION_3) == 1);
    CHECK(X509_NAME_add_entry_by_NID(X509_get_subject_name(made), NID_commonName, MBSTRING_ASC,
                                     (const unsigned char *)name, -1, -1, 0) == 1);
    CHECK(X509_set_issuer_name(made, X509_get_subject_name(issuer != NULL ? issuer : made)) == 1);
    CHECK(X509_gmtime_adj(X509_getm_notBefore(made), -60) != NULL);
    CHECK(X509_gmtime_adj(X509_getm_notAfter(made), 3600) != NULL);
    CHECK(X509_add_ext(made, authority, -1) == 1);
    CHECK(X509_set_pubkey(made, key) == 1);
    CHECK(X509_sign(made, key, EVP_sha256()) > 0);
    X509_EXTENSION_free(authority);
    return made;
}

/* The certificates still hold the very key that they were made with. */
static void chain(EVP_PKEY *key)
{
    X509 *root = certificate(key, "root", NULL), *leaf = certificate(key, "leaf", root);
    X509_STORE *trusted = X509_STORE_new();
    X509_STORE_CTX *context = X509_STORE_CTX_new();

    CHECK(X509_STORE_add_cert(trusted, root) == 1);
    CHECK(X509_STORE_CTX_init(context, trusted, leaf, NULL) == 1);
    if (X509_verify_cert(context) != 1)
        fail(X509_verify_cert_error_string(X509_STORE_CTX_get_error(context)), __LINE__);
    X509_STORE_CTX_free(context);
    X509_STORE_free(trusted);
    X509_free(leaf);
    X509_free(root);
}

/* Nobody gets the private part of a key. */
static void stays(EVP_PKEY *made)
{
    OSSL_PARAM *parts = NULL;

    CHECK(made != NULL);
    CHECK(EVP_PKEY_todata(made, EVP_PKEY_PUBLIC_KEY, &parts) == 1);
    OSSL_PARAM_free(parts);
    CHECK(EVP_PKEY_todata(made, EVP_PKEY_KEYPAIR, &parts) != 1);
}

/* Nor is it saved, where it is not in the TPM. */
static void stays_in_memory(EVP_PKEY *made)
{
    stays(made);
    CHECK(i2d_PrivateKey(made, NULL) <= 0);
    ERR_clear_error();
}

/* Keys that are used once, for a handshake or a message. */
static void once(EVP_PKEY *key)
{
    static const char OURS[] = "provider=keyrivet";
    unsigned char secret[128], same[128];
    SSL_CTX *tls = SSL_CTX_new(TLS_method());
    EVP_PKEY *public = public_of(key), *peer = NULL, *made = NULL, *point;
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, "EC", OURS);
    OSSL_PARAM *parts = NULL;

    CHECK(tls != NULL);
    /* Under libssl's own name of the group, and under the usual one, which libssl of OpenSSL 3.5 takes. */
    made = EVP_PKEY_Q_keygen(NULL, OURS, "EC", "keyrivet-tls-secp256r1");
    stays_in_memory(made);
    point = public_of(made);
    CHECK(agree(key, point, secret, sizeof secret) == 32 && agree(made, public, same, sizeof same) == 32);
    CHECK(memcmp(secret, same, 32) == 0);
    EVP_PKEY_free(made);
    EVP_PKEY_free(point);
    made = EVP_PKEY_Q_keygen(NULL, OURS, "EC", "P-256");
    stays(made);
    EVP_PKEY_free(made);
    /* After the model of a peer's. */
    CHECK(EVP_PKEY_todata(public, EVP_PKEY_PUBLIC_KEY, &parts) == 1);
    CHECK(EVP_PKEY_fromdata_init(context) == 1);
    CHECK(EVP_PKEY_fromdata(context, &peer, EVP_PKEY_PUBLIC_KEY, parts) == 1);
    EVP_PKEY_CTX_free(context);
    context = EVP_PKEY_CTX_new_from_pkey(NULL, peer, OURS);
    made = NULL;
    CHECK(EVP_PKEY_keygen_init(context) == 1);
    CHECK(EVP_PKEY_keygen(context, &made) == 1);
    stays_in_memory(made);
    CHECK(agree(made, public, secret, sizeof secret) == 32);
    EVP_PKEY_free(made);
    EVP_PKEY_CTX_free(context);
    OSSL_PARAM_free(parts);
    EVP_PKEY_free(peer);
    EVP_PKEY_free(public);
    SSL_CTX_free(tls);
}

static void sign_often(EVP_PKEY *key)
{
    for (int i = 0; i < SIGNATURES; i++)
        sign(key);
}

static void *sign_in_a_thread(void *key)
{
    sign_often(key);
    return NULL;
}

static void in_threads(EVP_PKEY *key)
{
    pthread_t threads[THREADS];

    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, sign_in_a_thread, key) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
}

/* Each child leaves in another way; the parent signs while they do, and after. */
static void in_children(EVP_PKEY *key)
{
    pid_t children[CHILDREN];
    int status;

    sign(key);
    for (int i = 0; i < CHILDREN; i++) {
        children[i] = fork();
        CHECK(children[i] >= 0);
        if (children[i] == 0) {
            sign_often(key);
            if (i == 0)
                _exit(0);
            EVP_PKEY_free(key);
            if (i == 1)
                _exit(0);
            exit(0);
        }
    }
    sign_often(key);
    for (int i = 0; i < CHILDREN; i++)
        CHECK(waitpid(children[i], &status, 0) == children[i] && status == 0);
    sign(key);
    /* And the parent frees its own while the child goes on. */
    children[0] = fork();
    CHECK(children[0] >= 0);
    if (children[0] == 0) {
        sign_often(key);
        exit(0);
    }
    EVP_PKEY_free(key);
    CHECK(waitpid(children[0], &status, 0) == children[0] && status == 0);
    exit(0);
}

/* The parent has just signed, each time; in its child, threads wait for each other. */
static void in_families(EVP_PKEY *key)
{
    int status;

    for (int i = 0; i < FAMILIES; i++) {
        pid_t child;

        sign(key);
        child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            in_threads(key);
            _exit(0);
        }
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
}

int main(int count, char **arguments)
{
    static const struct {
        const char *name;
        void (*work)(EVP_PKEY *);
    } JOBS[] = {
        { "sign", sign }, { "decrypt", decrypt }, { "derive", derive },
        { "chain", chain }, { "once", once },
        { "threads", in_threads }, { "fork", in_children },
        { "families", in_families },
    };
    EVP_PKEY *key;

    CHECK(count == 3);
    key = load(arguments[1]);
    for (size_t i = 0; i < sizeof JOBS / sizeof JOBS[0]; i++) {
        if (strcmp(JOBS[i].name, arguments[2]) == 0) {
            JOBS[i].work(key);
            EVP_PKEY_free(key);
            return 0;
        }
    }
    fail("a job of this name", __LINE__);
    return 1;
}
