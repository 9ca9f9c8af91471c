/* One request and its answer. */
#ifndef ASK_H
#define ASK_H

#include "pool.h"

/* Send `message` to the chitcpd of this instance, and take the answer, which the caller frees. 0 or an errno: also the
 * one that chitcpd answers. `rights`: where a descriptor goes that comes with it, or NULL. */
int ask(const char *instance, const ChitcpdMsg *message, struct patience patience, ChitcpdMsg **answer, int *rights);

/* The same for a request of which nothing but its success matters. */
int tell(const char *instance, const ChitcpdMsg *message, struct patience patience);

#endif
