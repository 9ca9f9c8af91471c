/* Makes the calls that it reads from its standard input, a line each, and answers each with a line: what the call has
 * returned, errno, and what it has brought. Bytes are written as hexadecimal digits, none as "-"; NULL is NULL. So that
 * the tests, which are written in Python, can say anything to a library that is made for C.
 *
 * Compiled with SYSTEM it calls the system's functions, for chirun. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef SYSTEM
#define CALL(name) name
#else
#include "chitcp/addr.h"
#include "chitcp/debug_api.h"
#include "chitcp/socket.h"
#include "chitcp/utils.h"
#define CALL(name) chisocket_##name
#endif

#define MOST (4u << 20) /* bytes of an argument */

static unsigned char *bytes_of(const char *word, size_t *len) {
    *len = strcmp(word, "NULL") == 0 ? 0 : strlen(word) / 2;
    if (strcmp(word, "NULL") == 0)
        return NULL;
    unsigned char *bytes = malloc(*len + 1); /* exactly as long as it is said to be, for those who look at bounds */
    for (size_t i = 0; i < *len; i++) {
        const char digits[3] = {word[2 * i], word[2 * i + 1]};
        bytes[i] = (unsigned char)strtoul(digits, NULL, 16);
    }
    return bytes;
}

static int number(const char *word) {
    return (int)strtol(word, NULL, 0);
}

static void answer(long result, const void *data, size_t len) {
    printf("%ld %d ", result, result < 0 ? errno : 0);
    for (size_t i = 0; i < len; i++)
        printf("%02x", ((const unsigned char *)data)[i]);
    printf("\n");
    fflush(stdout);
}

static void on_alarm(int number_of_signal) {
    (void)number_of_signal;
}

static void receive(char **words) {
    const char *how = words[0];
    int fd = number(words[1]), flags = words[3] != NULL ? number(words[3]) : 0;
    size_t len = strtoul(words[2], NULL, 0);
    unsigned char *data = calloc(1, len + 1);
    ssize_t count;
#ifdef SYSTEM
    struct sockaddr_storage from;
    socklen_t from_len = sizeof from;
    struct iovec part = {.iov_base = data, .iov_len = len};
    struct msghdr message = {.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &part, .msg_iovlen = 1};
    if (strcmp(how, "read") == 0)
        count = read(fd, data, len);
    else if (strcmp(how, "readv") == 0)
        count = readv(fd, &part, 1);
    else if (strcmp(how, "recvfrom") == 0)
        count = recvfrom(fd, data, len, flags, (struct sockaddr *)&from, &from_len);
    else if (strcmp(how, "recvmsg") == 0)
        count = recvmsg(fd, &message, flags), from_len = message.msg_namelen;
    else
#else
    if (strcmp(how, "recv_all") == 0)
        count = chisocket_recv_all(fd, data, len);
    else
#endif
        count = CALL(recv)(fd, data, len, flags);
#ifdef SYSTEM
    if (count >= 0 && strncmp(how, "recv", 4) == 0 && strlen(how) > 4 && from_len != 0)
        printf("a stream that names its sender: ");
#endif
    answer(count, data, count > 0 ? (size_t)count : 0);
    free(data);
}

static void transmit(char **words) {
    const char *how = words[0];
    size_t len;
    unsigned char *data = bytes_of(words[2], &len);
    int fd = number(words[1]), flags = words[3] != NULL ? number(words[3]) : 0;
    if (data == NULL)
        len = 5;
    ssize_t count;
#ifdef SYSTEM
    struct sockaddr_storage to = {.ss_family = AF_INET};
    struct iovec part = {.iov_base = data, .iov_len = len};
    struct msghdr message = {.msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &part, .msg_iovlen = 1};
    if (strcmp(how, "write") == 0)
        count = write(fd, data, len);
    else if (strcmp(how, "writev") == 0)
        count = writev(fd, &part, 1);
    else if (strcmp(how, "sendto") == 0)
        count = sendto(fd, data, len, flags, (struct sockaddr *)&to, sizeof to);
    else if (strcmp(how, "sendmsg") == 0)
        count = sendmsg(fd, &message, flags);
    else
#else
    if (strcmp(how, "send_all") == 0)
        count = chisocket_send_all(fd, data, len);
    else
#endif
        count = CALL(send)(fd, data, len, flags);
    answer(count, NULL, 0);
    free(data);
}

