/* SPDX-License-Identifier: Apache-2.0
 *
 * kvmm: virtual memory for the KV cache of language models. The one public header.
 *
 *   runtime --+-- arena (one per model in an engine: model_id + layout)
 *             |     +-- plane   one group of layers with one shape: base, lane and token stride
 *             |     +-- session one sequence: a lane of every plane; its addresses never change
 *             |           +-- page  4 KiB .. 2 MiB of one plane; lives in DRAM, on disk, or nowhere
 *             +-- swap areas, tiers, attributes: see `kvctl --help` and docs/operating
 *
 * Two kinds of engine use one API.
 *   faulting  touches any address of its session at any time; a touch of an absent page waits until
 *             the page is there. CPU engines.
 *   pinning   pins the ranges it will touch, waits until they are ready, unpins with a fence.
 *             GPU engines.
 *
 * Two kinds of session.
 *   raw         the engine says nothing; any page may be written at any time.
 *   structured  the engine says which tokens it wrote (kvmm_append). Full pages are sealed: their
 *               bytes may not change any more.
 *
 * Conventions
 *   - Every function that can fail returns kvmm_status: 0, or a negative KVMM_E*. Out parameters
 *     are written only on success. Besides the errors listed: EINVALID for a NULL handle, result or
 *     text that is needed, and ENOMEMORY when the process has no memory.
 *   - Sizes are bytes unless the name says tokens. Ranges are half-open. Tokens count from 0.
 *   - Option structs begin with `size`: set it with the KVMM_INIT macro, so that a library of a
 *     later version knows which fields you have. Fields you leave 0 mean "the default".
 *   - Strings are UTF-8, borrowed for the call, and at most 255 bytes.
 *   - Thread safety: all functions may be called from any thread at any time, except that an object
 *     must not be used while or after another thread closes it, and that a fence's callback must
 *     call none. No function touches page bytes, except kvmm_arena_clear at the edges of its range.
 *   - What may wait for I/O: opening and closing a runtime, closing a session, swapon, swapoff,
 *     truncate, discard, clear and sync. Everything else returns at once.
 *   - After fork(2) the child has no KV memory: it may exec, _exit, or open a runtime of its
 *     own. Calls with handles of its parent answer ECLOSED.
 */
#ifndef KVMM_KVMM_H_
#define KVMM_KVMM_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KVMM_API __attribute__((visibility("default")))
#define KVMM_VERSION_MAJOR 0
#define KVMM_VERSION_MINOR 1
#define KVMM_VERSION_PATCH 0

/* Status codes. The numbers never change; new ones are appended. */
typedef int32_t kvmm_status;
enum {
  KVMM_OK = 0,
  KVMM_EINVALID = -1,        /* an argument is outside its documented range */
  KVMM_ENOTFOUND = -2,       /* no object of that name or number */
  KVMM_EEXISTS = -3,         /* it is there already */
  KVMM_EAGAIN = -4,          /* nothing was done; try again later */
  KVMM_EBUSY = -5,           /* pinned or in use */
  KVMM_ENOMEMORY = -6,       /* no page frame, and none may be reclaimed */
  KVMM_ENOSPACE = -7,        /* swap areas or the disk are full */
  KVMM_EIO = -8,             /* a device reported an error */
  KVMM_ECORRUPT = -9,        /* bytes do not match their checksum */
  KVMM_ESTALE = -10,         /* intact bytes, but of another page or generation */
  KVMM_EMODELMISMATCH = -11, /* intact KV of another model or layout */
  KVMM_ERECOMPUTE = -12,     /* content is gone; see kvmm_recompute_ranges */
  KVMM_ENOTSUPPORTED = -13,  /* this device, kernel or build cannot do it */
  KVMM_EPERMISSION = -14,    /* the system refuses; kvmm_last_error() says what allows it */
  KVMM_ERANGE = -15,         /* outside the session, arena or device */
  KVMM_ESEALED = -16,        /* a sealed page cannot be written */
  KVMM_ESEALVIOLATION = -17, /* a sealed page was written all the same */
  KVMM_ECLOSED = -18,        /* the object has been closed */
  KVMM_ECANCELLED = -19,     /* given up on request */
  KVMM_EVERSION = -20,       /* another format, ABI or API version */
  KVMM_ELIMIT = -21,         /* a configured or system limit */
  KVMM_EDEVICEGONE = -22     /* the device does not answer any more */
};

