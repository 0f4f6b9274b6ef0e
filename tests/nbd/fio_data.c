/* Preloaded into fio: its NBD writes carry, in place of the bytes that fio makes up, those that the file $FIO_DATA
 * holds at the same offset. fio itself can only repeat a pattern or mix noise with zeroes. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct {
    int (*callback)(void *, int *);
    void *user_data;
    void (*free)(void *);
} completion; /* nbd_completion_callback */

typedef int64_t (*writer)(void *, const void *, size_t, uint64_t, completion, uint32_t);

static const char *data;
static size_t size;
static writer real_write;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

__attribute__((constructor)) static void start(void)
{
    const char *name = getenv("FIO_DATA");
    struct stat status;
    int file = name ? open(name, O_RDONLY) : -1;
    if (file < 0 || fstat(file, &status) < 0)
        fail("FIO_DATA");
    size = status.st_size;
    data = mmap(NULL, size, PROT_READ, MAP_SHARED | MAP_POPULATE, file, 0);
    if (data == MAP_FAILED)
        fail(name);
    close(file);
    real_write = (writer)dlsym(RTLD_NEXT, "nbd_aio_pwrite");
}

int64_t nbd_aio_pwrite(void *handle, const void *buffer, size_t count, uint64_t offset, completion done, uint32_t flags)
{
    if (offset + count <= size)
        buffer = data + offset;
    return real_write(handle, buffer, count, offset, done, flags);
}
