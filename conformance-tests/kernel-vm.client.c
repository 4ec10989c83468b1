/* A client of the token in slot 0, in the virtual machine of kernel-vm. With a number it signs so often and ends; without, it
 * signs, says so, waits for the end of its input, and signs once more. Arguments: module, PIN, number. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long UL;
typedef struct { UL type; void *value; UL length; } Attribute;
typedef struct { UL type; void *value; UL length; } Mechanism;

int main(int count, char **words) {
    void *module = dlopen(words[1], RTLD_NOW);
#define F(name, ...) ((UL (*)(__VA_ARGS__))dlsym(module, #name))
    UL session, key, found, class = 3, failed;
    Attribute wanted = { 0, &class, sizeof class };
    Mechanism rsa_pkcs = { 1, 0, 0 };
    failed = F(C_Initialize, void *)(0) | F(C_OpenSession, UL, UL, void *, void *, UL *)(0, 4, 0, 0, &session);
    failed |= F(C_Login, UL, UL, void *, UL)(session, 1, words[2], strlen(words[2]));
    failed |= F(C_FindObjectsInit, UL, Attribute *, UL)(session, &wanted, 1);
    failed |= F(C_FindObjects, UL, UL *, UL, UL *)(session, &key, 1, &found);
    failed |= F(C_FindObjectsFinal, UL)(session);
    int idles = count < 4;
    for (int number = idles ? 2 : atoi(words[3]); number > 0 && !failed; number--) {
        unsigned char signature[256];
        UL length = sizeof signature;
        failed = F(C_SignInit, UL, Mechanism *, UL)(session, &rsa_pkcs, key);
        failed |= F(C_Sign, UL, void *, UL, void *, UL *)(session, "message", 7, signature, &length);
        if (idles && number == 2 && !failed) {
            puts("ready");
            fflush(stdout);
            char go;
            read(0, &go, 1);
        }
    }
    if (failed) fprintf(stderr, "failed: 0x%lx\n", failed);
    return failed != 0;
}
