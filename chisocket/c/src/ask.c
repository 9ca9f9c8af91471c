#define _GNU_SOURCE
#include "ask.h"

#include "system.h"

int ask(const char *instance, const ChitcpdMsg *message, struct patience patience, ChitcpdMsg **answer, int *rights) {
    struct connection *connection;
    int error = pool_take(instance, &connection);
    if (error != 0)
        return error;
    int with;
    bool used_up;
    error = connection_exchange(connection, message, patience, answer, &with, &used_up);
    if (error != 0 || used_up)
        pool_discard(connection);
    else
        pool_put_back(connection);
    if (error == 0 && (*answer)->resp->error_code != 0) {
        error = (*answer)->resp->error_code;
        chitcpd_msg__free_unpacked(*answer, NULL);
    }
    if (error == 0 && rights != NULL)
        *rights = with;
    else if (with >= 0)
        sys_close(with);
    return error;
}

int tell(const char *instance, const ChitcpdMsg *message, struct patience patience) {
    ChitcpdMsg *answer;
    int error = ask(instance, message, patience, &answer, NULL);
    if (error == 0)
        chitcpd_msg__free_unpacked(answer, NULL);
    return error;
}
