#define _GNU_SOURCE
#include "pool.h"

#include <errno.h>
#include <pthread.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

LIST_HEAD(connections, connection);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct connections all = LIST_HEAD_INITIALIZER(all);
static struct connections idle = LIST_HEAD_INITIALIZER(idle);
static struct connections makers = LIST_HEAD_INITIALIZER(makers);

/* ---- where chitcpd is -------------------------------------------------------------------------------------------- */

static char default_path[sizeof(((struct sockaddr_un *)0)->sun_path)];

static void find_default_path(void) {
    struct passwd entry, *found = NULL;
    char strings[4096];
    getpwuid_r(getuid(), &entry, strings, sizeof strings, &found);
    int len = found == NULL ? 0 : snprintf(default_path, sizeof default_path, "/tmp/chitcpd.socket.%s", entry.pw_name);
    if (len <= 0 || (size_t)len >= sizeof default_path)
        strcpy(default_path, "/tmp/chitcpd.socket");
}

const char *socket_path(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    const char *named = getenv("CHITCPD_SOCK");
    if (named != NULL && named[0] != '\0')
        return named;
    pthread_once(&once, find_default_path);
    return default_path;
}

/* ---- the child of a fork ----------------------------------------------------------------------------------------- */

static void before_fork(void) {
    pthread_mutex_lock(&lock);
}

static void after_fork(void) {
    pthread_mutex_unlock(&lock);
}

static void free_all(struct connections *list) {
    struct connection *connection;
    while ((connection = LIST_FIRST(list)) != NULL) {
        LIST_REMOVE(connection, in_state);
        free(connection);
    }
}

static void forget(void) {
    struct connection *connection;
    LIST_FOREACH(connection, &all, all) {
        connection_close(connection);
    }
    LIST_INIT(&all);
    free_all(&idle); /* the others carry a request, perhaps of the very thread whose signal handler has forked */
    free_all(&makers);
    pthread_mutex_unlock(&lock);
}

static void watch_forks(void) {
    pthread_atfork(before_fork, after_fork, forget);
}

/* ---- taking and putting back ------------------------------------------------------------------------------------- */

static struct connection *take_idle(const char *path) {
    struct connection *connection;
    pthread_mutex_lock(&lock);
    LIST_FOREACH(connection, &idle, in_state) {
        if (strcmp(connection->path, path) == 0)
            break;
    }
    if (connection != NULL)
        LIST_REMOVE(connection, in_state);
    pthread_mutex_unlock(&lock);
    return connection;
}

static int open_new(const char *path, struct connection **opened) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    struct connection *connection = malloc(sizeof *connection);
    if (connection == NULL)
        return ENOMEM;
    InitArgs init = INIT_ARGS__INIT;
    init.connection_type = CONNECTION_TYPE__COMMAND_CONNECTION;
    int error = connection_open(connection, path, &init);
    if (error != 0) {
        free(connection);
        return error;
    }
    pthread_mutex_lock(&lock);
    LIST_INSERT_HEAD(&all, connection, all);
    pthread_mutex_unlock(&lock);
    *opened = connection;
    return 0;
}

int pool_take(const char *instance, struct connection **taken) {
    const char *path = socket_path();
    while ((*taken = take_idle(path)) != NULL && connection_is_gone(*taken))
        pool_discard(*taken);
    int error = *taken == NULL ? open_new(path, taken) : 0;
    if (error == 0 && instance[0] != '\0' && strcmp((*taken)->instance, instance) != 0) {
        pool_put_back(*taken);
        return ENETDOWN; /* the chitcpd of that socket has ended; this is another one */
    }
    return error;
}

void pool_put_back(struct connection *connection) {
    pthread_mutex_lock(&lock);
    LIST_INSERT_HEAD(&idle, connection, in_state);
    pthread_mutex_unlock(&lock);
}

void pool_discard(struct connection *connection) {
    pthread_mutex_lock(&lock);
    LIST_REMOVE(connection, all);
    pthread_mutex_unlock(&lock);
    connection_close(connection);
    free(connection);
}

/* ---- those that have made a socket ------------------------------------------------------------------------------- */

static struct connection *maker_of(int number) {
    struct connection *connection;
    LIST_FOREACH(connection, &makers, in_state) {
        if (connection->number == number)
            break;
    }
    return connection;
}

struct connection *pool_take_maker(int number) {
    pthread_mutex_lock(&lock);
    struct connection *maker = maker_of(number);
    if (maker != NULL)
        LIST_REMOVE(maker, in_state);
    pthread_mutex_unlock(&lock);
    return maker;
}

void pool_set_aside(struct connection *connection, int number) {
    struct connection *former = pool_take_maker(number); /* whose socket has ended without a CLOSE that succeeded */
    if (former != NULL)
        pool_put_back(former);
    pthread_mutex_lock(&lock);
    connection->number = number;
    LIST_INSERT_HEAD(&makers, connection, in_state);
    pthread_mutex_unlock(&lock);
}

bool pool_has_made(int number) {
    pthread_mutex_lock(&lock);
    bool made = maker_of(number) != NULL;
    pthread_mutex_unlock(&lock);
    return made;
}
