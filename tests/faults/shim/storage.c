/* A disk that fails as it is told, and that writes down what it was asked: an LD_PRELOAD library for glibc.
 *
 * It acts on the files of one database: STORAGE_SHIM_DATABASE is their path without the endings that SQLite
 * gives them. What is to fail stands in STORAGE_SHIM_CONTROL, a file that both sides map (rules.py); what
 * happened is appended to STORAGE_SHIM_TRACE, if that is given (trace.py), with what is written to the file
 * STORAGE_SHIM_MARKS, so that effects outside have their place in the order. Everything else passes through.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum file { OTHER, MAIN, LOG, JOURNAL, INDEX, FOLDER, MARKS, RESERVE, LOCK, FILES };
enum operation { OPEN, READ, WRITE, SYNC, TRUNCATE, UNLINK, RENAME, OPERATIONS };
enum action { PASS, NO_SPACE, IO_ERROR, SHORT, TORN, SLOW, LIE };
/* A kind of record. CREATED is an open that made the file; SYNC_FAILED loses what was not synced before. */
enum kind { CREATED = 1, WRITTEN, TRUNCATED, SYNCED, SYNC_FAILED, UNLINKED, RENAMED };

struct rule {
    uint32_t operations; /* bits; 0 switches the rule off */
    uint32_t files;      /* bits */
    uint32_t action;
    uint32_t first; /* the first operation, counted from 1, that it hits */
    uint32_t count; /* how many it hits; 0 = all from then on */
    uint32_t milliseconds;
    uint32_t seen;
    uint32_t hits;
};

#define RULES 4
struct control {
    struct rule rules[RULES];
    uint64_t room; /* bytes by which files may still grow, if it is bounded */
    uint64_t bounded;
    uint64_t sizes[FILES]; /* as far as room is taken */
    uint32_t counts[OPERATIONS][FILES];
};

struct record {
    uint32_t kind;
    uint32_t file;
    uint64_t offset; /* of TRUNCATED the new size, of SYNCED where the trace ended when the sync began,
                        of RENAMED the file whose name is taken */
    uint64_t length; /* of what follows, in bytes */
};

#define DESCRIPTORS 65536
static uint8_t files_by_descriptor[DESCRIPTORS];
static char database[PATH_MAX], folder[PATH_MAX];
static const char *marks = "";
static struct control no_control, *control = &no_control;
static int trace = -1;
static uint64_t trace_length;
static pthread_mutex_t trace_lock = PTHREAD_MUTEX_INITIALIZER;

#define REAL(result, name, ...)                                                      \
    static result (*real)(__VA_ARGS__);                                              \
    if (!real)                                                                       \
    real = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

static int open_really(const char *path, int flags, mode_t mode) {
    REAL(int, openat64, int, const char *, int, ...);
    return real(AT_FDCWD, path, flags, mode);
}

static void fail(const char *what) {
    perror(what);
    _exit(70);
}

