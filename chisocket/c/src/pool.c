#define _GNU_SOURCE
#include "pool.h"

#include <errno.h>
#include <pthread.h>
#include <pwd.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "names.h"

LIST_HEAD(connections, connection);

static struct connections all = LIST_HEAD_INITIALIZER(all);
static struct connections idle = LIST_HEAD_INITIALIZER(idle);
static struct connections makers = LIST_HEAD_INITIALIZER(makers);
static struct connections unused = LIST_HEAD_INITIALIZER(unused); /* memory for others */
static atomic_int made;                                           /* how many makers there are */

/* ---- the lock ---------------------------------------------------------------------------------------------------- */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static sigset_t signals_before; /* of whoever has the lock */

/* No signal handler may come in between: it would wait for its own thread. */
static void lock(void) {
    sigset_t every, before;
    sigfillset(&every);
    pthread_sigmask(SIG_SETMASK, &every, &before);
    pthread_mutex_lock(&mutex);
    signals_before = before;
}

static void unlock(void) {
    sigset_t before = signals_before;
    pthread_mutex_unlock(&mutex);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* ---- where chitcpd is -------------------------------------------------------------------------------------------- */

static char default_path[sizeof(((struct sockaddr_un *)0)->sun_path)] = "/tmp/chitcpd.socket";

static void find_default_path(void) {
    struct passwd entry, *found = NULL;
    char strings[4096], path[sizeof default_path];
    getpwuid_r(getuid(), &entry, strings, sizeof strings, &found);
    int len = found == NULL ? 0 : snprintf(path, sizeof path, "/tmp/chitcpd.socket.%s", entry.pw_name);
    if (len > 0 && (size_t)len < sizeof path)
        strcpy(default_path, path);
}

const char *socket_path(void) {
    const char *named = setting(CHITCPD_SOCK);
    return named != NULL && named[0] != '\0' ? named : default_path;
}

/* ---- the child of a fork ----------------------------------------------------------------------------------------- */

static void forget(void) {
    struct connection *connection;
    LIST_FOREACH(connection, &all, all) {
        connection_close(connection);
    }
    LIST_INIT(&all);
    LIST_INIT(&idle);
    LIST_INIT(&makers); /* their memory stays: it may be of the very thread whose signal handler has forked */
    atomic_store(&made, 0);
    unlock();
}

/* Before anything is asked: a signal handler could not do this. */
__attribute__((constructor)) static void prepare(void) {
    pthread_atfork(lock, unlock, forget);
    const char *named = setting(CHITCPD_SOCK);
    if (named == NULL || named[0] == '\0')
        find_default_path();
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

/* Not the heap: a signal handler may interrupt malloc(). It is never given back. */
static bool make_some(void) {
    size_t size = (size_t)sysconf(_SC_PAGESIZE);
    struct connection *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return false;
    for (size_t i = 0; i < size / sizeof *page; i++)
        LIST_INSERT_HEAD(&unused, &page[i], in_state);
    return true;
}

/* Known to `all` from now on, before it is open, so that a child of a fork closes it. */
static struct connection *take_unused(void) {
    struct connection *connection = NULL;
    lock();
    if (!LIST_EMPTY(&unused) || make_some()) {
        connection = LIST_FIRST(&unused);
        LIST_REMOVE(connection, in_state);
        connection->fd = -1;
        LIST_INSERT_HEAD(&all, connection, all);
    }
    unlock();
    return connection;
}

void pool_discard(struct connection *connection) {
    connection_close(connection);
    lock();
    LIST_REMOVE(connection, all);
    LIST_INSERT_HEAD(&unused, connection, in_state);
    unlock();
}

/* ---- taking and putting back ------------------------------------------------------------------------------------- */

static struct connection *take_idle(const char *path) {
    struct connection *connection;
    lock();
    LIST_FOREACH(connection, &idle, in_state) {
        if (strcmp(connection->path, path) == 0)
            break;
    }
    if (connection != NULL)
        LIST_REMOVE(connection, in_state);
    unlock();
    return connection;
}

static int open_new(InitArgs *init, struct connection **opened) {
    struct connection *connection = take_unused();
    if (connection == NULL)
        return ENOMEM;
    int error = connection_open(connection, socket_path(), init);
    if (error != 0)
        pool_discard(connection);
    else
        *opened = connection;
    return error;
}

/* Whether it is the chitcpd that is meant: that of a socket may have ended, and this be another one. */
static bool is_of(const struct connection *connection, const char *instance) {
    return instance[0] == '\0' || strcmp(connection->instance, instance) == 0;
}

int pool_open(const char *instance, InitArgs *init, struct connection **opened) {
    int error = open_new(init, opened);
    if (error != 0 || is_of(*opened, instance))
        return error;
    pool_discard(*opened);
    return ENETDOWN;
}

int pool_take(const char *instance, struct connection **taken) {
    while ((*taken = take_idle(socket_path())) != NULL && connection_is_gone(*taken))
        pool_discard(*taken);
    if (*taken == NULL) {
        InitArgs init = INIT_ARGS__INIT;
        init.connection_type = CONNECTION_TYPE__COMMAND_CONNECTION;
        int error = open_new(&init, taken);
        if (error != 0)
            return error;
    }
    if (is_of(*taken, instance))
        return 0;
    pool_put_back(*taken);
    return ENETDOWN;
}

void pool_put_back(struct connection *connection) {
    lock();
    LIST_INSERT_HEAD(&idle, connection, in_state);
    unlock();
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
    lock();
    struct connection *maker = maker_of(number);
    if (maker != NULL) {
        LIST_REMOVE(maker, in_state);
        atomic_fetch_sub(&made, 1);
    }
    unlock();
    return maker;
}

void pool_set_aside(struct connection *connection, int number) {
    struct connection *former = pool_take_maker(number); /* whose socket has ended without a CLOSE that succeeded */
    if (former != NULL)
        pool_put_back(former);
    lock();
    connection->number = number;
    LIST_INSERT_HEAD(&makers, connection, in_state);
    atomic_fetch_add(&made, 1);
    unlock();
}

bool pool_has_made(int number) {
    if (atomic_load(&made) == 0)
        return false;
    lock();
    bool has = maker_of(number) != NULL;
    unlock();
    return has;
}
