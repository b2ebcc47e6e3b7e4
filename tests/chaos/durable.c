/* What of a folder would survive a power cut: LD_PRELOAD this into a process.
 *
 * Whatever is synced is copied into a shadow: of a file its content, of a folder its names.
 * Nothing else counts: neither bytes that were written and not synced, nor a name, however it
 * came to be, in a folder that was not synced after it. File systems promise no more than that
 * (POSIX fsync; Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014).
 *
 *   DURABLE_HOME    the folder, as an absolute path without links
 *   DURABLE_SHADOW  an existing folder beside it; while it is empty, what is there counts as synced
 *   DURABLE_FULL    while this file exists, nothing can be written in the folder (ENOSPC)
 *
 * In the shadow: root (the folder's key), KEY.data, KEY.names with a line "type mode key name" of
 * each entry. A key is an inode and its birth: inodes are used again. tests/chaos/durable.py
 * makes a folder of it again.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define KEY 64
#define PATH 4096
#define BLOCK 65536

static const char *home, *shadow, *full;
static size_t home_length;
static atomic_uint temps;

/* The real ones, past ourselves. */
static ssize_t real_write(int fd, const void *data, size_t n) { return syscall(SYS_write, fd, data, n); }
static int real_fsync(int fd) { return (int)syscall(SYS_fsync, fd); }
static int real_fdatasync(int fd) { return (int)syscall(SYS_fdatasync, fd); }

/* A shadow with a hole in it would hide what it is there to find. */
static void die(const char *what)
{
    dprintf(2, "durable: %s: %s\n", what, strerror(errno));
    _exit(99);
}

static int inside(int fd)
{
    char link[64], path[PATH];
    if (home == NULL)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < (ssize_t)home_length || memcmp(path, home, home_length) != 0)
        return 0;
    return n == (ssize_t)home_length || path[home_length] == '/';
}

static mode_t key_of(int at, const char *name, char *key)
{
    struct statx found;
    int flags = AT_SYMLINK_NOFOLLOW | (name[0] == '\0' ? AT_EMPTY_PATH : 0);
    if (statx(at, name, flags, STATX_BASIC_STATS | STATX_BTIME, &found) != 0)
        return 0;
    unsigned long long born = found.stx_mask & STATX_BTIME
        ? (unsigned long long)found.stx_btime.tv_sec * 1000000000ULL + found.stx_btime.tv_nsec : 0;
    snprintf(key, KEY, "%llx-%llx", (unsigned long long)found.stx_ino, born);
    return found.stx_mode;
}

static int begin(char *temp)
{
    snprintf(temp, PATH, "%s/.%d.%u", shadow, (int)getpid(), atomic_fetch_add(&temps, 1));
    int fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        die(temp);
    return fd;
}

static void put(int fd, const char *data, size_t n)
{
    while (n > 0) {
        ssize_t done = real_write(fd, data, n);
        if (done < 0)
            die("the shadow");
        data += done;
        n -= (size_t)done;
    }
}

/* Whole or not at all: the process may be killed at any time. */
static void end(int fd, const char *temp, const char *key, const char *suffix)
{
    char path[PATH];
    close(fd);
    snprintf(path, sizeof path, "%s/%s%s", shadow, key, suffix);
    if (rename(temp, path) != 0)
        die(path);
}

static void keep_data(int fd, const char *key)
{
    char temp[PATH], link[64], block[BLOCK];
    /* Closing another descriptor of a file lets go of all locks that SQLite has on it. */
    int again = (fcntl(fd, F_GETFL) & O_ACCMODE) == O_WRONLY, from = fd;
    if (again) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        if ((from = open(link, O_RDONLY | O_CLOEXEC)) < 0)
            die(link);
    }
    int to = begin(temp);
    off_t at = 0;
    ssize_t n;
    while ((n = pread(from, block, sizeof block, at)) > 0) {
        put(to, block, (size_t)n);
        at += n;
    }
    if (n < 0)
        die("reading what was synced");
    end(to, temp, key, ".data");
    if (again)
        close(from);
}

static void keep_names(int fd, const char *key)
{
    char temp[PATH], line[PATH], entry[KEY];
    int dir = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *listing = dir < 0 ? NULL : fdopendir(dir);
    if (listing == NULL)
        die("listing what was synced");
    int to = begin(temp);
    for (struct dirent *one; (one = readdir(listing)) != NULL;) {
        if (strcmp(one->d_name, ".") == 0 || strcmp(one->d_name, "..") == 0)
            continue;
        mode_t mode = key_of(dir, one->d_name, entry);
        if (!S_ISREG(mode) && !S_ISDIR(mode))
            continue; /* gone meanwhile */
        int n = snprintf(line, sizeof line, "%c %o %s %s\n", S_ISDIR(mode) ? 'd' : 'f',
                         mode & 07777, entry, one->d_name);
        put(to, line, (size_t)n);
    }
    closedir(listing);
    end(to, temp, key, ".names");
}

static void keep(int fd)
{
    char key[KEY];
    int before = errno;
    mode_t mode = key_of(fd, "", key);
    if (S_ISDIR(mode))
        keep_names(fd, key);
    else if (S_ISREG(mode))
        keep_data(fd, key);
    errno = before;
}

static void keep_all(int at, const char *name)
{
    char key[KEY];
    int fd = openat(at, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return;
    keep(fd);
    if (S_ISDIR(key_of(fd, "", key))) {
        DIR *listing = fdopendir(fd);
        for (struct dirent *one; listing != NULL && (one = readdir(listing)) != NULL;)
            if (strcmp(one->d_name, ".") != 0 && strcmp(one->d_name, "..") != 0)
                keep_all(dirfd(listing), one->d_name);
        closedir(listing);
    } else {
        close(fd);
    }
}

__attribute__((constructor)) static void start(void)
{
    char root[PATH], temp[PATH], key[KEY];
    shadow = getenv("DURABLE_SHADOW");
    full = getenv("DURABLE_FULL");
    const char *where = getenv("DURABLE_HOME");
    if (where == NULL || shadow == NULL)
        return;
    home_length = strlen(where);
    home = where;
    snprintf(root, sizeof root, "%s/root", shadow);
    if (access(root, F_OK) == 0)
        return;
    if (key_of(AT_FDCWD, home, key) == 0)
        die(home);
    keep_all(AT_FDCWD, home);
    int to = begin(temp);
    put(to, key, strlen(key));
    end(to, temp, "root", "");
}

int fsync(int fd)
{
    int done = real_fsync(fd);
    if (done == 0 && inside(fd))
        keep(fd);
    return done;
}

int fdatasync(int fd)
{
    int done = real_fdatasync(fd);
    if (done == 0 && inside(fd))
        keep(fd);
    return done;
}

static int no_room(int fd)
{
    struct stat found;
    if (full == NULL || access(full, F_OK) != 0 || !inside(fd))
        return 0;
    if (fstat(fd, &found) != 0 || !S_ISREG(found.st_mode))
        return 0;
    errno = ENOSPC;
    return 1;
}

ssize_t write(int fd, const void *data, size_t n)
{
    return no_room(fd) ? -1 : real_write(fd, data, n);
}

ssize_t pwrite64(int fd, const void *data, size_t n, off_t at)
{
    return no_room(fd) ? -1 : syscall(SYS_pwrite64, fd, data, n, at);
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t at)
{
    return no_room(fd) ? -1 : syscall(SYS_pwrite64, fd, data, n, at);
}

ssize_t writev(int fd, const struct iovec *blocks, int count)
{
    return no_room(fd) ? -1 : syscall(SYS_writev, fd, blocks, count);
}
