/* chirun PROGRAM ARGS...: run a program whose TCP sockets are chitcpd's (preload.c says how). */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "names.h"
#include "pool.h"

#define CANT 125 /* exit statuses, as env(1) and timeout(1) have them */
#define CANT_EXECUTE 126
#define NOT_FOUND 127

static const char HELP[] = "usage: chirun PROGRAM [ARG ...]\n"
                           "\n"
                           "Run a program, as it is, whose TCP sockets are chitcpd's and not the kernel's:\n"
                           "\n"
                           "    chirun python3 -m http.server 8000\n"
                           "    chirun curl http://bob:8000/\n"
                           "\n"
                           "Environment:\n"
                           "  CHITCPD_SOCK     the UNIX socket of the chitcpd to use\n"
                           "  CHITCP_HOSTS     names of the lab's hosts, like \"alice=10.0.0.2 bob=10.0.0.3\"\n"
                           "  CHITCP_NETWORKS  if it is set: only these networks are the lab's, like \"10.0.0.0/8\";\n"
                           "                   sockets for other addresses are the kernel's\n"
                           "\n"
                           "It works by LD_PRELOAD: not for statically linked programs (Go's, among others), nor\n"
                           "for setuid ones. The exit status is the program's; 125 if chirun can't do its part,\n"
                           "126 if the program can't be executed, 127 if it is not found.\n";

/* ---- the program ------------------------------------------------------------------------------------------------- */

/* Where execvp() will find it. */
static bool find(const char *program, char path[PATH_MAX]) {
    if (strchr(program, '/') != NULL)
        return snprintf(path, PATH_MAX, "%s", program) < PATH_MAX && access(path, F_OK) == 0;
    const char *folders = getenv("PATH");
    for (const char *folder = folders != NULL ? folders : "/usr/bin:/bin"; *folder != '\0';) {
        int length = (int)strcspn(folder, ":");
        int written = snprintf(path, PATH_MAX, "%.*s/%s", length > 0 ? length : 1, length > 0 ? folder : ".", program);
        if (written < PATH_MAX && access(path, X_OK) == 0)
            return true;
        folder += length;
        folder += *folder == ':';
    }
    return false;
}

static bool has_interpreter(int fd, const Elf64_Ehdr *header) {
    for (unsigned i = 0; i < header->e_phnum; i++) {
        Elf64_Phdr part;
        if (pread(fd, &part, sizeof part, (off_t)(header->e_phoff + i * sizeof part)) != (ssize_t)sizeof part)
            return false;
        if (part.p_type == PT_INTERP)
            return true;
    }
    return false;
}

/* Why LD_PRELOAD would not reach it; NULL if it does, or if nobody can tell: a script's interpreter is not looked at.
 */
static const char *out_of_reach(const char *path) {
    struct stat status;
    Elf64_Ehdr header;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    const char *why = NULL;
    if (fd < 0)
        return NULL;
    bool read_whole = pread(fd, &header, sizeof header, 0) == (ssize_t)sizeof header;
    if (fstat(fd, &status) == 0 && status.st_mode & S_ISUID && status.st_uid != getuid())
        why = "it is setuid";
    else if (!read_whole || memcmp(header.e_ident, ELFMAG, SELFMAG) != 0)
        why = NULL;
    else if (header.e_ident[EI_CLASS] != ELFCLASS64)
        why = "it is a 32-bit program, and libchisocket-preload.so is not";
    else if (!has_interpreter(fd, &header))
        why = "it is statically linked";
    close(fd);
    return why;
}

/* ---- the library and the daemon ---------------------------------------------------------------------------------- */

/* Beside this file, as after a build, or where it was installed. */
static bool find_library(char path[PATH_MAX]) {
    char self[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length < 0)
        return false;
    self[length] = '\0';
    const char *folder = dirname(self);
    const char *const places[] = {folder, LIBRARIES};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        int written = snprintf(path, PATH_MAX, "%s/libchisocket-preload.so", places[i]);
        if (written < PATH_MAX && access(path, R_OK) == 0)
            return true;
    }
    return false;
}

static int preload(const char *library) {
    const char *others = getenv("LD_PRELOAD");
    char *all;
    if (others == NULL || others[0] == '\0')
        return setenv("LD_PRELOAD", library, 1);
    if (asprintf(&all, "%s:%s", library, others) < 0)
        return -1;
    int result = setenv("LD_PRELOAD", all, 1);
    free(all);
    return result;
}

/* Whether a chitcpd answers that the program can use; if none does, it is said why. */
static bool look_for_chitcpd(void) {
    struct connection *connection;
    int error = pool_take("", &connection);
    if (error == EACCES)
        fprintf(stderr, "chirun: the chitcpd at %s belongs to another user: set CHITCPD_SOCK to one of your own\n",
                socket_path());
    else if (error != 0)
        fprintf(stderr,
                "chirun: no chitcpd answers at %s: start one with `chitcpd -s %s`, or set CHITCPD_SOCK to the socket "
                "of one that runs\n",
                socket_path(), socket_path());
    else if (connection->instance[0] == '\0')
        fprintf(stderr,
                "chirun: the chitcpd at %s is a C one, which hands out no descriptors: use the chisocket_ "
                "functions with it\n",
                socket_path());
    else
        return true;
    return false;
}

/* Whether the environment says what is the lab's; if not, what is wrong with it is said. */
static bool look_at_environment(void) {
    char *host = malformed_host(), *network = malformed_network();
    if (host != NULL)
        fprintf(stderr, "chirun: CHITCP_HOSTS has '%s', expected NAME=ADDRESS, like alice=10.0.0.2\n", host);
    if (network != NULL)
        fprintf(stderr, "chirun: CHITCP_NETWORKS has '%s', expected a network, like 10.0.0.0/8\n", network);
    bool good = host == NULL && network == NULL;
    free(host);
    free(network);
    return good;
}

int main(int argc, char **argv) {
    char path[PATH_MAX], library[PATH_MAX];
    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        fputs(HELP, stdout);
        return 0;
    }
    if (argc < 2 || argv[1][0] == '-') {
        fputs("usage: chirun PROGRAM [ARG ...] (chirun --help tells more)\n", stderr);
        return CANT;
    }
    if (!find(argv[1], path)) {
        fprintf(stderr, "chirun: %s: not found\n", argv[1]);
        return NOT_FOUND;
    }
    const char *why = out_of_reach(path);
    if (why != NULL) {
        fprintf(stderr, "chirun: %s would use the kernel's sockets: %s, and LD_PRELOAD does not reach it\n", path, why);
        return CANT;
    }
    if (!find_library(library)) {
        fputs("chirun: libchisocket-preload.so is neither beside chirun nor where it was installed\n", stderr);
        return CANT;
    }
    if (!look_at_environment() || !look_for_chitcpd())
        return CANT;
    if (preload(library) < 0) {
        perror("chirun");
        return CANT;
    }
    execv(path, argv + 1);
    int error = errno;
    fprintf(stderr, "chirun: %s: %s\n", path, strerror(error));
    return error == ENOENT ? NOT_FOUND : CANT_EXECUTE;
}
