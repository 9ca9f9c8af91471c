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
#include <sys/xattr.h>
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
                           "  chirun python3 -m http.server 8000\n"
                           "  chirun curl http://bob:8000/\n"
                           "\n"
                           "Environment:\n"
                           "  CHITCPD_SOCK     the UNIX socket of the chitcpd to use\n"
                           "                   (else /tmp/chitcpd.socket.LOGIN)\n"
                           "  CHITCP_HOSTS     names of the lab's hosts, like\n"
                           "                   \"alice=10.0.0.2 bob=10.0.0.3\"\n"
                           "  CHITCP_NETWORKS  if it is set, only these networks are the lab's,\n"
                           "                   like \"10.0.0.0/8 fd00::/8\": sockets for other\n"
                           "                   addresses are the kernel's\n"
                           "\n"
                           "It works by LD_PRELOAD: not for programs that are statically linked,\n"
                           "written in Go, setuid or setgid. The exit status is the program's;\n"
                           "125 if chirun can't do its part, 126 if the program can't be executed,\n"
                           "127 if it is not found.\n";

/* ---- the program ------------------------------------------------------------------------------------------------- */

static bool is_file(const char *path) {
    struct stat status;
    return stat(path, &status) == 0 && S_ISREG(status.st_mode);
}

/* Where execvp() would find it: the first that may be executed, else the first that is there. */
static bool find(const char *program, char path[PATH_MAX]) {
    if (strchr(program, '/') != NULL)
        return snprintf(path, PATH_MAX, "%s", program) < PATH_MAX && access(path, F_OK) == 0;
    const char *folder = getenv("PATH");
    bool found = false;
    for (folder = folder != NULL ? folder : "/usr/bin:/bin";; folder++) {
        char candidate[PATH_MAX];
        int length = (int)strcspn(folder, ":");
        int written =
            snprintf(candidate, PATH_MAX, "%.*s/%s", length > 0 ? length : 1, length > 0 ? folder : ".", program);
        bool there = written < PATH_MAX && is_file(candidate), good = there && access(candidate, X_OK) == 0;
        if (good || (there && !found))
            strcpy(path, candidate);
        found = found || there;
        folder += length;
        if (good || *folder == '\0')
            return found;
    }
}

/* Whether these notes have Go's: its programs call the kernel by themselves, also if they are dynamically linked. */
static bool has_go(const char *notes, size_t size) {
    for (size_t at = 0; at + sizeof(Elf64_Nhdr) + 4 <= size;) {
        Elf64_Nhdr note;
        memcpy(&note, notes + at, sizeof note);
        if (note.n_namesz == 4 && memcmp(notes + at + sizeof note, "Go\0\0", 4) == 0)
            return true;
        at += sizeof note + ((size_t)note.n_namesz + 3) / 4 * 4 + ((size_t)note.n_descsz + 3) / 4 * 4;
    }
    return false;
}

static const char *why_not_elf(int fd, const Elf64_Ehdr *header) {
    bool interpreted = false, go = false;
    for (unsigned i = 0; i < header->e_phnum; i++) {
        Elf64_Phdr part;
        char notes[4096];
        if (pread(fd, &part, sizeof part, (off_t)(header->e_phoff + i * sizeof part)) != (ssize_t)sizeof part)
            break;
        interpreted = interpreted || part.p_type == PT_INTERP;
        ssize_t size = part.p_type == PT_NOTE ? pread(fd, notes, sizeof notes, (off_t)part.p_offset) : 0;
        go = go || (size > 0 && has_go(notes, (size_t)size < part.p_filesz ? (size_t)size : part.p_filesz));
    }
    return go ? "it is written in Go" : interpreted ? NULL : "it is statically linked";
}

static const char *why_not_privileged(int fd) {
    struct stat status;
    if (fstat(fd, &status) < 0)
        return NULL;
    if ((status.st_mode & S_ISUID && status.st_uid != getuid()) ||
        (status.st_mode & S_ISGID && status.st_gid != getgid()))
        return "it is setuid or setgid";
    return getuid() != 0 && fgetxattr(fd, "security.capability", NULL, 0) > 0 ? "it has capabilities" : NULL;
}

/* Why LD_PRELOAD would not reach it; NULL if it does, or if nobody can tell: a script's interpreter is not looked at.
 */
static const char *out_of_reach(const char *path) {
    Elf64_Ehdr header;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    const char *why = why_not_privileged(fd);
    bool elf =
        pread(fd, &header, sizeof header, 0) == (ssize_t)sizeof header && memcmp(header.e_ident, ELFMAG, SELFMAG) == 0;
    if (why == NULL && elf)
        why = header.e_ident[EI_CLASS] == ELFCLASS64 ? why_not_elf(fd, &header) : "it is a 32-bit program";
    close(fd);
    return why;
}

/* ---- the library and the daemon ---------------------------------------------------------------------------------- */

