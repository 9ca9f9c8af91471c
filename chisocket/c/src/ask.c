#define _GNU_SOURCE
#include "ask.h"

int ask(const char *instance, const ChitcpdMsg *message, struct patience patience, struct answer *answer) {
    struct connection *connection;
    int error = pool_take(instance, &connection);
    if (error != 0)
        return error;
    bool used_up;
    error = connection_exchange(connection, message, patience, answer, &used_up);
    if (error != 0 || used_up)
        pool_discard(connection);
    else
        pool_put_back(connection);
    if (error == 0 && (error = answer->resp->error_code) != 0)
        answer_free(answer);
    return error;
}

int tell(const char *instance, const ChitcpdMsg *message, struct patience patience) {
    struct answer answer;
    int error = ask(instance, message, patience, &answer);
    if (error == 0)
        answer_free(&answer);
    return error;
}
