#include "names.h"

#include <arpa/inet.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BLANKS " \t\n"

/* The next word of `*text`, which goes on behind it; its length, 0 at the end. */
static size_t next_word(const char **text, const char **word) {
    *word = *text + strspn(*text, BLANKS);
    size_t length = strcspn(*word, BLANKS);
    *text = *word + length;
    return length;
}

static bool copy(char *to, size_t size, const char *from, size_t length) {
    if (length == 0 || length >= size)
        return false;
    memcpy(to, from, length);
    to[length] = '\0';
    return true;
}

/* An address of either family in 16 bytes, IPv4 ones mapped (RFC 4291 section 2.5.5.2). */
static bool parse(const char *text, struct in6_addr *address, int *mapped_bits) {
    uint8_t *bytes = address->s6_addr;
    memset(bytes, 0, 10);
    memset(bytes + 10, 0xFF, 2);
    *mapped_bits = 96;
    if (inet_pton(AF_INET, text, bytes + 12) == 1)
        return true;
    *mapped_bits = 0;
    return inet_pton(AF_INET6, text, address) == 1;
}

bool lab_address(const char *host, char address[INET6_ADDRSTRLEN]) {
    const char *hosts = getenv("CHITCP_HOSTS"), *word;
    size_t name = strlen(host), length;
    struct in6_addr binary;
    int mapped_bits;
    while (hosts != NULL && name > 0 && (length = next_word(&hosts, &word)) > 0)
        if (length > name && word[name] == '=' && memcmp(word, host, name) == 0)
            return copy(address, INET6_ADDRSTRLEN, word + name + 1, length - name - 1) &&
                   parse(address, &binary, &mapped_bits);
    return false;
}

static bool is_in(const struct in6_addr *address, const char *network, size_t length) {
    char text[INET6_ADDRSTRLEN];
    const char *slash = memchr(network, '/', length);
    size_t host = slash != NULL ? (size_t)(slash - network) : length;
    struct in6_addr base;
    int mapped_bits;
    if (!copy(text, sizeof text, network, host) || !parse(text, &base, &mapped_bits))
        return false;
    long bits = slash != NULL ? strtol(slash + 1, NULL, 10) + mapped_bits : 128;
    if (bits < 0 || bits > 128)
        return false;
    size_t whole = (size_t)bits / 8;
    uint8_t mask = (uint8_t)(0xFF00 >> bits % 8);
    return memcmp(address, &base, whole) == 0 &&
           (whole == 16 || ((address->s6_addr[whole] ^ base.s6_addr[whole]) & mask) == 0);
}

/* False if it is a wildcard, or of another family. */
static bool binary_address(const struct sockaddr *addr, socklen_t len, struct in6_addr *address) {
    static const uint8_t mapped[12] = {[10] = 0xFF, [11] = 0xFF};
    memcpy(address, mapped, sizeof mapped);
    if (addr->sa_family == AF_INET && len >= sizeof(struct sockaddr_in)) {
        const struct sockaddr_in *ipv4 = (const struct sockaddr_in *)(const void *)addr;
        memcpy(address->s6_addr + sizeof mapped, &ipv4->sin_addr, sizeof ipv4->sin_addr);
        return ipv4->sin_addr.s_addr != htonl(INADDR_ANY);
    }
    if (addr->sa_family == AF_INET6 && len >= sizeof(struct sockaddr_in6)) {
        *address = ((const struct sockaddr_in6 *)(const void *)addr)->sin6_addr;
        return !IN6_IS_ADDR_UNSPECIFIED(address);
    }
    return false;
}

bool is_elsewhere(const struct sockaddr *addr, socklen_t len) {
    const char *networks = getenv("CHITCP_NETWORKS"), *word;
    struct in6_addr address;
    if (networks == NULL || networks[strspn(networks, BLANKS)] == '\0' || addr == NULL || len < sizeof addr->sa_family)
        return false;
    if (!binary_address(addr, len, &address))
        return false;
    size_t length;
    while ((length = next_word(&networks, &word)) > 0)
        if (is_in(&address, word, length))
            return false;
    return true;
}
