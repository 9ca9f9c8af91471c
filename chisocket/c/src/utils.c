#include "chitcp/utils.h"

#include <errno.h>

#include "chitcp/socket.h"

ssize_t chisocket_send_all(int sockfd, const void *buf, size_t len) {
    size_t done = 0;
    while (done < len) {
        ssize_t sent = chisocket_send(sockfd, (const char *)buf + done, len - done, 0);
        if (sent < 0 && errno != EINTR)
            return -1;
        done += sent > 0 ? (size_t)sent : 0;
    }
    return (ssize_t)done;
}

ssize_t chisocket_recv_all(int sockfd, void *buf, size_t len) {
    size_t done = 0;
    while (done < len) {
        ssize_t received = chisocket_recv(sockfd, (char *)buf + done, len - done, 0);
        if (received == 0)
            break;
        if (received < 0 && errno != EINTR)
            return -1;
        done += received > 0 ? (size_t)received : 0;
    }
    return (ssize_t)done;
}