static void option(char **words) {
    int fd = number(words[1]), level = number(words[2]), name = number(words[3]);
    if (strcmp(words[0], "setsockopt") == 0) {
        size_t len;
        unsigned char *value = bytes_of(words[4], &len);
        int result = CALL(setsockopt)(fd, level, name, value, (socklen_t)(value == NULL ? 4 : len));
        answer(result, NULL, 0);
        free(value);
        return;
    }
    socklen_t len = (socklen_t)number(words[4]);
    unsigned char *value = calloc(1, (len < 4096 ? len : 4096) + 1);
    int result = CALL(getsockopt)(fd, level, name, value, &len);
    answer(result, value, result == 0 ? len : 0);
    free(value);
}

static void wait_for(char **words) {
    struct pollfd one = {.fd = number(words[1]), .events = (short)number(words[2])};
    int result = poll(&one, 1, number(words[3]));
    answer(result == 1 ? one.revents : result, NULL, 0);
}

/* An alarm comes in so many milliseconds, which interrupts the call that waits then, unless that is to be restarted;
 * and "again" and again, until one in 0 milliseconds takes it back. */
static void set_alarm(char **words) {
    const char *how = words[2] != NULL ? words[2] : "";
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = strcmp(how, "restart") == 0 ? SA_RESTART : 0};
    struct timeval time = {.tv_sec = number(words[1]) / 1000, .tv_usec = number(words[1]) % 1000 * 1000};
    struct itimerval timer = {.it_value = time};
    if (strcmp(how, "again") == 0)
        timer.it_interval = time;
    sigaction(SIGALRM, &action, NULL);
    answer(setitimer(ITIMER_REAL, &timer, NULL), NULL, 0);
}

/* A child that sends these bytes on the socket and ends; its exit status: the errno. */
static void in_a_child(char **words) {
    size_t len;
    unsigned char *data = bytes_of(words[2], &len);
    pid_t child = fork();
    int error = child == 0 && CALL(send)(number(words[1]), data, len, 0) != (ssize_t)len ? errno : 0;
    free(data);
    if (child == 0)
        _exit(error);
    int status = 0;
    waitpid(child, &status, 0);
    answer(status, NULL, 0);
}

