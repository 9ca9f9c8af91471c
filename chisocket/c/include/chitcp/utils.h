/* All of a buffer, in as many calls as it takes. */
#ifndef CHITCP_UTILS_H
#define CHITCP_UTILS_H

#include <stddef.h>
#include <sys/types.h>

#include "chitcp/export.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Send all of it: `len`; or -1, with chisocket_send()'s errno. */
CHITCP_API ssize_t chisocket_send_all(int sockfd, const void *buf, size_t len);

/* Receive `len` bytes, fewer only if the stream ends before: how many; or -1, with chisocket_recv()'s errno. */
CHITCP_API ssize_t chisocket_recv_all(int sockfd, void *buf, size_t len);

#ifdef __cplusplus
}
#endif

#endif
