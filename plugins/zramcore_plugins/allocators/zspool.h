/* The zsmalloc pool without Python: classes, zspages, fullness lists, handles, and the arena they live in.
 *
 * The caller serialises all calls on one pool, and owns the three mappings, which were zero when they were handed over:
 *
 *     memory     the pages of the arena; page 0 is never handed out, so no position is 0
 *     zspages    one struct zspage for each page; that of a zspage's first page describes the zspage
 *     positions  one word for each handle: where its object is in `memory`; 0 or CHAINED while the handle is free
 *
 * Pages are counted in the pool's page size and numbered from the start of `memory`; positions and lengths are bytes.
 */

#ifndef ZSPOOL_H
#define ZSPOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CHAIN_SIZE 8        /* most pages in a zspage */
#define HANDLE_SIZE 8       /* bytes before an object that hold its handle; a huge object has none */
#define MIN_CLASS_SIZE 32
#define NR_GROUPS 12        /* fullness groups: 0 empty, 1..10 partly in use, 11 full */
#define FULL_GROUP (NR_GROUPS - 1)
#define MAX_CLASSES 512
#define TRIM_PAGES 512      /* dirty pages that may wait for arena_trim: one madvise costs some 5 us */
#define POPULATE_BYTES (128u << 10)
#define CHAINED (UINT64_C(1) << 63)

enum zs_error { ZS_OK, ZS_NO_HANDLE, ZS_NO_RUN, ZS_OVER_LIMIT, ZS_BAD_HANDLE, ZS_BAD_SIZE, ZS_BAD_RANGE, ZS_UNREPORTED };

enum page_state { PAGE_CLEAN, PAGE_DIRTY, PAGE_USED };

/* `next` and `prev` are page numbers, 0 at the ends of a list; a free run has `next` in its stack.
 * `free`: the object freed last, which holds the one before in its first word; 0 ends the chain.
 * `fresh`: the first object never used. Both are offsets of payloads from the start of the zspage. */
struct zspage {
    uint32_t next, prev;
    uint32_t free, fresh;
    uint16_t inuse;
    uint16_t class_number;
    uint8_t group;
    uint8_t lead;           /* pages before this one in its zspage */
    uint8_t state;
};

/* Runs of 1..CHAIN_SIZE contiguous pages. A dirty run was freed and still has its memory. */
struct arena {
    unsigned char *memory;
    struct zspage *zspages;
    uint32_t nr_pages;
    uint32_t top;           /* the first page never handed out */
    uint32_t populated;     /* the pages before this one were faulted in */
    bool populate;
    unsigned page_shift;
    size_t system_page;
    uint32_t dirty[CHAIN_SIZE + 1], clean[CHAIN_SIZE + 1];
    uint32_t dirty_pages;
};

void arena_open(struct arena *arena, void *memory, struct zspage *zspages, uint32_t nr_pages, unsigned page_shift);
uint32_t *arena_free_run(struct arena *arena, unsigned pages);
uint32_t arena_take(struct arena *arena, uint32_t *stack, unsigned pages);
void arena_release(struct arena *arena, uint32_t first, unsigned pages);
void arena_trim(struct arena *arena);
void arena_give_back_margin(struct arena *arena);
void arena_reset(struct arena *arena);
void clear_range(void *start, size_t length);

struct size_class {
    uint32_t size;          /* of an object, handle included */
    uint16_t index, pages, objects;
    bool huge;
    const uint8_t *groups;  /* fullness group by objects in use */
    uint32_t mask;          /* bit g is set while the list of group g is not empty */
    uint32_t heads[NR_GROUPS];
    uint64_t counts[NR_GROUPS];
    uint64_t zspages, inuse;
};

struct zs_pool {
    struct arena arena;
    uint64_t *positions;
    uint64_t nr_handles;    /* words of `positions`; handle 0 is nobody's */
    uint64_t free_handle;   /* the one freed last; the rest is chained through `positions` */
    uint64_t fresh_handle;
    uint32_t page_size;
    uint32_t nr_classes;
    struct size_class *classes;
    uint8_t *groups;
    uint16_t class_of[MAX_CLASSES];     /* by the kernel's index, before merging */
    uint32_t last_index;
    unsigned delta_shift;
    uint64_t pages_used, peak_pages, pages_compacted;
};

/* One call of zs_store_packed; the arrays need no alignment, and may change while they are read. */
struct zs_batch {
    const unsigned char *packed;
    size_t packed_length;
    const void *offsets, *sizes, *replaced;
    void *handles;
    size_t count;
    uint64_t limit_pages;
};

/* `classes` (smallest first, the last one huge, size, index, pages and objects set) becomes the pool's, malloced. */
bool zs_open(struct zs_pool *pool, uint32_t page_size, struct size_class *classes, uint32_t nr_classes);
void zs_forget(struct zs_pool *pool);
void zs_destroy(struct zs_pool *pool);
enum zs_error zs_place(struct zs_pool *pool, const void *data, size_t size, const uint64_t *limit, uint64_t *handle);
enum zs_error zs_write(struct zs_pool *pool, uint64_t handle, const void *data, size_t size, size_t *room);
enum zs_error zs_free(struct zs_pool *pool, uint64_t handle);
enum zs_error zs_check_packed(const struct zs_pool *pool, const struct zs_batch *batch, size_t *at);
enum zs_error zs_store_packed(struct zs_pool *pool, const struct zs_batch *batch, size_t *done);
void zs_reset(struct zs_pool *pool);
void zs_trim(struct zs_pool *pool);
uint64_t zs_pages_freed_by(const struct zs_pool *pool, const uint64_t *handles, size_t count, uint16_t *going);
uint64_t zs_freeable(const struct size_class *class);
void zs_compact_class(struct zs_pool *pool, struct size_class *class);

/* Where the object of a handle is; 0 when there is none. */
static inline uint64_t zs_position(const struct zs_pool *pool, uint64_t handle)
{
    if (handle >= pool->nr_handles)
        return 0;
    uint64_t position = __atomic_load_n(&pool->positions[handle], __ATOMIC_RELAXED);
    return position & CHAINED ? 0 : position;
}

/* The first page of the zspage at a position. */
static inline uint32_t zs_first_page(const struct zs_pool *pool, uint64_t position)
{
    uint32_t page = (uint32_t)(position >> pool->arena.page_shift);
    return page - pool->arena.zspages[page].lead;
}

#endif
