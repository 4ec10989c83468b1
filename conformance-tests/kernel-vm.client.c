/* A client of the token in slot 0, in the virtual machine of kernel-vm. Arguments: module, PIN, and what to do:
 *   sign NUMBER   signs so often
 *   idle          signs twice, says so, waits for the end of its input, and signs once more
 *   fork NUMBER   has so many children, one after the other; it and they sign, and so does another thread of it meanwhile
 *   obey          does what each line of its input says, and answers by a line: see obey()
 * Each signature is verified. Whatever fails ends the process. */
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

typedef unsigned long UL;
typedef struct { UL type; void *value; UL length; } Attribute;
typedef struct { UL type; void *value; UL length; } Mechanism;
typedef struct { UL session, private, public; } Signer;

enum { PUBLIC = 2, PRIVATE = 3 };
enum { CLASS = 0, TOKEN = 1, LABEL = 3, EC_PARAMS = 0x180 };
enum { EC_KEY_PAIR_GEN = 0x1040, ECDSA_SHA256 = 0x1044 };
enum { NOT_INITIALIZED = 0x190 };

static void *module;
static const char *pin;
#define F(name, ...) ((UL (*)(__VA_ARGS__))dlsym(module, #name))

static void end(const char *what, UL answer) {
    fprintf(stderr, "%d failed: %s: 0x%lx\n", getpid(), what, answer);
    _exit(101);
}

static void is(const char *what, UL answer, UL expected) {
    if (answer != expected) end(what, answer);
}

static void ok(const char *what, UL answer) { is(what, answer, 0); }

/* How many objects of this class have this label; the first of them. */
static UL find(UL session, UL class, char *label, UL *first) {
    Attribute wanted[] = { { CLASS, &class, sizeof class }, { LABEL, label, strlen(label) } };
    UL found[8], count;
    ok("C_FindObjectsInit", F(C_FindObjectsInit, UL, Attribute *, UL)(session, wanted, 2));
    ok("C_FindObjects", F(C_FindObjects, UL, UL *, UL, UL *)(session, found, 8, &count));
    ok("C_FindObjectsFinal", F(C_FindObjectsFinal, UL)(session));
    *first = count ? found[0] : 0;
    return count;
}

static Signer pair(UL session, char *label) {
    Signer it = { session, 0, 0 };
    is("private keys", find(session, PRIVATE, label, &it.private), 1);
    is("public keys", find(session, PUBLIC, label, &it.public), 1);
    return it;
}

static UL open_session(void) {
    UL session;
    ok("C_OpenSession", F(C_OpenSession, UL, UL, void *, void *, UL *)(0, 6, 0, 0, &session));
    return session;
}

static Signer log_in(void) {
    ok("C_Initialize", F(C_Initialize, void *)(0));
    UL session = open_session();
    ok("C_Login", F(C_Login, UL, UL, const void *, UL)(session, 1, pin, strlen(pin)));
    return pair(session, "key");
}

static UL begin(Signer it) {
    Mechanism mechanism = { ECDSA_SHA256, 0, 0 };
    return F(C_SignInit, UL, Mechanism *, UL)(it.session, &mechanism, it.private);
}

static void finish(Signer it) {
    Mechanism mechanism = { ECDSA_SHA256, 0, 0 };
    unsigned char signature[64];
    UL length = sizeof signature;
    ok("C_Sign", F(C_Sign, UL, void *, UL, void *, UL *)(it.session, "message", 7, signature, &length));
    ok("C_VerifyInit", F(C_VerifyInit, UL, Mechanism *, UL)(it.session, &mechanism, it.public));
    ok("C_Verify", F(C_Verify, UL, void *, UL, void *, UL)(it.session, "message", 7, signature, length));
}

static void sign(Signer it) {
    ok("C_SignInit", begin(it));
    finish(it);
}

static void idle(Signer it) {
    char go;
    /* A burst's first signature ends its session, the second one leaves one held. */
    sign(it);
    sign(it);
    puts("ready");
    fflush(stdout);
    if (read(0, &go, 1)) end("the input goes on", 0);
    sign(it);
}

/* What a child does, and how it ends. */
enum { NOTHING, SIGNS, FINALISES, ABORTS, KILLED_AT_WORK, DEEDS };
enum { TURNS = 3 };

static void tell(int other) {
    if (write(other, "", 1) != 1) end("the other is gone", 0);
}

static void wait_for(int other) {
    char word;
    if (read(other, &word, 1) != 1) end("the other is gone", 0);
}

static void child(Signer inherited, int deed, int parent, UL *signatures) {
    if (deed == NOTHING) exit(0);
    /* Nothing of what it inherited is known, and it begins anew. */
    is("C_SignInit of a child", begin(inherited), NOT_INITIALIZED);
    is("C_Finalize of a child", F(C_Finalize, void *)(0), NOT_INITIALIZED);
    Signer own = log_in();
    sign(own);
    ++*signatures;
    for (int turn = 0; turn < TURNS; turn++) {
        tell(parent);
        wait_for(parent);
        sign(own);
        ++*signatures;
    }
    tell(parent);
    if (deed == FINALISES) ok("C_Finalize", F(C_Finalize, void *)(0));
    if (deed == ABORTS) abort();
    while (deed == KILLED_AT_WORK) {
        sign(own);
        ++*signatures;
    }
    exit(0);
}