#ifdef SYSTEM
static void look_up(char **words) {
    struct addrinfo hints = {.ai_family = number(words[3]), .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
    struct addrinfo *found = NULL;
    int result = getaddrinfo(words[1], words[2], &hints, &found);
    answer(result, result == 0 ? found->ai_addr : NULL, result == 0 ? found->ai_addrlen : 0);
    if (result == 0)
        freeaddrinfo(found);
}
#else
static void look_up(char **words) {
    struct sockaddr_storage addr;
    socklen_t len = 0;
    int result = chitcp_addr_resolve(words[1], words[2], number(words[3]), &addr, &len);
    answer(result, &addr, result == 0 ? len : 0);
}

static void show_address(char **words) {
    size_t len;
    char text[CHITCP_ADDR_STRLEN];
    unsigned char *addr = bytes_of(words[1], &len);
    chitcp_addr_str((struct sockaddr *)(void *)addr, text, (size_t)number(words[2]));
    answer(0, text, strlen(text));
    free(addr);
}

static int sign(int order) {
    return (order > 0) - (order < 0);
}

static void compare_addresses(char **words) {
    size_t len_a, len_b;
    unsigned char *a = bytes_of(words[1], &len_a), *b = bytes_of(words[2], &len_b);
    struct sockaddr *first = (struct sockaddr *)(void *)a, *second = (struct sockaddr *)(void *)b;
    printf("%d 0 %d\n", sign(chitcp_addr_cmp(first, second)), sign(chitcp_addr_host_cmp(first, second)));
    fflush(stdout);
    free(a);
    free(b);
}

/* What the handler answers, each in its turn; and what it was told, until "events" asks for it. */
static pthread_mutex_t handling = PTHREAD_MUTEX_INITIALIZER;
static int responses[32], asked;
static char told[65536];

static enum debug_response handle(int sockfd, enum debug_event event, debug_socket_state_t *state, void *args,
                                  int new_sockfd) {
    (void)args;
    pthread_mutex_lock(&handling);
    size_t at = strlen(told);
    snprintf(told + at, sizeof told - at, "%d,%d,%s,%d;", sockfd, (int)event,
             state != NULL ? tcp_str(state->tcp_state) : "-", new_sockfd);
    int response = responses[asked < 31 ? asked : 31];
    asked++;
    pthread_mutex_unlock(&handling);
    return (enum debug_response)response;
}

static void debug(char **words) {
    pthread_mutex_lock(&handling);
    memset(responses, 0, sizeof responses);
    asked = 0;
    told[0] = '\0';
    for (int i = 3; words[i] != NULL; i++)
        responses[i - 3] = number(words[i]);
    pthread_mutex_unlock(&handling);
    answer(chitcpd_debug(number(words[1]), number(words[2]), handle, NULL), NULL, 0);
}

static void tell_events(char **words) {
    (void)words;
    pthread_mutex_lock(&handling);
    printf("%d 0 %s\n", asked, told);
    fflush(stdout);
    pthread_mutex_unlock(&handling);
}

static void wait_for_state(char **words) {
    answer(chitcpd_wait_for_state(number(words[1]), (tcp_state_t)number(words[2])), NULL, 0);
}

static void show_state(char **words) {
    debug_socket_state_t state = {0};
    int result = chitcpd_get_socket_state(number(words[1]), &state);
    printf("%d %d %s,%u,%u,%u,%u,%u,%u,%u\n", result, result < 0 ? errno : 0, tcp_str(state.tcp_state), state.iss,
           state.irs, state.snd_una, state.snd_nxt, state.rcv_nxt, state.snd_wnd, state.rcv_wnd);
    fflush(stdout);
}

static void show_buffers(char **words) {
    debug_socket_buffers_t contents = {0};
    int result = chitcpd_get_socket_buffer_contents(number(words[1]), &contents);
    printf("%d %d %zu,%zu\n", result, result < 0 ? errno : 0, contents.snd_len, contents.rcv_len);
    fflush(stdout);
    chitcpd_free_socket_buffer_contents(&contents);
}
#endif

/* ---- the calls by their names ------------------------------------------------------------------------------------ */

static void make(char **words) {
    answer(CALL(socket)(number(words[1]), number(words[2]), number(words[3])), NULL, 0);
}

/* An address may be said to be longer or shorter than it is. */
static void with_address(char **words) {
    size_t len;
    unsigned char *addr = bytes_of(words[2], &len);
    socklen_t said = words[3] != NULL ? (socklen_t)number(words[3]) : (socklen_t)len;
    struct sockaddr *to = (struct sockaddr *)(void *)addr;
    int fd = number(words[1]);
    int result = strcmp(words[0], "bind") == 0 ? CALL(bind)(fd, to, said) : CALL(connect)(fd, to, said);
    answer(result, NULL, 0);
    free(addr);
}

static void be_told_address(char **words) {
    bool somewhere = strcmp(words[2], "NULL") != 0;
    socklen_t len = (socklen_t)number(words[2]), *in_out = somewhere ? &len : NULL;
    size_t room = somewhere && number(words[2]) >= 0 ? len : 0;
    unsigned char *space = somewhere ? calloc(1, room + 1) : NULL;
    struct sockaddr *addr = (struct sockaddr *)(void *)space;
    int fd = number(words[1]);
    int result = strcmp(words[0], "accept") == 0        ? CALL(accept)(fd, addr, in_out)
                 : strcmp(words[0], "getsockname") == 0 ? CALL(getsockname)(fd, addr, in_out)
                                                        : CALL(getpeername)(fd, addr, in_out);
    answer(result, space, result < 0 ? 0 : len < room ? len : room);
    free(space);
}

static void start_listening(char **words) {
    answer(CALL(listen)(number(words[1]), number(words[2])), NULL, 0);
}

static void end(char **words) {
    answer(CALL(close)(number(words[1])), NULL, 0);
}

static void shut(char **words) {
    answer(CALL(shutdown)(number(words[1]), number(words[2])), NULL, 0);
}

static void be_nonblocking(char **words) {
    answer(fcntl(number(words[1]), F_SETFL, O_NONBLOCK), NULL, 0);
}

static void duplicate(char **words) {
    answer(dup2(number(words[1]), number(words[2])), NULL, 0);
}

/* All but one, as a program does that becomes a daemon. */
static void close_all(char **words) {
    int keep = number(words[1]);
    for (int fd = 3; fd < 1024; fd++)
        if (fd != keep)
            close(fd);
    answer(0, NULL, 0);
}

static bool is_child;

/* Go on as a child whose parent ends at once. */
static void leave(char **words) {
    (void)words;
    if (fork() > 0)
        _exit(0);
    is_child = true;
    answer(0, NULL, 0);
}

/* How many descriptors may be open: only as many as there are now, or more again. */
static void limit(char **words) {
    struct rlimit files = {.rlim_cur = (rlim_t)number(words[1]), .rlim_max = 4096};
    answer(setrlimit(RLIMIT_NOFILE, &files), NULL, 0);
}

static void empty_environment(char **words) {
    (void)words;
    answer(clearenv(), NULL, 0);
}

static void die_of_sigpipe(char **words) {
    (void)words;
    signal(SIGPIPE, SIG_DFL);
    answer(0, NULL, 0);
}

static const struct {
    const char *name;
    void (*call)(char **words);
} calls[] = {
    {"socket", make},
    {"bind", with_address},
    {"connect", with_address},
    {"listen", start_listening},
    {"accept", be_told_address},
    {"getsockname", be_told_address},
    {"getpeername", be_told_address},
    {"send", transmit},
    {"recv", receive},
    {"close", end},
    {"shutdown", shut},
    {"getsockopt", option},
    {"setsockopt", option},
    {"resolve", look_up},
    {"poll", wait_for},
    {"nonblocking", be_nonblocking},
    {"duplicate", duplicate},
    {"close_all", close_all},
    {"alarm", set_alarm},
    {"child", in_a_child},
    {"leave", leave},
    {"limit", limit},
    {"empty_environment", empty_environment},
    {"die_of_sigpipe", die_of_sigpipe},
#ifdef SYSTEM
    {"read", receive},
    {"readv", receive},
    {"recvfrom", receive},
    {"recvmsg", receive},
    {"write", transmit},
    {"writev", transmit},
    {"sendto", transmit},
    {"sendmsg", transmit},
#else
    {"send_all", transmit},
    {"recv_all", receive},
    {"str", show_address},
    {"cmp", compare_addresses},
    {"debug", debug},
    {"events", tell_events},
    {"state", show_state},
    {"buffers", show_buffers},
    {"wait_for_state", wait_for_state},
#endif
};

/* Only a call is to be interrupted, and not what is between them. */
static void let_alarms(int how) {
    sigset_t alarms;
    sigemptyset(&alarms);
    sigaddset(&alarms, SIGALRM);
    pthread_sigmask(how, &alarms, NULL);
}

static void call(char **words) {
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        if (strcmp(calls[i].name, words[0]) == 0) {
            let_alarms(SIG_UNBLOCK);
            errno = 0;
            calls[i].call(words);
            let_alarms(SIG_BLOCK);
            return;
        }
    }
    printf("no such call: %s\n", words[0]);
    fflush(stdout);
}

int main(void) {
    char *line = malloc(2 * MOST + 256);
    signal(SIGPIPE, SIG_IGN);
    let_alarms(SIG_BLOCK);
    while (fgets(line, (int)(2 * MOST + 256), stdin) != NULL) {
        char *words[24] = {NULL}, *rest = NULL;
        size_t count = 0;
        for (char *word = strtok_r(line, " \n", &rest); word != NULL && count < 20; word = strtok_r(NULL, " \n", &rest))
            words[count++] = word;
        if (count > 0)
            call(words);
    }
    if (is_child)
        _exit(0); /* threads of its parent may have held what exit() wants */
    free(line);
    return 0;
}
