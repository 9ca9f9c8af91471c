/* chisocket-bulk send HOST PORT BYTES: sends so many bytes, as fast as it can.
 * chisocket-bulk receive PORT: takes one connection, and checks each byte that comes.
 *
 * Both say how many bytes it were, and how fast: at the receiver, that is the goodput. */
#include <stdint.h>
#include <time.h>

#include "sample.h"

#define PIECE (64 << 10)
#define PERIOD 251 /* byte i of the stream is i % 251: a prime, so that a lost or doubled block of any size shows */

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void report(const char *what, uint64_t bytes, double seconds) {
    printf("%s %llu bytes in %.3f s, %.2f MB/s\n", what, (unsigned long long)bytes, seconds,
           seconds > 0 ? (double)bytes / seconds / 1e6 : 0);
}

static int send_bulk(const char *host, const char *port, uint64_t bytes) {
    static char pattern[PIECE + PERIOD];
    for (size_t i = 0; i < sizeof pattern; i++)
        pattern[i] = (char)(i % PERIOD);
    int sock = connect_to(host, port);
    double begun = now();
    for (uint64_t done = 0; done < bytes;) {
        size_t piece = bytes - done < PIECE ? (size_t)(bytes - done) : PIECE;
        if (chisocket_send_all(sock, pattern + done % PERIOD, piece) < 0)
            die("send");
        done += piece;
    }
    if (chisocket_close(sock) < 0)
        die("close");
    report("sent", bytes, now() - begun);
    return EXIT_SUCCESS;
}

static int receive_bulk(const char *port) {
    static char data[PIECE];
    int listener = listen_at(port);
    int sock = accept_from(listener);
    double begun = now();
    uint64_t bytes = 0;
    ssize_t count;
    while ((count = chisocket_recv(sock, data, sizeof data, 0)) > 0) {
        for (ssize_t i = 0; i < count; i++) {
            if (data[i] != (char)((bytes + (uint64_t)i) % PERIOD)) {
                fprintf(stderr, "byte %llu is not the one that was sent\n", (unsigned long long)(bytes + (uint64_t)i));
                return EXIT_FAILURE;
            }
        }
        bytes += (uint64_t)count;
    }
    if (count < 0)
        die("recv");
    report("received", bytes, now() - begun);
    if (chisocket_close(sock) < 0 || chisocket_close(listener) < 0)
        die("close");
    return EXIT_SUCCESS;
}

int main(int argc, char **argv) {
    char *end = NULL;
    if (argc == 5 && strcmp(argv[1], "send") == 0) {
        uint64_t bytes = strtoull(argv[4], &end, 10);
        if (*argv[4] >= '0' && *argv[4] <= '9' && *end == '\0')
            return send_bulk(argv[2], argv[3], bytes);
    }
    if (argc == 3 && strcmp(argv[1], "receive") == 0)
        return receive_bulk(argv[2]);
    fprintf(stderr, "usage: %s send HOST PORT BYTES\n       %s receive PORT\n", argv[0], argv[0]);
    return 2;
}
