/*
 * Crew: threads that work on the parts of a job, and know nothing of Python.
 *
 * The caller works too, so a job ends even if no worker ever wakes; a caller that finds the crew busy does its job alone.
 * Workers take no lock but the crew's own: no pass can deadlock with them.
 */
#include "_batch.h"

#include <signal.h>
#include <unistd.h>

#define LEAST_PARTS 4 /* less is done before a worker would have woken up */

static void crew_take_parts(Crew *crew, part_fn run, void *job, int parts)
{
    int part;
    while ((part = atomic_fetch_add(&crew->next, 1)) < parts)
        run(job, part);
}

static void *crew_worker(void *argument)
{
    Crew *crew = argument;
    unsigned long seen = 0;
    pthread_mutex_lock(&crew->lock);
    for (;;) {
        while (!crew->stop && (crew->round == seen || !crew->run || !crew->seats))
            pthread_cond_wait(&crew->wake, &crew->lock);
        if (crew->stop)
            break;
        seen = crew->round;
        crew->seats--;
        part_fn run = crew->run;
        void *job = crew->job;
        int parts = crew->parts;
        crew->at_work++;
        pthread_mutex_unlock(&crew->lock);
        crew_take_parts(crew, run, job, parts);
        pthread_mutex_lock(&crew->lock);
        if (--crew->at_work == 0)
            pthread_cond_signal(&crew->done);
    }
    pthread_mutex_unlock(&crew->lock);
    return NULL;
}

void crew_init(Crew *crew)
{
    memset(crew, 0, sizeof *crew);
    pthread_mutex_init(&crew->busy, NULL);
    pthread_mutex_init(&crew->lock, NULL);
    pthread_cond_init(&crew->wake, NULL);
    pthread_cond_init(&crew->done, NULL);
}

/* Have `wanted` workers; fewer when the system gives no more threads. Nobody else may use the crew meanwhile. */
static void crew_grow(Crew *crew, int wanted)
{
    pthread_t *threads = realloc(crew->threads, sizeof *threads * (size_t)wanted);
    if (!threads)
        return;
    crew->threads = threads;
    sigset_t all, before; /* signals are for Python's main thread */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (crew->count < wanted && !pthread_create(&threads[crew->count], NULL, crew_worker, crew))
        crew->count++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    crew->owner = getpid();
}

/* End the workers, after the job at hand; later jobs are done by their callers alone. */
void crew_stop(Crew *crew)
{
    if (crew->owner == 0 || crew->owner == getpid())
        pthread_mutex_lock(&crew->busy);
    crew->closed = true;
    if (crew->count && crew->owner == getpid()) {
        pthread_mutex_lock(&crew->lock);
        crew->stop = true;
        pthread_cond_broadcast(&crew->wake);
        pthread_mutex_unlock(&crew->lock);
        for (int i = 0; i < crew->count; i++)
            pthread_join(crew->threads[i], NULL);
    }
    free(crew->threads);
    crew->threads = NULL;
    crew->count = 0;
    if (crew->owner == 0 || crew->owner == getpid())
        pthread_mutex_unlock(&crew->busy);
}

/* Run parts 0 .. parts - 1 of a job, on up to `workers` threads besides the calling one; returns when all are done. */
void crew_run(Crew *crew, int workers, part_fn run, void *job, int parts)
{
    bool alone = parts < LEAST_PARTS || workers < 1 || (crew->count && crew->owner != getpid());
    if (alone || pthread_mutex_trylock(&crew->busy)) { /* somebody else's job has the workers */
        for (int part = 0; part < parts; part++)
            run(job, part);
        return;
    }
    if (crew->count < workers && !crew->closed)
        crew_grow(crew, workers);
    pthread_mutex_lock(&crew->lock);
    crew->run = run;
    crew->job = job;
    crew->parts = parts;
    crew->seats = workers;
    crew->round++;
    atomic_store(&crew->next, 0);
    pthread_cond_broadcast(&crew->wake);
    pthread_mutex_unlock(&crew->lock);

    crew_take_parts(crew, run, job, parts);

    pthread_mutex_lock(&crew->lock);
    crew->run = NULL; /* a worker that wakes only now finds nothing */
    while (crew->at_work)
        pthread_cond_wait(&crew->done, &crew->lock);
    pthread_mutex_unlock(&crew->lock);
    pthread_mutex_unlock(&crew->busy);
}