__attribute__((constructor)) static void set_up(void) {
    const char *path = getenv("STORAGE_SHIM_DATABASE"), *shared = getenv("STORAGE_SHIM_CONTROL");
    const char *written = getenv("STORAGE_SHIM_TRACE");
    if (!path || strlen(path) >= PATH_MAX) return;
    if (getenv("STORAGE_SHIM_MARKS")) marks = getenv("STORAGE_SHIM_MARKS");
    if (shared) {
        int descriptor = open_really(shared, O_RDWR | O_CLOEXEC, 0);
        void *found = descriptor < 0 ? MAP_FAILED
                                     : mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
        if (found == MAP_FAILED) fail("storage shim: control");
        control = found;
        close(descriptor);
    }
    if (written) {
        struct stat now;
        trace = open_really(written, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (trace < 0 || fstat(trace, &now)) fail("storage shim: trace");
        trace_length = (uint64_t)now.st_size;
    }
    strcpy(folder, path);
    char *slash = strrchr(folder, '/');
    if (slash) *slash = 0;
    strcpy(database, path);
}

static enum file file_at(const char *path) {
    static const char *const endings[] = {[MAIN] = "", [LOG] = "-wal", [JOURNAL] = "-journal", [INDEX] = "-shm",
                                          [RESERVE] = "-reserve",
                                          [LOCK] = "-lock"};
    size_t length = strlen(database);
    if (!length || !path) return OTHER;
    if (!strcmp(path, folder)) return FOLDER;
    if (!strcmp(path, marks)) return MARKS;
    if (strncmp(path, database, length)) return OTHER;
    for (int file = MAIN; file <= LOCK; file++)
        if (endings[file] && !strcmp(path + length, endings[file])) return file;
    return OTHER;
}

static enum file file_of(int descriptor) {
    return descriptor >= 0 && descriptor < DESCRIPTORS ? files_by_descriptor[descriptor] : OTHER;
}

static void sleep_for(uint32_t milliseconds) {
    struct timespec left = {milliseconds / 1000, (long)(milliseconds % 1000) * 1000000};
    while (nanosleep(&left, &left) && errno == EINTR) {
    }
}

/* Counts an operation, and says what is to become of it. Waits here when it is to be slow. */
static enum action judge(enum operation operation, enum file file) {
    enum action found = PASS;
    if (file == OTHER) return PASS;
    __atomic_fetch_add(&control->counts[operation][file], 1, __ATOMIC_RELAXED);
    for (struct rule *rule = control->rules; rule < control->rules + RULES; rule++) {
        uint32_t operations = __atomic_load_n(&rule->operations, __ATOMIC_ACQUIRE);
        if (!(operations & 1u << operation) || !(rule->files & 1u << file)) continue;
        uint32_t seen = __atomic_add_fetch(&rule->seen, 1, __ATOMIC_RELAXED);
        if (seen < rule->first || (rule->count && seen >= rule->first + rule->count)) continue;
        __atomic_fetch_add(&rule->hits, 1, __ATOMIC_RELAXED);
        if (rule->action == SLOW)
            sleep_for(rule->milliseconds);
        else
            found = rule->action;
    }
    return found;
}

/* True, with errno set, if the operation fails before it does anything. */
static int refused(enum action action) {
    if (action == NO_SPACE) errno = ENOSPC;
    if (action == IO_ERROR) errno = EIO;
    return action == NO_SPACE || action == IO_ERROR;
}

/* Room of the disk: taken by files that grow, given back by those that shrink or go. */
static pthread_mutex_t room_lock = PTHREAD_MUTEX_INITIALIZER;

static void resize(enum file file, uint64_t size) {
    if (file == OTHER || file == FOLDER || file == MARKS) return;
    pthread_mutex_lock(&room_lock);
    control->room += control->sizes[file] - size;
    control->sizes[file] = size;
    pthread_mutex_unlock(&room_lock);
}

/* Takes what a file needs to reach so far. False, with errno set, if there is not as much. */
static int take_room(enum file file, uint64_t end) {
    int fits = 1;
    if (file == OTHER || file == FOLDER || file == MARKS) return 1;
    pthread_mutex_lock(&room_lock);
    uint64_t growth = end > control->sizes[file] ? end - control->sizes[file] : 0;
    if (control->bounded && growth > control->room) {
        fits = 0;
        errno = ENOSPC;
    } else {
        control->room -= growth;
        control->sizes[file] += growth;
    }
    pthread_mutex_unlock(&room_lock);
    return fits;
}

#define TELLS_ROOM(name, result_type)                                        \
    int name(const char *path, struct result_type *found) {                  \
        REAL(int, name, const char *, struct result_type *);                 \
        int failed = real(path, found);                                      \
        if (!failed && control->bounded && file_at(path) == FOLDER)          \
            found->f_bavail = found->f_bfree = control->room / found->f_frsize; \
        return failed;                                                       \
    }
TELLS_ROOM(statvfs, statvfs)
TELLS_ROOM(statvfs64, statvfs64)

static void write_down(enum kind kind, enum file file, uint64_t offset, const void *data, uint64_t length) {
    if (trace < 0 || file == INDEX || file == RESERVE) return;
    int before = errno;
    struct record record = {kind, file, offset, length};
    struct iovec parts[] = {{&record, sizeof record}, {(void *)data, length}};
    pthread_mutex_lock(&trace_lock);
    if (writev(trace, parts, 2) != (ssize_t)(sizeof record + length)) fail("storage shim: trace");
    __atomic_fetch_add(&trace_length, sizeof record + length, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&trace_lock);
    errno = before;
}

static int open_file(const char *path, int flags, mode_t mode) {
    enum file file = file_at(path);
    if (refused(judge(OPEN, file))) return -1;
    int new = file != OTHER && (flags & O_CREAT) && access(path, F_OK);
    int descriptor = open_really(path, flags, mode);
    if (descriptor >= 0 && descriptor < DESCRIPTORS) files_by_descriptor[descriptor] = file;
    if (descriptor < 0 || file == OTHER) return descriptor;
    struct stat now;
    if (!fstat(descriptor, &now)) resize(file, (uint64_t)now.st_size);
    if (new) write_down(CREATED, file, 0, NULL, 0);
    return descriptor;
}

static mode_t mode_of(int flags, va_list more) {
    return flags & (O_CREAT | __O_TMPFILE) ? va_arg(more, mode_t) : 0;
}

#define OPENS(name)                             \
    int name(const char *path, int flags, ...) { \
        va_list more;                           \
        va_start(more, flags);                  \
        mode_t mode = mode_of(flags, more);     \
        va_end(more);                           \
        return open_file(path, flags, mode);    \
    }
OPENS(open)
OPENS(open64)

#define OPENS_AT(name)                                              \
    int name(int at, const char *path, int flags, ...) {            \
        va_list more;                                               \
        va_start(more, flags);                                      \
        mode_t mode = mode_of(flags, more);                         \
        va_end(more);                                               \
        if (at == AT_FDCWD || *path == '/') return open_file(path, flags, mode); \
        REAL(int, name, int, const char *, int, ...);               \
        return real(at, path, flags, mode);                         \
    }
OPENS_AT(openat)
OPENS_AT(openat64)

int close(int descriptor) {
    REAL(int, close, int);
    if (descriptor >= 0 && descriptor < DESCRIPTORS) files_by_descriptor[descriptor] = OTHER;
    return real(descriptor);
}

ssize_t read(int descriptor, void *data, size_t length) {
    REAL(ssize_t, read, int, void *, size_t);
    return refused(judge(READ, file_of(descriptor))) ? -1 : real(descriptor, data, length);
}

#define READS(name, offset_type)                                                \
    ssize_t name(int descriptor, void *data, size_t length, offset_type offset) { \
        REAL(ssize_t, name, int, void *, size_t, offset_type);                  \
        return refused(judge(READ, file_of(descriptor))) ? -1 : real(descriptor, data, length, offset); \
    }
READS(pread, off_t)
READS(pread64, off64_t)

static ssize_t write_at(int descriptor, const void *data, size_t length, off64_t offset) {
    REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
    enum file file = file_of(descriptor);
    enum action action = judge(WRITE, file);
    if (refused(action)) return -1;
    if (action == SHORT || action == TORN) length = (length + 1) / 2;
    if (!take_room(file, (uint64_t)offset + length)) return -1;
    ssize_t written = real(descriptor, data, length, offset);
    if (written > 0 && file != OTHER) write_down(WRITTEN, file, (uint64_t)offset, data, (uint64_t)written);
    if (action != TORN) return written;
    errno = EIO;
    return -1;
}

ssize_t pwrite(int descriptor, const void *data, size_t length, off_t offset) {
    return write_at(descriptor, data, length, offset);
}

ssize_t pwrite64(int descriptor, const void *data, size_t length, off64_t offset) {
    return write_at(descriptor, data, length, offset);
}

ssize_t write(int descriptor, const void *data, size_t length) {
    REAL(ssize_t, write, int, const void *, size_t);
    if (file_of(descriptor) == OTHER) return real(descriptor, data, length);
    off64_t place = lseek64(descriptor, 0, SEEK_CUR);
    ssize_t written = write_at(descriptor, data, length, place);
    if (written > 0) lseek64(descriptor, place + written, SEEK_SET);
    return written;
}

/* A failed sync loses what it was to write: Linux marks the pages clean, and a later sync finds nothing. */
static int sync_file(int descriptor, int (*really)(int)) {
    enum file file = file_of(descriptor);
    uint64_t begun = __atomic_load_n(&trace_length, __ATOMIC_ACQUIRE);
    enum action action = judge(SYNC, file);
    if (refused(action)) {
        write_down(SYNC_FAILED, file, begun, NULL, 0);
        return -1;
    }
    if (action == LIE) return 0;
    int failed = really(descriptor);
    if (file != OTHER) write_down(failed ? SYNC_FAILED : SYNCED, file, begun, NULL, 0);
    return failed;
}

int fsync(int descriptor) {
    REAL(int, fsync, int);
    return sync_file(descriptor, real);
}

int fdatasync(int descriptor) {
    REAL(int, fdatasync, int);
    return sync_file(descriptor, real);
}

#define TRUNCATES(name, size_type)                                       \
    int name(int descriptor, size_type size) {                           \
        REAL(int, name, int, size_type);                                 \
        enum file file = file_of(descriptor);                            \
        if (refused(judge(TRUNCATE, file))) return -1;                   \
        int failed = real(descriptor, size);                             \
        if (!failed && file != OTHER) {                                  \
            resize(file, (uint64_t)size);                                \
            write_down(TRUNCATED, file, (uint64_t)size, NULL, 0);        \
        }                                                                \
        return failed;                                                   \
    }
TRUNCATES(ftruncate, off_t)
TRUNCATES(ftruncate64, off64_t)

/* To reserve room is a write that may find none. Only what it does to the size is written down. */
static int reserved(int descriptor, off64_t end, enum file file) {
    struct stat now;
    if (!fstat(descriptor, &now) && now.st_size == end && file != OTHER)
        write_down(TRUNCATED, file, (uint64_t)end, NULL, 0);
    return 0;
}

#define RESERVES(name, offset_type)                                              \
    int name(int descriptor, int mode, offset_type offset, offset_type length) { \
        REAL(int, name, int, int, offset_type, offset_type);                     \
        enum file file = file_of(descriptor);                                    \
        if (refused(judge(WRITE, file)) || !take_room(file, (uint64_t)(offset + length))) return -1; \
        return real(descriptor, mode, offset, length) ? -1 : reserved(descriptor, offset + length, file); \
    }
RESERVES(fallocate, off_t)
RESERVES(fallocate64, off64_t)

#define RESERVES_BY_POSIX(name, offset_type)                           \
    int name(int descriptor, offset_type offset, offset_type length) { \
        REAL(int, name, int, offset_type, offset_type);                \
        enum file file = file_of(descriptor);                          \
        if (refused(judge(WRITE, file)) || !take_room(file, (uint64_t)(offset + length))) return errno; \
        int failure = real(descriptor, offset, length);                \
        return failure ? failure : reserved(descriptor, offset + length, file); \
    }
RESERVES_BY_POSIX(posix_fallocate, off_t)
RESERVES_BY_POSIX(posix_fallocate64, off64_t)

int unlink(const char *path) {
    REAL(int, unlink, const char *);
    enum file file = file_at(path);
    if (refused(judge(UNLINK, file))) return -1;
    int failed = real(path);
    if (!failed && file != OTHER) {
        resize(file, 0);
        write_down(UNLINKED, file, 0, NULL, 0);
    }
    return failed;
}

int rename(const char *from, const char *to) {
    REAL(int, rename, const char *, const char *);
    enum file file = file_at(from), taken = file_at(to);
    if (refused(judge(RENAME, file ? file : taken))) return -1;
    int failed = real(from, to);
    if (!failed && (file || taken)) write_down(RENAMED, file, taken, NULL, 0);
    return failed;
}
