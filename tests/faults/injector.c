/* Ends the process at its n-th operation on files below a folder: preloaded before the C library (LD_PRELOAD), armed by ctypes.

An operation is whatever changes what a later process sees: opening for writing, writing, syncing, renaming, removing, making folders. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { DIES = 137, LONGEST = 4096 };
static atomic_long done;
static long last = -1; /* dies instead of operation number `last`, from 0; -1: never */
static int torn;       /* of a write, does the first half before */
static char below[LONGEST];

void injector_arm(long operation, int half, const char *folder) {
    atomic_store(&done, 0);
    last = operation;
    torn = half;
    snprintf(below, sizeof below, "%s", folder);
}

long injector_done(void) { return atomic_load(&done); }

#include <sys/sendfile.h>
#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static void name_of(int fd, char *out) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, out, LONGEST - 1);
    out[size > 0 ? size : 0] = 0;
}

static int inside(int folder, const char *path) {
    char whole[LONGEST] = "";
    if (!below[0]) return 0;
    if (path[0] != '/' && folder != AT_FDCWD) name_of(folder, whole);
    if (path[0] != '/' && folder == AT_FDCWD && !getcwd(whole, sizeof whole)) return 0;
    size_t size = strlen(whole);
    snprintf(whole + size, sizeof whole - size, "/%s", path);
    return strstr(whole, below) != NULL;
}

/* Whether this write is to be torn; does not return when the process ends here. */
static int due(int matches, int writes) {
    if (!matches || atomic_fetch_add(&done, 1) != last) return 0;
    if (writes && torn) return 1;
    syscall(SYS_exit_group, DIES);
    return 0;
}

static int due_fd(int fd, int writes) {
    char path[LONGEST];
    if (!below[0]) return 0;
    name_of(fd, path);
    return due(strstr(path, below) != NULL, writes);
}

static int changes(int flags) { return (flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)) != 0; }

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        REAL(name); \
        due(changes(flags) && inside(AT_FDCWD, path), 0); \
        return real(path, flags, mode); \
    }
#define OPENAT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        REAL(name); \
        due(changes(flags) && inside(folder, path), 0); \
        return real(folder, path, flags, mode); \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int fd, const void *data, size_t size) {
    REAL(write);
    if (due_fd(fd, 1)) {
        real(fd, data, size / 2);
        syscall(SYS_exit_group, DIES);
    }
    return real(fd, data, size);
}

ssize_t writev(int fd, const struct iovec *parts, int number) {
    REAL(writev);
    if (due_fd(fd, 1)) {
        real(fd, parts, number / 2);
        syscall(SYS_exit_group, DIES);
    }
    return real(fd, parts, number);
}

#define PWRITE(name, offset_t) \
    ssize_t name(int fd, const void *data, size_t size, offset_t at) { \
        REAL(name); \
        if (due_fd(fd, 1)) { \
            real(fd, data, size / 2, at); \
            syscall(SYS_exit_group, DIES); \
        } \
        return real(fd, data, size, at); \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define ON_FD(result, name, parameters, arguments) \
    result name parameters { \
        REAL(name); \
        due_fd(fd, 0); \
        return real arguments; \
    }
ON_FD(int, fsync, (int fd), (fd))
ON_FD(int, fdatasync, (int fd), (fd))
ON_FD(int, ftruncate, (int fd, off_t size), (fd, size))
ON_FD(int, ftruncate64, (int fd, off64_t size), (fd, size))
ON_FD(ssize_t, sendfile, (int fd, int from, off_t *at, size_t size), (fd, from, at, size))
ON_FD(ssize_t, sendfile64, (int fd, int from, off64_t *at, size_t size), (fd, from, at, size))

#define ON_PATH(name, parameters, folder, path, arguments) \
    int name parameters { \
        REAL(name); \
        due(inside(folder, path), 0); \
        return real arguments; \
    }
ON_PATH(rename, (const char *from, const char *to), AT_FDCWD, to, (from, to))
ON_PATH(renameat, (int old, const char *from, int new, const char *to), new, to, (old, from, new, to))
ON_PATH(renameat2, (int old, const char *from, int new, const char *to, unsigned int flags), new, to, (old, from, new, to, flags))
ON_PATH(link, (const char *from, const char *to), AT_FDCWD, to, (from, to))
ON_PATH(unlink, (const char *path), AT_FDCWD, path, (path))
ON_PATH(unlinkat, (int folder, const char *path, int flags), folder, path, (folder, path, flags))
ON_PATH(rmdir, (const char *path), AT_FDCWD, path, (path))
ON_PATH(mkdir, (const char *path, mode_t mode), AT_FDCWD, path, (path, mode))
ON_PATH(mkdirat, (int folder, const char *path, mode_t mode), folder, path, (folder, path, mode))