/* A short constant name ("corrupt"); never NULL. */
KVMM_API const char* kvmm_status_name(kvmm_status status);
/* One sentence; never NULL. */
KVMM_API const char* kvmm_status_text(kvmm_status status);
/* What the last failed call of this thread had to say (which path, what to do, errno), without the
 * status's name; kvmm_status_text of its status if there is no more to say. "" after a call that
 * succeeded. Valid until the next kvmm call of this thread. */
KVMM_API const char* kvmm_last_error(void);
/* (major << 16) | (minor << 8) | patch of the library, which may be newer than this header. */
KVMM_API uint32_t kvmm_version(void);

#define KVMM_INIT(type) ((type){.size = sizeof(type)})

typedef struct kvmm_runtime kvmm_runtime;
typedef struct kvmm_arena kvmm_arena;
typedef struct kvmm_session kvmm_session;
typedef struct kvmm_pin kvmm_pin;

/* -------------------------------------------------------------------------------------- runtime */

typedef struct kvmm_runtime_options {
  size_t size;
  const char* name;       /* shown by kvctl ps; default: the program's name */
  const char* config_dir; /* every *.conf in it is read; default $KVMM_CONFIG, else /etc/kvmm */
  uint64_t dram_bytes;    /* capacity of the tiers of nodes with CPUs, together; rounded up to
                             2 MiB each. Default: attributes tiers/dram.../capacity of the
                             configuration, else 1 GiB or 1/4 of that memory if it is less */
  const char* swap_path;  /* file or block device swapped to, made if need be; only its owner may
                             be able to read it. NULL: none (kvmm_swapon adds some later) */
  uint64_t swap_bytes;    /* size the file may grow to, as it is needed; default 16 GiB; a block
                             device: all of it */
  const char* frames;     /* "movable" (default), "shareable" */
  uint32_t flags;         /* KVMM_RUNTIME_* */
  uint32_t data_workers;  /* threads that checksum and zero; default 1, at most 64 */

  const char* swap_driver; /* of swap_path, as in kvmm_swap_options */
  const char* swap_driver_options;
} kvmm_runtime_options;

#define KVMM_RUNTIME_NO_CONTROL 1u /* no control socket */
/* Never asks for userfaultfd, `frames` is not looked at: for arenas of KVMM_ENGINE_PINNING only. A
 * touch of a page that is not mapped is a SIGSEGV. */
#define KVMM_RUNTIME_PIN_ONLY 2u
/* Areas are not dedicated to a model. An existing file that is no swap area is an error all the
 * same. With or without it, no later opening of an area finds its pages again yet. */
#define KVMM_RUNTIME_VOLATILE 4u

/* Opens a runtime; several per process are independent. `options` may be NULL. Errors:
 * EPERMISSION, ENOTSUPPORTED (kernel or rights; the text lists the ways to allow it), EINVALID,
 * ERANGE (options; a config line: the text has file and line, also with ENOTFOUND and EPERMISSION),
 * ENOTFOUND (config directory, folder of the swap file), ELIMIT (descriptors, threads, memlock),
 * ENOMEMORY (addresses), and those of kvmm_swapon. */
KVMM_API kvmm_status kvmm_runtime_open(const kvmm_runtime_options* options, kvmm_runtime** out);
/* Closes everything in it; handles of its arenas and sessions are invalid then (they need not be
 * closed before, but close them if you want their few bytes back). REQUIRES: no thread touches its
 * memory any more. EBUSY: a pin is open, or its fence is not done (nothing is closed). */
KVMM_API kvmm_status kvmm_runtime_close(kvmm_runtime* runtime);

/* Adds a swap area while running. `priority`: -32768..32767, higher is used first, equal ones in
 * turn; that of swap_path is 0. `bytes` as in swap_bytes. A path that begins with "null:" is a
 * device that forgets what is written, for measuring (VOLATILE runtimes only): pages in it are
 * gone. Errors: EEXISTS (it is one already), EBUSY (in use by another runtime; after a second),
 * EINVAL (no swap area and not empty, too small), ECORRUPT (superblock), EVERSION, EPERMISSION,
 * ENOTFOUND (its folder), ENOTSUPPORTED (no O_DIRECT there), ENOSPACE, ERANGE, ELIMIT, EIO. A file
 * that was made is removed again. */
