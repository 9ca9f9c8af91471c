#define _GNU_SOURCE
#include "descriptors.h"

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/un.h>

#include "system.h"

#define PREFIX 4 /* characters: a NUL, and then "chi", or "CHI" for chitcpd's end */
#define DIGITS 3 /* characters of a number, six bits each */
#define NAME (PREFIX + INSTANCE + DIGITS + DIGITS)

static int digit(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'z')
        return 10 + c - 'a';
    if (c >= 'A' && c <= 'Z')
        return 36 + c - 'A';
    return c == '+' ? 62 : c == '-' ? 63 : -1;
}

static int number(const char digits[DIGITS]) {
    return digit(digits[0]) << 12 | digit(digits[1]) << 6 | digit(digits[2]);
}

static bool parse(const struct sockaddr_un *addr, socklen_t len, const char *prefix, struct name *name) {
    if (len != offsetof(struct sockaddr_un, sun_path) + NAME || addr->sun_family != AF_UNIX)
        return false;
    if (memcmp(addr->sun_path, prefix, PREFIX) != 0)
        return false;
    for (int i = PREFIX; i < NAME; i++)
        if (digit(addr->sun_path[i]) < 0)
            return false;
    memcpy(name->instance, addr->sun_path + PREFIX, INSTANCE);
    name->instance[INSTANCE] = '\0';
    name->sockfd = number(addr->sun_path + PREFIX + INSTANCE);
    name->serial = number(addr->sun_path + PREFIX + INSTANCE + DIGITS);
    return true;
}

/* Whether the name that `ask` tells, of one end or of the other, is one of chitcpd's. */
static bool ask_kernel(int (*ask)(int, void *, socklen_t *), int fd, const char *prefix, struct name *name) {
    struct sockaddr_un addr;
    socklen_t len = sizeof addr;
    int before = errno;
    bool ours = ask(fd, &addr, &len) == 0 && parse(&addr, len, prefix, name);
    errno = before;
    return ours;
}

bool name_of(int fd, struct name *name) {
    return ask_kernel(sys_getsockname, fd, "\0chi", name);
}

bool name_of_connected(int fd, struct name *name) {
    return ask_kernel(sys_getpeername, fd, "\0CHI", name);
}

static short events_of(int fd, short wanted) {
    struct pollfd one = {.fd = fd, .events = wanted};
    int before = errno;
    short seen = sys_poll(&one, 1, 0) == 1 ? one.revents : 0;
    errno = before;
    return seen;
}

bool is_listening(int fd) {
    struct name name;
    return !name_of_connected(fd, &name) && events_of(fd, POLLIN | POLLOUT) != 0;
}

bool is_hung_up(int fd) {
    return (events_of(fd, 0) & (POLLHUP | POLLERR)) != 0;
}

ssize_t receive_with_descriptor(int fd, void *data, size_t len, int *with) {
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr aligned;
    } control;
    struct iovec part = {.iov_base = data, .iov_len = len};
    struct msghdr header = {
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = control.space,
        .msg_controllen = CMSG_LEN(sizeof *with), /* a second one would find no room, and is closed by the kernel */
    };
    ssize_t count = sys_recvmsg(fd, &header, MSG_CMSG_CLOEXEC);
    struct cmsghdr *rights = count > 0 ? CMSG_FIRSTHDR(&header) : NULL;
    *with = -1;
    if (rights != NULL && rights->cmsg_level == SOL_SOCKET && rights->cmsg_type == SCM_RIGHTS &&
        rights->cmsg_len == CMSG_LEN(sizeof *with))
        memcpy(with, CMSG_DATA(rights), sizeof *with);
    if (count > 0 && *with < 0 && header.msg_flags & MSG_CTRUNC) {
        errno = EMFILE;
        return -1;
    }
    return count;
}
