#include "chitcp/types.h"

const char *tcp_str(tcp_state_t state) {
    static const char *const names[] = {
        [CLOSED] = "CLOSED",         [LISTEN] = "LISTEN",           [SYN_RCVD] = "SYN_RCVD",
        [SYN_SENT] = "SYN_SENT",     [ESTABLISHED] = "ESTABLISHED", [FIN_WAIT_1] = "FIN_WAIT_1",
        [FIN_WAIT_2] = "FIN_WAIT_2", [CLOSE_WAIT] = "CLOSE_WAIT",   [CLOSING] = "CLOSING",
        [TIME_WAIT] = "TIME_WAIT",   [LAST_ACK] = "LAST_ACK",
    };
    return state >= CLOSED && state <= LAST_ACK ? names[state] : "UNKNOWN";
}