KVMM_API kvmm_status kvmm_swapon(kvmm_runtime* runtime, const char* path, uint64_t bytes,
                                 int32_t priority);

typedef struct kvmm_swap_options {
  size_t size;
  const char* path;           /* as in kvmm_swapon; what it names is the driver's business */
  uint64_t bytes;             /* as in swap_bytes */
  int32_t priority;           /* as in kvmm_swapon; default 0 */
  const char* driver;         /* NULL: "uring". A name without '/': a driver of the library. Else
                                 the path of a shared object with a driver in it, which is loaded
                                 into this process and stays (docs/writing_a_driver.md). It must
                                 belong to root or this user, and be writable by nobody else */
  const char* driver_options; /* the driver's own: "key=value,key=value" */
} kvmm_swap_options;

/* kvmm_swapon with a choice of driver. Errors: those of kvmm_swapon and of the driver; ENOTFOUND,
 * EPERMISSION (also: no such driver, or its file), EINVALID (no driver in that file; its options),
 * EVERSION (a driver made for another kvmm), ENOTSUPPORTED (it does not load, or throws). */
KVMM_API kvmm_status kvmm_swapon_with(kvmm_runtime* runtime, const kvmm_swap_options* options);
/* Takes a swap area out: reads its pages back or moves them to other areas, then returns. `path`:
 * as given, or the area's name under swap/. Errors: ENOTFOUND; EBUSY (it is being taken out
 * already); ENOMEMORY, ENOSPACE (the rest does not fit elsewhere: the area stays in use, and
 * kvmm_last_error says whose pages are left and what room there is). An area whose device fails
 * is emptied and taken out by itself. */
KVMM_API kvmm_status kvmm_swapoff(kvmm_runtime* runtime, const char* path);

/* Reads or writes one attribute (docs/abi lists them). `value` receives a NUL-terminated text, cut
 * to `length` bytes with the NUL: a text that fills the room may be longer. Errors: ENOTFOUND (also
 * a directory), EPERMISSION (read-only), EINVALID (unit), ERANGE; the old value stays. */
KVMM_API kvmm_status kvmm_attr_get(kvmm_runtime* runtime, const char* path, char* value,
                                   size_t length);
KVMM_API kvmm_status kvmm_attr_set(kvmm_runtime* runtime, const char* path, const char* value);

/* --------------------------------------------------------------------------------------- arenas */

typedef struct kvmm_plane_options {
  size_t size;
  const char* name;      /* "k_l5" */
  void* base;            /* address of lane 0 inside a range of kvmm_arena_reserve; NULL: the
                            library reserves */
  uint64_t lane_stride;  /* bytes from one lane to the next; default: lane_tokens of token_stride,
                            rounded up to 64 KiB (from 1 MiB on: to 2 MiB) */
  uint64_t token_stride; /* bytes of one token in this plane; raw: 0 if unknown; structured
                            sessions need it */
  uint32_t layers;       /* layers packed in this plane; default 1 */
  uint32_t window;       /* tokens of a sliding window: a ring, whose pages are never sealed and
                            which does not limit how many tokens fit; 0: full attention */
  uint64_t page_size;    /* power of two, 4 KiB..2 MiB; default: the largest that divides
                            lane_stride and base, 4 KiB if none does */
} kvmm_plane_options;

typedef struct kvmm_arena_options {
  size_t size;
  const char* name;
  const uint8_t* model_id; /* 32 bytes: weights and whatever else changes the numbers; NULL: a
                              random id. A later opening finds no page again yet, with any id */
  const char* layout;      /* text that fingerprints the layout: dtype, kv heads, head size,
                              layers, positions */
  uint32_t lanes;          /* sessions that fit at once; default 1, at most 65536 */
  uint64_t lane_tokens;    /* tokens of a lane; 0: what the planes' lane_stride holds */
  uint32_t placement;      /* KVMM_PLACE_* */
  uint32_t engine;         /* KVMM_ENGINE_* */
} kvmm_arena_options;