/* Beside this file, as after a build; or where it was installed, also if all of that has moved. If it is nowhere, that
 * is said. */
static bool find_library(char path[PATH_MAX]) {
    char self[PATH_MAX], moved[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    self[length > 0 ? length : 0] = '\0';
    const char *folder = dirname(self);
    if (snprintf(moved, sizeof moved, "%s/../" LIBDIR, folder) >= (int)sizeof moved)
        return false;
    const char *const places[] = {folder, moved, PREFIX "/" LIBDIR};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        int written = snprintf(path, PATH_MAX, "%s/libchisocket-preload.so", places[i]);
        if (written < PATH_MAX && access(path, R_OK) == 0)
            return true;
    }
    fprintf(stderr, "chirun: libchisocket-preload.so is neither in %s nor in %s nor in %s\n", places[0], places[1],
            places[2]);
    return false;
}

/* Put the library before others in LD_PRELOAD. */
static bool preload(const char *library) {
    const char *others = getenv("LD_PRELOAD");
    if (strpbrk(library, ": ") != NULL) {
        fprintf(stderr, "chirun: LD_PRELOAD can't have the path %s, with a blank or a colon in it: move it\n", library);
        return false;
    }
    char *all = NULL;
    bool more = others != NULL && others[0] != '\0';
    bool done = asprintf(&all, "%s%s%s", library, more ? ":" : "", more ? others : "") >= 0 &&
                setenv("LD_PRELOAD", all, 1) == 0;
    free(all);
    if (!done)
        perror("chirun");
    return done;
}

/* Let the program find the same chitcpd wherever it goes, and whoever it becomes. */
static bool settle_on_chitcpd(void) {
    const char *path = socket_path();
    char here[PATH_MAX], whole[2 * PATH_MAX];
    if (path[0] != '/' && getcwd(here, sizeof here) == NULL) {
        perror("chirun");
        return false;
    }
    snprintf(whole, sizeof whole, "%s%s%s", path[0] == '/' ? "" : here, path[0] == '/' ? "" : "/", path);
    if (setenv("CHITCPD_SOCK", whole, 1) == 0)
        return true;
    perror("chirun");
    return false;
}

static void say_no_chitcpd(const char *path) {
    struct stat status;
    if (stat(path, &status) == 0 && !S_ISSOCK(status.st_mode))
        fprintf(stderr, "chirun: %s is no socket: set CHITCPD_SOCK to the socket of a chitcpd\n", path);
    else
        fprintf(stderr,
                "chirun: no chitcpd answers at %s: start one with `chitcpd -s %s`, or set CHITCPD_SOCK to the socket "
                "of one that runs\n",
                path, path);
}

/* Whether a chitcpd answers that the program can use; if none does, it is said why. */
static bool look_for_chitcpd(void) {
    struct connection *connection;
    int error = pool_take("", &connection);
    if (error != 0 && error != ENETDOWN && error != EACCES)
        fprintf(stderr, "chirun: the chitcpd at %s can't be used: %s\n", socket_path(), strerror(error));
    else if (error == EACCES)
        fprintf(stderr, "chirun: the chitcpd at %s belongs to another user: set CHITCPD_SOCK to one of your own\n",
                socket_path());
    else if (error != 0)
        say_no_chitcpd(socket_path());
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
        fprintf(stderr, "chirun: CHITCP_HOSTS has '%s', expected NAME=ADDRESS ..., like alice=10.0.0.2 bob=10.0.0.3\n",
                host);
    if (network != NULL)
        fprintf(stderr, "chirun: CHITCP_NETWORKS has '%s', expected networks, like 10.0.0.0/8 fd00::/8\n", network);
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
    if (argc > 1 && strcmp(argv[1], "--version") == 0) {
        puts("chirun " VERSION);
        return 0;
    }
    char **command = argc > 1 && strcmp(argv[1], "--") == 0 ? argv + 2 : argv + 1;
    if (command >= argv + argc || (command == argv + 1 && command[0][0] == '-')) {
        fputs("usage: chirun PROGRAM [ARG ...] (chirun --help tells more)\n", stderr);
        return CANT;
    }
    if (command[0][0] == '\0' || !find(command[0], path)) {
        fprintf(stderr, "chirun: %s: not found\n", command[0]);
        return NOT_FOUND;
    }
    const char *why = out_of_reach(path);
    if (why != NULL) {
        fprintf(stderr, "chirun: %s would use the kernel's sockets: %s, and LD_PRELOAD does not reach it\n", path, why);
        return CANT;
    }
    if (!find_library(library) || !look_at_environment() || !settle_on_chitcpd() || !look_for_chitcpd() ||
        !preload(library))
        return CANT;
    execvp(path, command); /* which has a script without `#!` read by a shell */
    int error = errno;
    fprintf(stderr, "chirun: %s: %s\n", path, strerror(error));
    return error == ENOENT ? NOT_FOUND : CANT_EXECUTE;
}
