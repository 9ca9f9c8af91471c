#define _GNU_SOURCE
#include "chitcp/addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "endpoint.h"
#include "names.h"

static int errno_of(int resolver) {
    switch (resolver) {
    case EAI_SYSTEM:
        return errno;
    case EAI_MEMORY:
        return ENOMEM;
    case EAI_AGAIN:
        return EAGAIN;
    case EAI_FAMILY:
    case EAI_ADDRFAMILY:
        return EAFNOSUPPORT;
    default:
        return ENXIO;
    }
}

/* Whether it is a number that no port has: getaddrinfo() takes it modulo 65536. */
static bool is_beyond_ports(const char *service) {
    return service[0] != '\0' && service[strspn(service, "0123456789")] == '\0' && strtoul(service, NULL, 10) > 65535;
}

static bool is_lab_malformed(void) {
    char *entry = malformed_host();
    free(entry);
    return entry != NULL;
}

int chitcp_addr_resolve(const char *host, const char *service, int family, struct sockaddr_storage *addr,
                        socklen_t *addrlen) {
    if (host == NULL || service == NULL || addr == NULL || addrlen == NULL)
        return outcome(EINVAL);
    if (is_lab_malformed())
        return outcome(EINVAL);
    if (is_beyond_ports(service))
        return outcome(ENXIO);
    char address[INET6_ADDRSTRLEN];
    struct addrinfo hints = {.ai_family = family, .ai_socktype = SOCK_STREAM}, *found;
    int failure = getaddrinfo(lab_address(host, address) ? address : host, service, &hints, &found);
    if (failure != 0)
        return outcome(errno_of(failure));
    memset(addr, 0, sizeof *addr);
    memcpy(addr, found->ai_addr, found->ai_addrlen);
    *addrlen = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

int chitcp_addr_construct(const char *host, const char *service, struct sockaddr_in *addr) {
    if (addr == NULL)
        return outcome(EINVAL);
    struct sockaddr_storage found;
    socklen_t len;
    if (chitcp_addr_resolve(host, service, AF_INET, &found, &len) < 0)
        return -1;
    memcpy(addr, &found, sizeof *addr);
    return 0;
}

/* The address and the port, wherever they are in this family's structure; 0 bytes of address in another's. */
static size_t parts(const struct sockaddr *addr, const void **host, in_port_t *port) {
    *port = 0;
    if (addr->sa_family == AF_INET) {
        const struct sockaddr_in *ipv4 = (const struct sockaddr_in *)(const void *)addr;
        *host = &ipv4->sin_addr;
        *port = ntohs(ipv4->sin_port);
        return sizeof ipv4->sin_addr;
    }
    if (addr->sa_family == AF_INET6) {
        const struct sockaddr_in6 *ipv6 = (const struct sockaddr_in6 *)(const void *)addr;
        *host = &ipv6->sin6_addr;
        *port = ntohs(ipv6->sin6_port);
        return sizeof ipv6->sin6_addr;
    }
    return 0;
}

char *chitcp_addr_str(const struct sockaddr *addr, char *buf, size_t size) {
    char host[INET6_ADDRSTRLEN];
    const void *binary;
    in_port_t port;
    if (buf == NULL || size == 0)
        return buf;
    if (addr == NULL || parts(addr, &binary, &port) == 0)
        snprintf(buf, size, "?");
    else if (inet_ntop(addr->sa_family, binary, host, sizeof host) != NULL)
        snprintf(buf, size, addr->sa_family == AF_INET6 ? "[%s]:%u" : "%s:%u", host, (unsigned)port);
    return buf;
}

int chitcp_addr_host_cmp(const struct sockaddr *a, const struct sockaddr *b) {
    const void *host_a, *host_b;
    in_port_t port_a, port_b;
    if (a == NULL || b == NULL)
        return (a != NULL) - (b != NULL);
    if (a->sa_family != b->sa_family)
        return a->sa_family < b->sa_family ? -1 : 1;
    size_t size = parts(a, &host_a, &port_a);
    return size > 0 && parts(b, &host_b, &port_b) == size ? memcmp(host_a, host_b, size) : 0;
}

int chitcp_addr_cmp(const struct sockaddr *a, const struct sockaddr *b) {
    const void *host;
    in_port_t port_a, port_b;
    int by_host = chitcp_addr_host_cmp(a, b);
    if (by_host != 0 || a == NULL || parts(a, &host, &port_a) == 0 || parts(b, &host, &port_b) == 0)
        return by_host;
    return port_a < port_b ? -1 : port_a > port_b;
}
