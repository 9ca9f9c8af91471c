/* One request and its answer. */
#ifndef ASK_H
#define ASK_H

#include "pool.h"

/* Send `message` to the chitcpd of this instance, and take the answer, to be freed if there is no error. 0 or an errno:
 * also the one that chitcpd answers. */
int ask(const char *instance, const ChitcpdMsg *message, struct patience patience, struct answer *answer);

/* The same for a request of which nothing but its success matters. */
int tell(const char *instance, const ChitcpdMsg *message, struct patience patience);

#endif