#define KVMM_PLACE_STRIDED 0u    /* per plane one range, lane i at base + i * lane_stride */
#define KVMM_PLACE_CONTIGUOUS 1u /* per session one range, its planes behind one another */
/* A touch waits, and is a SIGBUS if the content is gone. Who would rather know before it touches:
 * kvmm_prefetch, later kvmm_recompute_ranges; pins work too. */
#define KVMM_ENGINE_FAULTING 0u
/* Pins what it touches; pins are told to recompute. Only a touch without a pin gets an error
 * (SIGBUS) when the content is gone. */
#define KVMM_ENGINE_PINNING 1u

/* Errors: EINVALID, ENOMEMORY, EMODELMISMATCH (a swap area in use belongs to another model),
 * ENOTSUPPORTED (ENGINE_FAULTING in a PIN_ONLY runtime). */
KVMM_API kvmm_status kvmm_arena_create(kvmm_runtime* runtime, const kvmm_arena_options* options,
                                       kvmm_arena** out);
/* EBUSY: sessions are open. The arena's addresses become invalid. */
KVMM_API kvmm_status kvmm_arena_destroy(kvmm_arena* arena);
/* Reserves `length` bytes (rounded up to 2 MiB, aligned to 2 MiB) that the engine lays planes into
 * itself. STRIDED only. Nothing is committed: costs no memory. A touch outside every open session
 * is a SIGBUS. Errors: EINVALID (contiguous, 0, over 64 TiB), ENOMEMORY (addresses). */
KVMM_API kvmm_status kvmm_arena_reserve(kvmm_arena* arena, uint64_t length, void** base);
/* Adds a plane; sessions that are open get their lane of it too (CONTIGUOUS: EBUSY if any is). A
 * lane_stride or base that is no multiple of the page size is for raw sessions of ENGINE_FAULTING
 * only, and cannot be pinned: the page that two lanes share belongs to the lane of its first byte.
 * `plane` (may be NULL) receives its number (0, 1, ...). On an error nothing is added. Errors:
 * EINVALID (also: not for structured sessions, and one is open; a lane smaller than a page),
 * ERANGE (not inside a reserved range, over 64 TiB), EEXISTS (over another plane), EBUSY,
 * ENOMEMORY. */
KVMM_API kvmm_status kvmm_arena_add_plane(kvmm_arena* arena, const kvmm_plane_options* options,
                                          uint32_t* plane);
/* Drops every page that lies wholly inside [start, start + length), whatever session owns it;
 * partly covered pages are zeroed there by the calling thread, which may fault (ENGINE_FAULTING),
 * or is pinning them meanwhile (ENGINE_PINNING). Never-written pages read as zeros. Cost is by
 * pages that exist, not by length. For raw sessions. EBUSY: a page is pinned. ERANGE: not inside
 * one range of the arena. ENGINE_PINNING also, of a partly covered page: ERECOMPUTE (its content is
 * gone), ESEALED, ENOMEMORY (no frame for it); nothing is cleared then. */
KVMM_API kvmm_status kvmm_arena_clear(kvmm_arena* arena, void* start, uint64_t length);

/* ------------------------------------------------------------------------------------- sessions */

typedef struct kvmm_session_options {
  size_t size;
  const char* name;           /* shown by kvctl; default "session-<id>" */
  const char* tenant;         /* default "default" */
  const char* sharing_domain; /* who may share prefixes with it; default: the tenant */
  int64_t lane;               /* KVMM_LANE_ANY, or a lane number + 1 (so that 0 is "any") */
  uint32_t kind;              /* KVMM_SESSION_* */
} kvmm_session_options;

#define KVMM_LANE_ANY 0
#define KVMM_SESSION_STRUCTURED 0u
#define KVMM_SESSION_RAW 1u

/* Errors: ELIMIT (no lane is free), EEXISTS (that lane is taken), EINVALID (no such lane; the arena
 * has no plane yet; STRUCTURED: a plane without token_stride, or whose lane_stride or base is no
 * multiple of its page size), ENOMEMORY. */
KVMM_API kvmm_status kvmm_session_open(kvmm_arena* arena, const kvmm_session_options* options,
                                       kvmm_session** out);
/* Drops its pages and frees its lane. EBUSY: a pin is open (nothing is closed). */
KVMM_API kvmm_status kvmm_session_close(kvmm_session* session);
KVMM_API uint64_t kvmm_session_id(const kvmm_session* session);
KVMM_API uint32_t kvmm_session_lane(const kvmm_session* session);

