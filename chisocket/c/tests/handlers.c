/* Calls that POSIX lets a signal handler make, in one that comes every millisecond, a hundred times, while the program
 * makes the same calls itself. Then a thread that waits in accept() is cancelled. For chirun; prints what was done. */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int known;
static volatile sig_atomic_t interrupted, failed;

static void ask(void) {
    struct sockaddr_in own;
    socklen_t len = sizeof own;
    if (getsockname(known, (struct sockaddr *)&own, &len) < 0 || own.sin_family != AF_INET)
        failed = 1;
}

static void on_alarm(int number) {
    (void)number;
    ask();
    int sock = socket(AF_INET, SOCK_STREAM, 0);
    if (sock < 0 || close(sock) < 0)
        failed = 1;
    if (++interrupted % 5 == 0 && fork() == 0) {
        ask();
        _exit(failed);
    }
}

static void *wait_for_nobody(void *argument) {
    (void)argument;
    accept(known, NULL, NULL);
    return NULL;
}

static const char *cancel_accept(void) {
    pthread_t thread;
    void *result;
    struct timespec until;
    if (listen(known, 1) < 0 || pthread_create(&thread, NULL, wait_for_nobody, NULL) != 0)
        return "no thread";
    usleep(100000); /* it waits in accept by now, or a moment later: either is cancelled */
    pthread_cancel(thread);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 5;
    if (pthread_timedjoin_np(thread, &result, &until) != 0)
        return "accept goes on";
    return result == PTHREAD_CANCELED ? "accept was cancelled" : "accept has returned";
}

int main(void) {
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    struct itimerval every = {.it_interval = {.tv_usec = 1000}, .it_value = {.tv_usec = 1000}}, never = {0};
    time_t until = time(NULL) + 20;
    known = socket(AF_INET, SOCK_STREAM, 0);
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &every, NULL);
    while (interrupted < 100 && time(NULL) < until) {
        void *memory = malloc(5000); /* which a handler may interrupt */
        ask();
        free(memory);
    }
    setitimer(ITIMER_REAL, &never, NULL);
    int status;
    while (wait(&status) > 0)
        failed |= status != 0;
    printf("%s, %s, %s\n", failed ? "failed" : "good", interrupted < 100 ? "seldom" : "often", cancel_accept());
    return 0;
}
