/* SPDX-License-Identifier: BSD-3-Clause */
#include "wire/key.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

/* A key's digits and as much white space as an editor might leave. */
#define FILE_BYTES_MAX 256

/* --- memory --------------------------------------------------------------- */

static size_t page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

unsigned char *tri_key_create(void)
{
    void *page = mmap(NULL, page_bytes(), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (page == MAP_FAILED)
        return NULL;
    (void)madvise(page, page_bytes(), MADV_DONTDUMP); /* a nicety */
    return page;
}

void tri_key_destroy(unsigned char **key_p)
{
    if (*key_p == NULL)
        return;
    tri_key_forget(*key_p);
    munmap(*key_p, page_bytes());
    *key_p = NULL;
}

void tri_key_forget(unsigned char key[TRI_KEY_BYTES])
{
    explicit_bzero(key, TRI_KEY_BYTES);
}

/* --- making one ----------------------------------------------------------- */

int tri_key_random(unsigned char key_p[TRI_KEY_BYTES])
{
    ssize_t n;

    /* Up to 256 bytes come whole, once the system's pool is filled. */
    do
        n = getrandom(key_p, TRI_KEY_BYTES, 0);
    while (n < 0 && errno == EINTR);
    if (n == (ssize_t)TRI_KEY_BYTES)
        return 0;
    tri_error("no random numbers for a key: %s", strerror(errno));
    return TROUPE_ESYSTEM;
}

/* --- reading one ---------------------------------------------------------- */

/* As isspace in the C locale, whatever the program's is. */
static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* -1: not a digit. */
static int digit_of(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool tri_key_parse(const char *text, size_t bytes,
                   unsigned char key_p[TRI_KEY_BYTES])
{
    const char *end = text + bytes;

    while (text < end && is_space(*text))
        text++;
    while (end > text && is_space(end[-1]))
        end--;
    if (end - text != 2 * TRI_KEY_BYTES)
        return false;
    for (const char *c = text; c < end; c++)
        if (digit_of(*c) < 0)
            return false;
    for (unsigned i = 0; i < TRI_KEY_BYTES; i++)
        key_p[i] = (unsigned char)(digit_of(text[2 * i]) << 4 |
                                   digit_of(text[2 * i + 1]));
    return true;
}

/* What is wrong with the file that was opened, or NULL. Rights that an access
 * control list gives to others show in the group's bits. */
static const char *file_fault(int fd)
{
    struct stat status;

    if (fstat(fd, &status) != 0)
        return strerror(errno);
    if (!S_ISREG(status.st_mode))
        return "it is not a regular file";
    if (status.st_uid != geteuid() && status.st_uid != 0)
        return "it belongs to another user";
    if (status.st_mode & (S_IRWXG | S_IRWXO))
        return "others than its owner have rights to it (chmod 600 mends "
               "that; take a new key if they may have seen this one)";
    return NULL;
}

/* Bytes read, at most `bytes`; -1: errno says why. */
static ssize_t read_up_to(int fd, char *text, size_t bytes)
{
    size_t len = 0;

    while (len < bytes) {
        ssize_t n = read(fd, text + len, bytes - len);

        if (n == 0)
            break;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        len += (size_t)n;
    }
    return (ssize_t)len;
}

static const char *read_key(int fd, unsigned char key_p[TRI_KEY_BYTES])
{
    char text[FILE_BYTES_MAX + 1]; /* one more tells that it is too long */
    ssize_t len = read_up_to(fd, text, sizeof(text));
    const char *fault = NULL;

    if (len < 0)
        fault = strerror(errno);
    else if (len > FILE_BYTES_MAX || !tri_key_parse(text, (size_t)len, key_p))
        fault = "it must hold 64 hexadecimal digits and nothing else";
    explicit_bzero(text, sizeof(text));
    return fault;
}

int tri_key_read(const char *path, unsigned char key_p[TRI_KEY_BYTES])
{
    /* What was opened is judged, not what the path names by then. A FIFO's
     * other end is not waited for. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    const char *fault = fd >= 0 ? file_fault(fd) : strerror(errno);

    if (fault == NULL)
        fault = read_key(fd, key_p);
    if (fault != NULL)
        tri_error("the key file \"%s\" cannot be used: %s", path, fault);
    if (fd >= 0)
        close(fd);
    return fault == NULL ? 0 : TROUPE_EOPTION;
}
