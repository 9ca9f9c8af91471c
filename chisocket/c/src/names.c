#define _GNU_SOURCE
#include "names.h"

#include <arpa/inet.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BLANKS " \t\n"

static const char *const variables[] = {"CHITCPD_SOCK", "CHITCP_HOSTS", "CHITCP_NETWORKS"};
static char *remembered[sizeof variables / sizeof variables[0]];
static bool is_remembered;

const char *setting(enum variable variable) {
    return is_remembered ? remembered[variable] : getenv(variables[variable]);
}

void remember_settings(void) {
    for (size_t i = 0; i < sizeof variables / sizeof variables[0]; i++) {
        const char *value = getenv(variables[i]);
        remembered[i] = value != NULL ? strdup(value) : NULL;
    }
    is_remembered = true;
}

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

/* An entry of $CHITCP_HOSTS: the length of the name, 0 if it is none, and the address. */
static size_t parse_host(const char *entry, size_t length, char address[INET6_ADDRSTRLEN]) {
    const char *equals = memchr(entry, '=', length);
    size_t name = equals != NULL ? (size_t)(equals - entry) : 0;
    struct in6_addr binary;
    int mapped_bits;
    if (name == 0 || !copy(address, INET6_ADDRSTRLEN, equals + 1, length - name - 1))
        return 0;
    return parse(address, &binary, &mapped_bits) ? name : 0;
}

bool lab_address(const char *host, char address[INET6_ADDRSTRLEN]) {
    const char *hosts = setting(CHITCP_HOSTS), *entry;
    size_t length;
    while (hosts != NULL && (length = next_word(&hosts, &entry)) > 0) {
        size_t name = parse_host(entry, length, address);
        if (name > 0 && name == strlen(host) && memcmp(entry, host, name) == 0)
            return true;
    }
    return false;
}

struct network {
    struct in6_addr base;
    int bits;
};

/* An entry of $CHITCP_NETWORKS; false if it is none. */
static bool parse_network(const char *entry, size_t length, struct network *network) {
    const char *slash = memchr(entry, '/', length);
    size_t host = slash != NULL ? (size_t)(slash - entry) : length;
    char text[INET6_ADDRSTRLEN];
    int mapped_bits;
    if (!copy(text, sizeof text, entry, host) || !parse(text, &network->base, &mapped_bits))
        return false;
    network->bits = 128;
    if (slash == NULL)
        return true;
    size_t digits = strspn(slash + 1, "0123456789");
    if (digits == 0 || digits > 3 || digits != length - host - 1)
        return false;
    network->bits = (int)strtol(slash + 1, NULL, 10) + mapped_bits;
    return network->bits <= 128;
}

static bool is_in(const struct in6_addr *address, const struct network *network) {
    size_t whole = (size_t)network->bits / 8;
    uint8_t mask = (uint8_t)(0xFF00 >> network->bits % 8);
    return memcmp(address, &network->base, whole) == 0 &&
           (whole == 16 || ((address->s6_addr[whole] ^ network->base.s6_addr[whole]) & mask) == 0);
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
    const char *networks = setting(CHITCP_NETWORKS), *entry;
    struct in6_addr address;
    struct network network;
    size_t length;
    if (networks == NULL || networks[strspn(networks, BLANKS)] == '\0' || addr == NULL || len < sizeof addr->sa_family)
        return false;
    if (!binary_address(addr, len, &address))
        return false;
    while ((length = next_word(&networks, &entry)) > 0)
        if (parse_network(entry, length, &network) && is_in(&address, &network))
            return false;
    return true;
}

char *malformed_host(void) {
    const char *hosts = setting(CHITCP_HOSTS), *entry;
    char address[INET6_ADDRSTRLEN];
    size_t length;
    while (hosts != NULL && (length = next_word(&hosts, &entry)) > 0)
        if (parse_host(entry, length, address) == 0)
            return strndup(entry, length);
    return NULL;
}

char *malformed_network(void) {
    const char *networks = setting(CHITCP_NETWORKS), *entry;
    struct network network;
    size_t length;
    while (networks != NULL && (length = next_word(&networks, &entry)) > 0)
        if (!parse_network(entry, length, &network))
            return strndup(entry, length);
    return NULL;
}
