/* chisocket-hello HOST PORT: the client of chiTCP's documentation. It says Hello! to whoever listens there. */
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "chitcp/addr.h"
#include "chitcp/socket.h"

int main(int argc, char **argv) {
    int clientSocket;
    struct sockaddr_in serverAddr;

    if (argc != 3) {
        fprintf(stderr, "usage: %s HOST PORT\n", argv[0]);
        return 2;
    }
    char *host = argv[1], *port = argv[2];

    // clang-format off: word for word
    clientSocket = chisocket_socket(PF_INET, SOCK_STREAM, IPPROTO_TCP);
    if (clientSocket == -1) {
        perror("socket");
        return EXIT_FAILURE;
    }
    if (chitcp_addr_construct(host, port, &serverAddr) == -1) {
        perror("host or port");
        return EXIT_FAILURE;
    }
    if (chisocket_connect(clientSocket, (struct sockaddr *) &serverAddr, sizeof(struct sockaddr_in)) == -1) {
        perror("connect");
        return EXIT_FAILURE;
    }
    if (chisocket_send(clientSocket, "Hello!", 6, 0) == -1) {
        perror("send");
        return EXIT_FAILURE;
    }
    if (chisocket_close(clientSocket) == -1) {
        perror("close");
        return EXIT_FAILURE;
    }
    // clang-format on
    return EXIT_SUCCESS;
}