static atomic_int is_over;

/* Another thread, which is in the middle of anything when the process forks; it tells how often it has signed. */
static void *sign_on(void *signatures) {
    Signer it = pair(open_session(), "key");
    for (; !is_over; ++*(UL *)signatures) sign(it);
    return 0;
}

static void forks(Signer it, int number) {
    /* Of a memory that all children share with it. */
    UL *theirs = mmap(0, sizeof *theirs, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), ours = 0, others = 0;
    if (theirs == MAP_FAILED) end("mmap", 0);
    pthread_t thread;
    if (pthread_create(&thread, 0, sign_on, &others)) end("pthread_create", 0);
    for (int round = 0; round < number; round++) {
        int deed = round % DEEDS, ends[2], status;
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends)) end("socketpair", 0);
        /* In the middle of a signature, with its key and session held at the TPM by the one before. */
        ok("C_SignInit", begin(it));
        pid_t process = fork();
        if (process < 0) end("fork", 0);
        if (!process) {
            /* One that hangs is ended. */
            alarm(60);
            close(ends[0]);
            child(it, deed, ends[1], theirs);
        }
        close(ends[1]);
        finish(it);
        ours++;
        for (int turn = 0; turn < TURNS && deed != NOTHING; turn++) {
            wait_for(ends[0]);
            sign(it);
            ours++;
            tell(ends[0]);
        }
        if (deed != NOTHING) wait_for(ends[0]);
        /* While the child leaves, or goes on. */
        sign(it);
        if (deed == KILLED_AT_WORK) {
            usleep(rand() % 50000);
            kill(process, SIGKILL);
        }
        if (waitpid(process, &status, 0) != process) end("waitpid", 0);
        is("a child's end", status, deed == ABORTS ? SIGABRT : deed == KILLED_AT_WORK ? SIGKILL : 0);
        close(ends[0]);
        sign(it);
        ours += 2;
    }
    is_over = 1;
    if (pthread_join(thread, 0)) end("pthread_join", 0);
    if (others < (UL)number) end("the other thread's signatures", others);
    printf("%d children, %lu signatures of theirs, %lu of their parent, %lu of its other thread\n", number, *theirs, ours,
           others);
}

static void make(UL session, char *label) {
    Mechanism mechanism = { EC_KEY_PAIR_GEN, 0, 0 };
    unsigned char yes = 1, p256[] = { 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7 };
    Attribute wanted[] = { { TOKEN, &yes, 1 }, { LABEL, label, strlen(label) }, { EC_PARAMS, p256, sizeof p256 } };
    UL public, private;
    ok("C_GenerateKeyPair", F(C_GenerateKeyPair, UL, Mechanism *, Attribute *, UL, Attribute *, UL, UL *, UL *)(
        session, &mechanism, wanted, 3, wanted, 2, &public, &private));
}

static void rename_object(UL session, UL object, char *label) {
    Attribute wanted = { LABEL, label, strlen(label) };
    ok("C_SetAttributeValue", F(C_SetAttributeValue, UL, UL, Attribute *, UL)(session, object, &wanted, 1));
}

/* Of a pair called "key", which it knew when it logged in: sign. Of any other: make LABEL, use LABEL, rename LABEL LABEL,
 * delete LABEL. The answer is "ok", or "none" of use where there is no such object. */
static void obey(Signer it) {
    char line[100];
    while (fgets(line, sizeof line, stdin)) {
        char deed[20] = "", label[20] = "", other[20] = "";
        const char *answer = "ok";
        UL object;
        int words = sscanf(line, "%19s %19s %19s", deed, label, other);
        if (words == 1 && !strcmp(deed, "sign")) {
            sign(it);
        } else if (words == 2 && !strcmp(deed, "make")) {
            make(it.session, label);
        } else if (words == 2 && !strcmp(deed, "use")) {
            if (find(it.session, PRIVATE, label, &object) || find(it.session, PUBLIC, label, &object)) {
                sign(pair(it.session, label));
            } else answer = "none";
        } else if (words == 3 && !strcmp(deed, "rename")) {
            Signer renamed = pair(it.session, label);
            rename_object(it.session, renamed.private, other);
            rename_object(it.session, renamed.public, other);
        } else if (words == 2 && !strcmp(deed, "delete")) {
            Signer gone = pair(it.session, label);
            ok("C_DestroyObject", F(C_DestroyObject, UL, UL)(it.session, gone.private));
            ok("C_DestroyObject", F(C_DestroyObject, UL, UL)(it.session, gone.public));
        } else end(line, 0);
        puts(answer);
        fflush(stdout);
    }
}

int main(int count, char **words) {
    const char *deed = count > 3 ? words[3] : "";
    int number = count > 4 ? atoi(words[4]) : 0;
    module = count > 3 ? dlopen(words[1], RTLD_NOW) : 0;
    if (!module) end("a module, a PIN and what to do", 0);
    pin = words[2];
    Signer it = log_in();
    if (!strcmp(deed, "sign")) while (number-- > 0) sign(it);
    else if (!strcmp(deed, "idle")) idle(it);
    else if (!strcmp(deed, "fork")) forks(it, number);
    else if (!strcmp(deed, "obey")) obey(it);
    else end(deed, 0);
    return 0;
}
