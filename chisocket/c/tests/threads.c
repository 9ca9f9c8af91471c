/* threads HOST PORT THREADS ROUNDS: each thread makes so many connections to an echo server, and compares what comes
 * back. Prints how many went well. */
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chitcp/addr.h"
#include "chitcp/socket.h"
#include "chitcp/utils.h"

static const char *host, *port;
static int rounds;

static bool echo_once(unsigned seed) {
    struct sockaddr_in addr;
    char sent[2000], echoed[sizeof sent];
    memset(sent, (int)(seed & 0xFF), sizeof sent);
    if (chitcp_addr_construct(host, port, &addr) < 0)
        return false;
    int sock = chisocket_socket(PF_INET, SOCK_STREAM, IPPROTO_TCP);
    bool good = sock >= 0 && chisocket_connect(sock, (struct sockaddr *)&addr, sizeof addr) == 0 &&
                chisocket_send_all(sock, sent, sizeof sent) == sizeof sent &&
                chisocket_recv_all(sock, echoed, sizeof echoed) == sizeof echoed &&
                memcmp(sent, echoed, sizeof sent) == 0;
    if (!good)
        perror("echo");
    return chisocket_close(sock) == 0 && good;
}

static void *work(void *argument) {
    unsigned *seed = argument;
    size_t good = 0;
    for (int i = 0; i < rounds; i++)
        good += echo_once(*seed + (unsigned)i);
    *seed = (unsigned)good;
    return NULL;
}

int main(int argc, char **argv) {
    if (argc != 5)
        return 2;
    host = argv[1], port = argv[2], rounds = atoi(argv[4]);
    size_t count = (size_t)atoi(argv[3]), good = 0;
    pthread_t *threads = calloc(count, sizeof *threads);
    unsigned *seeds = calloc(count, sizeof *seeds);
    for (size_t i = 0; i < count; i++) {
        seeds[i] = (unsigned)i * 7;
        pthread_create(&threads[i], NULL, work, &seeds[i]);
    }
    for (size_t i = 0; i < count; i++) {
        pthread_join(threads[i], NULL);
        good += seeds[i];
    }
    printf("%zu\n", good);
    free(seeds);
    free(threads);
    return 0;
}
