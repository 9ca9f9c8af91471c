/* chisocket-echo-server PORT: sends back all that comes, each connection in a thread of its own. */
#include <pthread.h>
#include <stdint.h>

#include "sample.h"

static void *echo(void *argument) {
    int sock = (int)(intptr_t)argument;
    char data[4096];
    ssize_t count;
    while ((count = chisocket_recv(sock, data, sizeof data, 0)) > 0)
        if (chisocket_send_all(sock, data, (size_t)count) < 0)
            break;
    if (count < 0)
        perror("recv");
    if (chisocket_close(sock) < 0)
        perror("close");
    return NULL;
}

int main(int argc, char **argv) {
    if (argc != 2 || argv[1][0] == '-') {
        fprintf(stderr, "usage: %s PORT\n", argv[0]);
        return 2;
    }
    int listener = listen_at(argv[1]);
    for (;;) {
        int sock = accept_from(listener);
        pthread_t thread;
        errno = pthread_create(&thread, NULL, echo, (void *)(intptr_t)sock);
        if (errno != 0)
            die("pthread_create");
        pthread_detach(thread);
    }
}