/* Address of token 0 in `plane`; the same for the session's life. Token t is at address + t *
 * token_stride (a window: the engine places tokens in the ring). ERANGE: no such plane. */
KVMM_API kvmm_status kvmm_session_address(kvmm_session* session, uint32_t plane, void** address);

/* ---- structured sessions ---- */

/* Says that the next `n` tokens are written in every plane. `ids` (n token ids) may be NULL. Pages
 * that are full now are sealed. The engine writes the bytes before this call; touching tokens past
 * the end is allowed (they are what will be appended next). Errors: ERANGE (lane is full: nothing
 * is appended), EINVALID (raw session). */
KVMM_API kvmm_status kvmm_append(kvmm_session* session, const int32_t* ids, uint64_t n);
/* Cuts the session to its first `tokens` tokens. The page that `tokens` falls into is open again
 * (a new generation), later pages are dropped. ERANGE: more than it has. EINVALID: raw session.
 * EBUSY: a page to be dropped is pinned. */
KVMM_API kvmm_status kvmm_truncate(kvmm_session* session, uint64_t tokens);
KVMM_API uint64_t kvmm_tokens(kvmm_session* session);

/* Drops the content of all whole pages of tokens [a, b): the engine will not read them again; they
 * read as zeros. Nothing if a == b. EBUSY: pinned. ERANGE: a > b, or past the last token
 * (structured). EINVALID: a plane of unknown token stride, and not [0, KVMM_ALL_TOKENS). */
KVMM_API kvmm_status kvmm_discard(kvmm_session* session, uint64_t a, uint64_t b);

typedef struct kvmm_range {
  uint64_t begin, end; /* tokens, half-open */
} kvmm_range;

/* Token ranges whose content is gone in any plane, by whole pages: ascending, not touching. Writes
 * at most `capacity`, returns in `count` how many there are. The engine computes them again:
 * kvmm_recompute_begin, write, kvmm_recompute_end. */
KVMM_API kvmm_status kvmm_recompute_ranges(kvmm_session* session, kvmm_range* ranges,
                                           size_t capacity, size_t* count);
/* Makes the pages of [a, b) writable again: those that are gone as zeros, with a new generation;
 * those of planes that are whole keep their bytes until the engine writes them. The engine writes
 * all of [a, b) in every plane. ERANGE: outside the session, or a page that is gone holds tokens
 * outside [a, b) too; EINVALID: nothing of it is gone, or a raw session. A pin that answered
 * RECOMPUTE keeps that answer: pin again. */
KVMM_API kvmm_status kvmm_recompute_begin(kvmm_session* session, uint64_t a, uint64_t b);
/* Says that [a, b) is written; full pages are sealed. ERANGE: outside it; EINVALID: raw. */
KVMM_API kvmm_status kvmm_recompute_end(kvmm_session* session, uint64_t a, uint64_t b);

/* ---- any session ---- */

#define KVMM_ALL_TOKENS UINT64_MAX

/* Starts to bring tokens [a, b) back; returns at once. `deadline_us`: wished time from now, 0: as
 * soon as can be. [0, KVMM_ALL_TOKENS) is everything. A hint: pages that do not fit are not
 * brought, nor are pages of more sessions than it follows at once. ERANGE: a > b. */
KVMM_API kvmm_status kvmm_prefetch(kvmm_session* session, uint64_t a, uint64_t b,
                                   uint64_t deadline_us);

enum {
  KVMM_ADVISE_NORMAL = 0,
  KVMM_ADVISE_RUNNING = 1, /* is generating: last to be reclaimed */
  KVMM_ADVISE_IDLE = 2,    /* not soon: first to be reclaimed */
  KVMM_ADVISE_EVICT = 3,   /* write out and free all its frames now, without waiting; then IDLE */
  KVMM_ADVISE_DURABLE = 4  /* write its unmapped pages out ahead of need, keep them resident: as far
                              as attribute sched/writeback_ahead allows, which is 0 by default */
};
KVMM_API kvmm_status kvmm_advise(kvmm_session* session, uint32_t advice);

/* Returns when everything the session has is written to swap and the devices have flushed. `seq`
 * (may be NULL) receives the number of this sync: 1, 2, ... in this runtime. What is written is on
 * the devices, and is not found again by a later opening of the area yet. Errors: EIO, ENOSPACE
 * (full, or no swap area), EBUSY (a page is pinned, for whatever). */
