/* The memory of a pool: runs of 1..8 contiguous pages, given back by madvise. arena.py is the same in Python.
 *
 * Free runs wait in stacks by length, threaded through their first zspage. A run is reused for zspages of the same
 * length, dirty ones first, which saves the page faults. When enough are dirty, neighbours are given back together.
 */

#define _GNU_SOURCE
#include "zspool.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif

void arena_open(struct arena *arena, void *memory, struct zspage *zspages, uint32_t nr_pages, unsigned page_shift)
{
    *arena = (struct arena){
        .memory = memory,
        .zspages = zspages,
        .nr_pages = nr_pages,
        .top = 1,
        .populated = 1,
        .populate = true,
        .page_shift = page_shift,
        .system_page = (size_t)sysconf(_SC_PAGESIZE),
    };
}

/* The daemon of a swap device has locked its memory, and MADV_DONTNEED is EINVAL there; Linux 5.18 has another advice. */
static bool give_back(void *start, size_t length)
{
    return madvise(start, length, MADV_DONTNEED) == 0 || madvise(start, length, MADV_DONTNEED_LOCKED) == 0;
}

/* Make memory zero by giving its whole system pages back; the ends are written. */
void clear_range(void *start, size_t length)
{
    uintptr_t mask = (uintptr_t)sysconf(_SC_PAGESIZE) - 1;
    uintptr_t first = (uintptr_t)start, end = first + length;
    uintptr_t inner = (first + mask) & ~mask, inner_end = end & ~mask;
    if (inner >= inner_end || !give_back((void *)inner, inner_end - inner))
        inner = inner_end = end;
    memset((void *)first, 0, inner - first);
    memset((void *)inner_end, 0, end - inner_end);
}

/* The system's pages may be bigger than the pool's: only those that are free as a whole can go. */
static void give_back_pages(struct arena *arena, uint32_t first, uint32_t end)
{
    uintptr_t mask = arena->system_page - 1;
    uintptr_t start = ((uintptr_t)arena->memory + ((uintptr_t)first << arena->page_shift) + mask) & ~mask;
    uintptr_t stop = ((uintptr_t)arena->memory + ((uintptr_t)end << arena->page_shift)) & ~mask;
    if (start < stop)
        give_back((void *)start, stop - start);
}

static void push(struct arena *arena, uint32_t *stack, uint32_t first)
{
    arena->zspages[first].next = *stack;
    *stack = first;
}

/* Faulting pages in one by one costs twice as much (Linux 5.14 and later). */
static void populate_to(struct arena *arena, uint32_t end)
{
    uintptr_t mask = arena->system_page - 1;
    uintptr_t start = ((uintptr_t)arena->memory + ((uintptr_t)arena->populated << arena->page_shift) + mask) & ~mask;
    uintptr_t stop = ((uintptr_t)arena->memory + ((uintptr_t)end << arena->page_shift)) & ~mask;
    if (start >= stop)
        return;
    if (madvise((void *)start, stop - start, MADV_POPULATE_WRITE) == 0)
        arena->populated = end;
    else /* an older kernel, or memory is short: pages come one by one, on first touch */
        arena->populate = false;
}

static uint32_t next_span(const struct arena *arena, uint32_t *page)
{
    while (*page < arena->nr_pages && arena->zspages[*page].state == PAGE_USED)
        ++*page;
    uint32_t first = *page;
    while (*page < arena->nr_pages && arena->zspages[*page].state != PAGE_USED)
        ++*page;
    return first;
}

/* The arena is used up: cut the free runs of all lengths, neighbours merged, into runs of `pages`. */
static uint32_t *recut(struct arena *arena, unsigned pages)
{
    uint32_t longest = 0;
    arena_trim(arena);
    arena->top = arena->nr_pages;
    memset(arena->clean, 0, sizeof arena->clean);
    for (uint32_t page = 1; page < arena->nr_pages;) {
        uint32_t first = next_span(arena, &page);
        longest = page - first > longest ? page - first : longest;
    }
    unsigned length = longest < pages ? CHAIN_SIZE : pages;
    for (uint32_t page = 1; page < arena->nr_pages;) {
        for (uint32_t first = next_span(arena, &page); first < page; first += length) {
            unsigned piece = page - first < length ? page - first : length;
            push(arena, &arena->clean[piece], first);
        }
    }
    return longest < pages ? NULL : &arena->clean[pages];
}

static uint32_t *extend(struct arena *arena, unsigned pages)
{
    if (pages > arena->nr_pages - arena->top)
        return recut(arena, pages);
    uint32_t end = arena->top + pages;
    if (end > arena->populated && arena->populate) {
        uint32_t margin = POPULATE_BYTES >> arena->page_shift;
        populate_to(arena, margin < arena->nr_pages - end ? end + margin : arena->nr_pages);
    }
    push(arena, &arena->clean[pages], arena->top);
    arena->top = end;
    return &arena->clean[pages];
}

/* A stack with a free run of `pages` pages on top, for arena_take; NULL when the arena is used up. */
uint32_t *arena_free_run(struct arena *arena, unsigned pages)
{
    if (arena->dirty[pages])
        return &arena->dirty[pages];
    if (arena->clean[pages])
        return &arena->clean[pages];
    return extend(arena, pages);
}

uint32_t arena_take(struct arena *arena, uint32_t *stack, unsigned pages)
{
    uint32_t first = *stack;
    *stack = arena->zspages[first].next;
    if (stack == &arena->dirty[pages])
        arena->dirty_pages -= pages;
    for (unsigned lead = 0; lead < pages; lead++)
        arena->zspages[first + lead] = (struct zspage){ .lead = (uint8_t)lead, .state = PAGE_USED };
    return first;
}

void arena_release(struct arena *arena, uint32_t first, unsigned pages)
{
    for (unsigned lead = 0; lead < pages; lead++)
        arena->zspages[first + lead] = (struct zspage){ .state = PAGE_DIRTY };
    push(arena, &arena->dirty[pages], first);
    arena->dirty_pages += pages;
}

/* Give back all dirty pages that touch `page`, in one call. */
static void clean_around(struct arena *arena, uint32_t page)
{
    uint32_t first = page, end = page + 1;
    while (arena->zspages[first - 1].state == PAGE_DIRTY)
        first--;
    while (end < arena->top && arena->zspages[end].state == PAGE_DIRTY)
        end++;
    give_back_pages(arena, first, end);
    for (uint32_t each = first; each < end; each++)
        arena->zspages[each].state = PAGE_CLEAN;
}

void arena_trim(struct arena *arena)
{
    for (unsigned pages = 1; pages <= CHAIN_SIZE; pages++) {
        uint32_t *end = &arena->dirty[pages];
        for (; *end; end = &arena->zspages[*end].next) {
            if (arena->zspages[*end].state == PAGE_DIRTY)
                clean_around(arena, *end);
        }
        *end = arena->clean[pages];
        arena->clean[pages] = arena->dirty[pages];
        arena->dirty[pages] = 0;
    }
    arena->dirty_pages = 0;
}

void arena_give_back_margin(struct arena *arena)
{
    if (arena->populated > arena->top) {
        give_back_pages(arena, arena->top, arena->populated);
        arena->populated = arena->top;
    }
}

/* Forget every run, when none is in use: all memory goes back, also that of the zspages. */
void arena_reset(struct arena *arena)
{
    uint32_t end = arena->top > arena->populated ? arena->top : arena->populated;
    give_back_pages(arena, 0, end);
    clear_range(arena->zspages, arena->top * sizeof *arena->zspages);
    arena_open(arena, arena->memory, arena->zspages, arena->nr_pages, arena->page_shift);
}
