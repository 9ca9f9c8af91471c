/* chisocket-echo-client HOST PORT: sends its standard input to an echo server, and prints what comes back. */
#include "sample.h"

/* At a time: so that neither end waits for the other while the buffers of both directions are full. */
#define PIECE 1024

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: %s HOST PORT <INPUT\n", argv[0]);
        return 2;
    }
    int sock = connect_to(argv[1], argv[2]);
    char data[PIECE], echoed[PIECE];
    size_t count;
    while ((count = fread(data, 1, sizeof data, stdin)) > 0) {
        if (chisocket_send_all(sock, data, count) < 0)
            die("send");
        ssize_t came = chisocket_recv_all(sock, echoed, count);
        if (came < 0)
            die("recv");
        fwrite(echoed, 1, (size_t)came, stdout);
        if ((size_t)came < count || memcmp(data, echoed, count) != 0) {
            fprintf(stderr, "%s: the echo is not what was sent\n", argv[0]);
            return EXIT_FAILURE;
        }
    }
    if (chisocket_close(sock) < 0)
        die("close");
    return EXIT_SUCCESS;
}