KVMM_API kvmm_status kvmm_sync(kvmm_session* session, uint64_t* seq);

typedef struct kvmm_session_stat {
  size_t size;
  uint64_t tokens;
  uint64_t bytes_resident, bytes_swapped, bytes_discarded;
  uint64_t faults_zero, faults_minor, faults_major;
  uint64_t swap_in_bytes, swap_out_bytes;
  uint64_t clean_drops; /* pages freed without a write: proved unchanged */
  uint64_t wrong_pages; /* failed verification; none of them was mapped */
  uint64_t seal_violations;
  uint64_t pages_poisoned;
} kvmm_session_stat;
/* Counters since the session was opened; sizes now. */
KVMM_API kvmm_status kvmm_session_stats(kvmm_session* session, kvmm_session_stat* stat);

/* -------------------------------------------------------------------------------------- pinning */

typedef struct kvmm_pin_range {
  kvmm_session* session;
  uint32_t plane;      /* or KVMM_ALL_PLANES */
  uint32_t write;      /* 1: the engine will write (open pages only, else ESEALED) */
  uint64_t begin, end; /* tokens, half-open, also those still to be appended; end
                          KVMM_ALL_TOKENS: to the last token (raw: all of the lane) */
} kvmm_pin_range;
#define KVMM_ALL_PLANES UINT32_MAX

enum {
  KVMM_PIN_READY = 0,     /* every page is mapped and stays so until unpin */
  KVMM_PIN_COMING = 1,    /* pages are on their way; wait on kvmm_pin_fd or poll again */
  KVMM_PIN_RECOMPUTE = 2, /* content is gone: kvmm_recompute_ranges says where; the rest of the
                             batch stays pinned */
  KVMM_PIN_FAILED = 3     /* no frame can be had while the rest is pinned: unpin, pin less */
};

/* Pins a batch of `n` ranges, 1 to 65536, and starts to bring what is absent. Pins count:
 * overlapping pins add up. `answers` (n of KVMM_PIN_*; may be NULL) says for each range where it
 * stands now. Errors: EINVALID, ERANGE, ESEALED, ENOMEMORY (larger than all tiers), ELIMIT (no
 * descriptor, or a page is pinned 65535 times): then nothing is pinned. */
KVMM_API kvmm_status kvmm_pin_batch(kvmm_runtime* runtime, const kvmm_pin_range* ranges, size_t n,
                                    kvmm_pin** out, uint32_t* answers);
/* An eventfd of the pin's own, readable (poll) once no range is COMING any more, also if none ever
 * was. Owned by the pin: do not close it. -1: pin is NULL. */
KVMM_API int kvmm_pin_fd(const kvmm_pin* pin);
/* Where each range stands now; n as given, else EINVALID. RECOMPUTE and FAILED are final. Never
 * waits. */
KVMM_API kvmm_status kvmm_pin_poll(kvmm_pin* pin, uint32_t* answers, size_t n);

enum { KVMM_FENCE_NONE = 0, KVMM_FENCE_CALLBACK = 1, KVMM_FENCE_CUDA_EVENT = 2 };
typedef struct kvmm_fence {
  size_t size;
  uint32_t type;             /* KVMM_FENCE_* */
  void* handle;              /* CALLBACK: its argument; CUDA_EVENT: a CUevent that was recorded */
  int (*done)(void* handle); /* CALLBACK: non-zero when the engine's work is over. Called again and
                                again until then, from kvmm's threads and from any thread that is
                                in a call of kvmm, with kvmm's lock held: it must not block, not
                                call kvmm (the process stops) and not touch KV memory */
} kvmm_fence;
/* Ends a pin. Its pages may be reclaimed once `fence` (NULL: none) is done; until then they are
 * pinned for EBUSY. The pin and its descriptor are invalid afterwards. Errors (the pin stays):
 * EINVALID (type, no callback), ENOTSUPPORTED (CUDA_EVENT on host tiers). */
KVMM_API kvmm_status kvmm_unpin(kvmm_pin* pin, const kvmm_fence* fence);

#ifdef __cplusplus
}
#endif
#endif /* KVMM_KVMM_H_ */
