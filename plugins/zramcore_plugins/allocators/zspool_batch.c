/* Many objects in one call: store_packed, and what freeing many would give back. */

#include "zspool.h"

#include <string.h>

/* Words of the caller's arrays, which may be aligned to nothing. */
static inline uint32_t load32(const void *array, size_t at)
{
    uint32_t word;
    memcpy(&word, (const char *)array + at * sizeof word, sizeof word);
    return word;
}

static inline uint64_t load64(const void *array, size_t at)
{
    uint64_t word;
    memcpy(&word, (const char *)array + at * sizeof word, sizeof word);
    return word;
}

static enum zs_error check_object(const struct zs_pool *pool, const struct zs_batch *batch, uint32_t offset, uint32_t size)
{
    if (size > pool->page_size)
        return ZS_BAD_SIZE;
    if (size > batch->packed_length || offset > batch->packed_length - size)
        return ZS_BAD_RANGE;
    return ZS_OK;
}

/* Whether everything in the batch is as it must be; `at` says where it is not. */
enum zs_error zs_check_packed(const struct zs_pool *pool, const struct zs_batch *batch, size_t *at)
{
    for (*at = 0; *at < batch->count; ++*at) {
        uint32_t size = load32(batch->sizes, *at);
        uint64_t old = load64(batch->replaced, *at);
        enum zs_error error = size ? check_object(pool, batch, load32(batch->offsets, *at), size) : ZS_OK;
        if (error)
            return error;
        if (old && !zs_position(pool, old))
            return ZS_BAD_HANDLE;
    }
    return ZS_OK;
}

static enum zs_error store_one_packed(struct zs_pool *pool, const struct zs_batch *batch, size_t at)
{
    uint32_t offset = load32(batch->offsets, at), size = load32(batch->sizes, at);
    uint64_t old = load64(batch->replaced, at), handle = 0;
    enum zs_error error = ZS_OK;
    if (old && !zs_position(pool, old))
        return ZS_BAD_HANDLE;
    if (size && (error = check_object(pool, batch, offset, size)))
        return error;
    if (size && (error = zs_place(pool, batch->packed + offset, size, &batch->limit_pages, &handle)))
        return error;
    memcpy((char *)batch->handles + at * sizeof handle, &handle, sizeof handle);
    if (old)
        zs_free(pool, old);
    return ZS_OK;
}

/* `done` is set to the positions that are done. The arrays are checked again, as they may change while they are read. */
enum zs_error zs_store_packed(struct zs_pool *pool, const struct zs_batch *batch, size_t *done)
{
    for (*done = 0; *done < batch->count; ++*done) {
        enum zs_error error = store_one_packed(pool, batch, *done);
        if (error)
            return error;
    }
    return ZS_OK;
}

/* Pages of the zspages that freeing these objects would empty. Works on a copy of the pool while others change it: then
 * the answer may be wrong. `going` has a zero for each page below the copy's top. */
uint64_t zs_pages_freed_by(const struct zs_pool *pool, const uint64_t *handles, size_t count, uint16_t *going)
{
    const struct zspage *zspages = pool->arena.zspages;
    uint64_t freed = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t at = 0; at < count; at++) {
            uint64_t position = zs_position(pool, handles[at]);
            if (!position || position >> pool->arena.page_shift >= pool->arena.top)
                continue;
            uint32_t first = zs_first_page(pool, position);
            if (pass == 0) {
                going[first]++;
            } else if (going[first] && going[first] >= zspages[first].inuse) {
                freed += pool->classes[zspages[first].class_number].pages;
                going[first] = 0;
            }
        }
    }
    return freed;
}
