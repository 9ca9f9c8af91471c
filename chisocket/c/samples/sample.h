/* What the samples have in common: to end with a message, to listen, to connect. */
#ifndef SAMPLE_H
#define SAMPLE_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chitcp/addr.h"
#include "chitcp/socket.h"
#include "chitcp/utils.h"

static inline void die(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    if (errno == ENETDOWN)
        fputs("No chitcpd answers: start one, or set CHITCPD_SOCK to the socket of one that runs.\n", stderr);
    exit(EXIT_FAILURE);
}

static inline int family_of(const char *host) {
    return strchr(host, ':') != NULL ? AF_INET6 : AF_INET;
}

static inline void resolve(const char *host, const char *port, struct sockaddr_storage *addr, socklen_t *len) {
    if (chitcp_addr_resolve(host, port, family_of(host), addr, len) == 0)
        return;
    const char *hosts = getenv("CHITCP_HOSTS");
    fprintf(stderr, "host %s, port %s: %s (CHITCP_HOSTS is %s)\n", host, port, strerror(errno),
            hosts ? hosts : "not set");
    exit(EXIT_FAILURE);
}

/* A socket that listens at `port` on all addresses of this host. */
static inline int listen_at(const char *port) {
    struct sockaddr_storage addr;
    socklen_t len;
    resolve("0.0.0.0", port, &addr, &len);
    int listener = chisocket_socket(addr.ss_family, SOCK_STREAM, 0);
    if (listener < 0)
        die("socket");
    if (chisocket_bind(listener, (struct sockaddr *)&addr, len) < 0)
        die("bind");
    if (chisocket_listen(listener, 10) < 0)
        die("listen");
    return listener;
}

static inline int accept_from(int listener) {
    struct sockaddr_storage peer;
    socklen_t len = sizeof peer;
    char text[CHITCP_ADDR_STRLEN];
    int sock = chisocket_accept(listener, (struct sockaddr *)&peer, &len);
    if (sock < 0)
        die("accept");
    printf("connection from %s\n", chitcp_addr_str((struct sockaddr *)&peer, text, sizeof text));
    fflush(stdout);
    return sock;
}

static inline int connect_to(const char *host, const char *port) {
    struct sockaddr_storage addr;
    socklen_t len;
    resolve(host, port, &addr, &len);
    int sock = chisocket_socket(addr.ss_family, SOCK_STREAM, 0);
    if (sock < 0)
        die("socket");
    if (chisocket_connect(sock, (struct sockaddr *)&addr, len) < 0)
        die("connect");
    return sock;
}

#endif
