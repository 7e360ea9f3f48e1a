/* Starts threads with small stacks. */
#ifndef THREAD_H
#define THREAD_H

/* A thread's stack in bytes: buffers are not on it. Builds with sanitizers need more. */
#ifndef THREAD_STACK_SIZE
#define THREAD_STACK_SIZE 65536
#endif

/* Starts a thread that runs RUN with ARGUMENT and is never joined. Returns 0, or an
 * errno. */
int thread_start(void *(*run)(void *), void *argument);

#endif
