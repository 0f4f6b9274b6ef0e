/* Which zspage an object goes into, and how objects move together: mm/zsmalloc.c's order, to the letter.
 *
 * A zspage that enters a fullness group goes to the head of that group's list, one whose group does not change stays
 * where it is, and an object goes to the head of the fullest group that is not full. Full zspages are in no list:
 * nothing ever picks one. A live object's first word is its handle, tagged; a free one's the object freed before it.
 */

#include "zspool.h"

#include <stdlib.h>
#include <string.h>

#define OBJ_ALLOCATED_TAG 1

/* Words in the arena, which is bytes to all others. */
static inline uint64_t load64(const void *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

static inline void store64(void *at, uint64_t word)
{
    memcpy(at, &word, sizeof word);
}

/* Set-up ---------------------------------------------------------------------------------------------------------- */

static uint8_t fullness_group(unsigned inuse, unsigned objects)
{
    if (inuse == 0)
        return 0;
    if (inuse == objects)
        return FULL_GROUP;
    return (uint8_t)(100 * inuse / objects / 10 + 1);
}

static bool make_groups(struct zs_pool *pool)
{
    size_t total = 0;
    for (uint32_t number = 0; number < pool->nr_classes; number++)
        total += pool->classes[number].objects + 1u;
    uint8_t *group = pool->groups = malloc(total);
    if (!group)
        return false;
    for (uint32_t number = 0; number < pool->nr_classes; number++) {
        struct size_class *class = &pool->classes[number];
        class->groups = group;
        for (unsigned inuse = 0; inuse <= class->objects; inuse++)
            *group++ = fullness_group(inuse, class->objects);
    }
    return true;
}

bool zs_open(struct zs_pool *pool, uint32_t page_size, struct size_class *classes, uint32_t nr_classes)
{
    pool->page_size = page_size;
    pool->classes = classes;
    pool->nr_classes = nr_classes;
    pool->fresh_handle = 1;
    uint32_t delta = page_size >> 8;
    pool->delta_shift = (unsigned)__builtin_ctz(delta);
    pool->last_index = (page_size - MIN_CLASS_SIZE + delta - 1) / delta;
    uint16_t number = 0;
    for (uint32_t index = 0; index <= pool->last_index; index++) {
        uint32_t most = MIN_CLASS_SIZE + index * delta;
        while (classes[number].size < (most < page_size ? most : page_size))
            number++;
        pool->class_of[index] = number;
    }
    return make_groups(pool);
}

/* Know no handle and no memory any more. The class table stays for who is still reading it, the counts of the past for
 * who asks. */
void zs_forget(struct zs_pool *pool)
{
    *pool = (struct zs_pool){
        .classes = pool->classes,
        .groups = pool->groups,
        .peak_pages = pool->peak_pages,
        .pages_compacted = pool->pages_compacted,
    };
}

void zs_destroy(struct zs_pool *pool)
{
    free(pool->classes);
    free(pool->groups);
}

/* Handles --------------------------------------------------------------------------------------------------------- */

static inline uint64_t peek_handle(const struct zs_pool *pool)
{
    if (pool->free_handle)
        return pool->free_handle;
    return pool->fresh_handle < pool->nr_handles ? pool->fresh_handle : 0;
}

static inline void take_handle(struct zs_pool *pool, uint64_t handle, uint64_t position)
{
    if (handle == pool->free_handle)
        pool->free_handle = pool->positions[handle] & ~CHAINED;
    else
        pool->fresh_handle++;
    __atomic_store_n(&pool->positions[handle], position, __ATOMIC_RELAXED);
}

static inline void put_handle(struct zs_pool *pool, uint64_t handle)
{
    __atomic_store_n(&pool->positions[handle], CHAINED | pool->free_handle, __ATOMIC_RELAXED);
    pool->free_handle = handle;
}

/* Fullness lists -------------------------------------------------------------------------------------------------- */

static inline unsigned fullest(uint32_t mask)
{
    return 31u - (unsigned)__builtin_clz(mask);
}

static inline unsigned emptiest(uint32_t mask)
{
    return (unsigned)__builtin_ctz(mask);
}

static inline void insert_zspage(struct zs_pool *pool, struct size_class *class, uint32_t first, unsigned group)
{
    struct zspage *zspages = pool->arena.zspages;
    zspages[first].group = (uint8_t)group;
    class->counts[group]++;
    if (group == 0 || group == FULL_GROUP)
        return;
    uint32_t after = class->heads[group];
    zspages[first].prev = 0;
    zspages[first].next = after;
    if (after)
        zspages[after].prev = first;
    class->heads[group] = first;
    class->mask |= 1u << group;
}

static inline void remove_zspage(struct zs_pool *pool, struct size_class *class, uint32_t first)
{
    struct zspage *zspages = pool->arena.zspages;
    unsigned group = zspages[first].group;
    class->counts[group]--;
    if (group == 0 || group == FULL_GROUP)
        return;
    uint32_t before = zspages[first].prev, after = zspages[first].next;
    if (after)
        zspages[after].prev = before;
    if (before)
        zspages[before].next = after;
    else if (!(class->heads[group] = after))
        class->mask ^= 1u << group;
}

static void free_zspage(struct zs_pool *pool, struct size_class *class, uint32_t first)
{
    remove_zspage(pool, class, first);
    arena_release(&pool->arena, first, class->pages);
    class->zspages--;
    pool->pages_used -= class->pages;
}

static inline void fix_fullness_group(struct zs_pool *pool, struct size_class *class, uint32_t first)
{
    struct zspage *zspage = &pool->arena.zspages[first];
    unsigned group = class->groups[zspage->inuse];
    if (group != zspage->group) {
        remove_zspage(pool, class, first);
        insert_zspage(pool, class, first, group);
    }
}

/* One object ------------------------------------------------------------------------------------------------------ */

static inline struct size_class *class_for(const struct zs_pool *pool, size_t size)
{
    size_t needed = size + HANDLE_SIZE, delta = (size_t)1 << pool->delta_shift;
    size_t index = needed <= MIN_CLASS_SIZE ? 0 : (needed - MIN_CLASS_SIZE + delta - 1) >> pool->delta_shift;
    return &pool->classes[pool->class_of[index < pool->last_index ? index : pool->last_index]];
}

static inline unsigned char *address(const struct zs_pool *pool, uint32_t first, uint32_t offset)
{
    return pool->arena.memory + ((size_t)first << pool->arena.page_shift) + offset;
}

/* The place of the next object of a zspage that is not full. */
static inline uint32_t next_object(const struct zspage *zspage)
{
    return zspage->free ? zspage->free : zspage->fresh;
}

static inline void obj_malloc(struct size_class *class, struct zspage *zspage, unsigned char *object, uint64_t handle)
{
    if (zspage->free)
        zspage->free = (uint32_t)load64(object - HANDLE_SIZE);
    else
        zspage->fresh += class->size;
    store64(object - HANDLE_SIZE, handle << 1 | OBJ_ALLOCATED_TAG);
    zspage->inuse++;
}

static inline void obj_free(struct zspage *zspage, unsigned char *object, uint32_t offset)
{
    store64(object - HANDLE_SIZE, zspage->free);
    zspage->free = offset;
    zspage->inuse--;
}

static inline bool over_limit(struct zs_pool *pool, uint64_t pages, const uint64_t *limit)
{
    if (!limit)
        return false;
    if (pages > pool->peak_pages)
        pool->peak_pages = pages;
    return *limit && pages > *limit;
}

static void commit(struct zs_pool *pool, struct size_class *class, uint32_t first, const void *data, size_t size,
                   uint64_t handle)
{
    struct zspage *zspage = &pool->arena.zspages[first];
    uint32_t offset = next_object(zspage);
    unsigned char *object = address(pool, first, offset);
    if (data)
        memmove(object, data, size);
    if (class->huge)
        zspage->inuse++;
    else
        obj_malloc(class, zspage, object, handle);
    take_handle(pool, handle, (uint64_t)(object - pool->arena.memory));
    class->inuse++;
}

static enum zs_error place_in_new(struct zs_pool *pool, struct size_class *class, const void *data, size_t size,
                                  const uint64_t *limit, uint64_t handle)
{
    uint32_t *stack = arena_free_run(&pool->arena, class->pages);
    if (!stack)
        return ZS_NO_RUN;
    if (over_limit(pool, pool->pages_used + class->pages, limit))
        return ZS_OVER_LIMIT;
    uint32_t first = arena_take(&pool->arena, stack, class->pages);
    struct zspage *zspage = &pool->arena.zspages[first];
    zspage->class_number = (uint16_t)(class - pool->classes);
    zspage->fresh = class->huge ? 0 : HANDLE_SIZE;
    class->zspages++;
    pool->pages_used += class->pages;
    commit(pool, class, first, data, size, handle);
    insert_zspage(pool, class, first, class->groups[1]);
    return ZS_OK;
}

/* A handle for `size` bytes, filled with `data` unless that is NULL. With `limit` (pages, 0: none), raises peak_pages
 * and checks it. After an error nothing has changed, except peak_pages. */
enum zs_error zs_place(struct zs_pool *pool, const void *data, size_t size, const uint64_t *limit, uint64_t *handle)
{
    if (size < 1 || size > pool->page_size)
        return ZS_BAD_SIZE;
    uint64_t taken = peek_handle(pool);
    if (!taken)
        return ZS_NO_HANDLE;
    struct size_class *class = class_for(pool, size);
    if (class->mask) {
        if (over_limit(pool, pool->pages_used, limit))
            return ZS_OVER_LIMIT;
        uint32_t first = class->heads[fullest(class->mask)];
        commit(pool, class, first, data, size, taken);
        fix_fullness_group(pool, class, first);
    } else {
        enum zs_error error = place_in_new(pool, class, data, size, limit, taken);
        if (error)
            return error;
    }
    *handle = taken;
    return ZS_OK;
}

/* `room` is set to what the object's class has. */
enum zs_error zs_write(struct zs_pool *pool, uint64_t handle, const void *data, size_t size, size_t *room)
{
    uint64_t position = zs_position(pool, handle);
    if (!position)
        return ZS_BAD_HANDLE;
    uint32_t first = zs_first_page(pool, position);
    const struct size_class *class = &pool->classes[pool->arena.zspages[first].class_number];
    *room = class->huge ? pool->page_size : class->size - HANDLE_SIZE;
    if (size > *room)
        return ZS_BAD_SIZE;
    memmove(pool->arena.memory + position, data, size);
    return ZS_OK;
}

enum zs_error zs_free(struct zs_pool *pool, uint64_t handle)
{
    uint64_t position = zs_position(pool, handle);
    if (!position)
        return ZS_BAD_HANDLE;
    uint32_t first = zs_first_page(pool, position);
    struct zspage *zspage = &pool->arena.zspages[first];
    struct size_class *class = &pool->classes[zspage->class_number];
    put_handle(pool, handle);
    class->inuse--;
    if (class->huge)
        zspage->inuse--;
    else
        obj_free(zspage, pool->arena.memory + position,
                 (uint32_t)(position - ((uint64_t)first << pool->arena.page_shift)));
    if (zspage->inuse)
        fix_fullness_group(pool, class, first);
    else
        free_zspage(pool, class, first);
    return ZS_OK;
}

/* The pool as a whole --------------------------------------------------------------------------------------------- */

/* Give all memory back; no handle is valid any more. */
void zs_reset(struct zs_pool *pool)
{
    if (!pool->positions)
        return;
    arena_reset(&pool->arena);
    clear_range(pool->positions, pool->fresh_handle * sizeof *pool->positions);
    pool->free_handle = 0;
    pool->fresh_handle = 1;
}

/* Give all memory back that is free, also that of handles once no object is left. */
void zs_trim(struct zs_pool *pool)
{
    if (!pool->pages_used) {
        zs_reset(pool);
        return;
    }
    arena_trim(&pool->arena);
    arena_give_back_margin(&pool->arena);
}

/* Pages that moving objects together could free: zs_can_compact. */
uint64_t zs_freeable(const struct size_class *class)
{
    return (class->zspages * class->objects - class->inuse) / class->objects * class->pages;
}

/* Take the head of a group out of its list. */
static uint32_t isolate(struct zs_pool *pool, struct size_class *class, unsigned group)
{
    uint32_t first = class->heads[group];
    remove_zspage(pool, class, first);
    return first;
}

static void putback(struct zs_pool *pool, struct size_class *class, uint32_t first)
{
    insert_zspage(pool, class, first, class->groups[pool->arena.zspages[first].inuse]);
}

/* Move objects in index order until `target` is full or `source` is empty; both are in no list. */
static void migrate(struct zs_pool *pool, struct size_class *class, uint32_t source_page, uint32_t target_page)
{
    struct zspage *source = &pool->arena.zspages[source_page], *target = &pool->arena.zspages[target_page];
    for (uint32_t offset = HANDLE_SIZE; offset < source->fresh; offset += class->size) {
        unsigned char *old = address(pool, source_page, offset);
        uint64_t word = load64(old - HANDLE_SIZE);
        if (!(word & OBJ_ALLOCATED_TAG))
            continue;
        unsigned char *new = address(pool, target_page, next_object(target));
        memcpy(new, old, class->size - HANDLE_SIZE);
        obj_malloc(class, target, new, word >> 1);
        __atomic_store_n(&pool->positions[word >> 1], (uint64_t)(new - pool->arena.memory), __ATOMIC_RELAXED);
        obj_free(source, old, offset);
        if (target->inuse == class->objects || !source->inuse)
            return;
    }
}

/* Destination: the head of the fullest group below full. Source: the head of the emptiest group. The source goes to
 * the head of its new group or is freed, the destination goes back once full, or at the end. */
void zs_compact_class(struct zs_pool *pool, struct size_class *class)
{
    uint32_t target = 0;
    uint64_t before = pool->pages_used;
    while (zs_freeable(class) && class->mask) {
        if (!target)
            target = isolate(pool, class, fullest(class->mask));
        if (!class->mask)
            break;
        uint32_t source = isolate(pool, class, emptiest(class->mask));
        migrate(pool, class, source, target);
        putback(pool, class, source);
        if (!pool->arena.zspages[source].inuse)
            free_zspage(pool, class, source);
        if (pool->arena.zspages[target].inuse == class->objects) {
            putback(pool, class, target);
            target = 0;
        }
    }
    if (target)
        putback(pool, class, target);
    pool->pages_compacted += before - pool->pages_used;
}
