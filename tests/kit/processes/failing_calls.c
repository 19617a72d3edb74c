/* Preloaded, makes system calls fail on some files: FAILING_CALLS="flock:38:/lock pread:116:/shards/" gives flock the
 * error 38 on files whose path contains "/lock", and so on. Descriptors are known by their links in /proc.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Whether a call on a descriptor is to fail; errno is set then. */
static int fails(const char *call, int descriptor) {
    const char *at = getenv("FAILING_CALLS");
    char link[64], path[4096];
    if (!at || descriptor < 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    while (*at) {
        char name[32], part[1024];
        int code, n = 0;
        if (sscanf(at, " %31[^:]:%d:%1023s%n", name, &code, part, &n) != 3) return 0;
        if (!strcmp(name, call) && strstr(path, part)) {
            errno = code;
            return 1;
        }
        at += n;
    }
    return 0;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int flock(int descriptor, int operation) {
    return fails("flock", descriptor) ? -1 : REAL(flock)(descriptor, operation);
}

ssize_t pread64(int descriptor, void *to, size_t n, off64_t offset) {
    return fails("pread", descriptor) ? -1 : REAL(pread64)(descriptor, to, n, offset);
}

void *mmap64(void *address, size_t n, int protection, int flags, int descriptor, off64_t offset) {
    return fails("mmap", descriptor) ? MAP_FAILED : REAL(mmap64)(address, n, protection, flags, descriptor, offset);
}

int fstat64(int descriptor, struct stat64 *to) {
    return fails("fstat", descriptor) ? -1 : REAL(fstat64)(descriptor, to);
}
