/* SPDX-License-Identifier: Apache-2.0
 *
 * The binary interface on a 64-bit machine, as programs that are built already have it: where every
 * field of every struct is, and every number. A change that does not compile here breaks them. New
 * fields and numbers are appended, with a line of their own. */
#include <kvmm/kvmm.h>

#define AT(type, field, offset) \
  _Static_assert(offsetof(type, field) == (offset), #type "." #field " has moved")
#define SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), #type " has changed its size")
#define IS(name, number) _Static_assert((name) == (number), #name " has changed its number")

AT(kvmm_runtime_options, size, 0);
AT(kvmm_runtime_options, name, 8);
AT(kvmm_runtime_options, config_dir, 16);
AT(kvmm_runtime_options, dram_bytes, 24);
AT(kvmm_runtime_options, swap_path, 32);
AT(kvmm_runtime_options, swap_bytes, 40);
AT(kvmm_runtime_options, frames, 48);
AT(kvmm_runtime_options, flags, 56);
AT(kvmm_runtime_options, data_workers, 60);
AT(kvmm_runtime_options, swap_driver, 64);
AT(kvmm_runtime_options, swap_driver_options, 72);
SIZE(kvmm_runtime_options, 80);

AT(kvmm_swap_options, size, 0);
AT(kvmm_swap_options, path, 8);
AT(kvmm_swap_options, bytes, 16);
AT(kvmm_swap_options, priority, 24);
AT(kvmm_swap_options, driver, 32);
AT(kvmm_swap_options, driver_options, 40);
SIZE(kvmm_swap_options, 48);

AT(kvmm_plane_options, size, 0);
AT(kvmm_plane_options, name, 8);
AT(kvmm_plane_options, base, 16);
AT(kvmm_plane_options, lane_stride, 24);
AT(kvmm_plane_options, token_stride, 32);
AT(kvmm_plane_options, layers, 40);
AT(kvmm_plane_options, window, 44);
AT(kvmm_plane_options, page_size, 48);
SIZE(kvmm_plane_options, 56);

AT(kvmm_arena_options, size, 0);
AT(kvmm_arena_options, name, 8);
AT(kvmm_arena_options, model_id, 16);
AT(kvmm_arena_options, layout, 24);
AT(kvmm_arena_options, lanes, 32);
AT(kvmm_arena_options, lane_tokens, 40);
AT(kvmm_arena_options, placement, 48);
AT(kvmm_arena_options, engine, 52);
SIZE(kvmm_arena_options, 56);

AT(kvmm_session_options, size, 0);
AT(kvmm_session_options, name, 8);
AT(kvmm_session_options, tenant, 16);
AT(kvmm_session_options, sharing_domain, 24);
AT(kvmm_session_options, lane, 32);
AT(kvmm_session_options, kind, 40);
SIZE(kvmm_session_options, 48);

AT(kvmm_range, begin, 0);
AT(kvmm_range, end, 8);
SIZE(kvmm_range, 16);

AT(kvmm_session_stat, size, 0);
AT(kvmm_session_stat, tokens, 8);
AT(kvmm_session_stat, bytes_resident, 16);
AT(kvmm_session_stat, bytes_swapped, 24);
AT(kvmm_session_stat, bytes_discarded, 32);
AT(kvmm_session_stat, faults_zero, 40);
AT(kvmm_session_stat, faults_minor, 48);
AT(kvmm_session_stat, faults_major, 56);
AT(kvmm_session_stat, swap_in_bytes, 64);
AT(kvmm_session_stat, swap_out_bytes, 72);
AT(kvmm_session_stat, clean_drops, 80);
AT(kvmm_session_stat, wrong_pages, 88);
AT(kvmm_session_stat, seal_violations, 96);
AT(kvmm_session_stat, pages_poisoned, 104);
SIZE(kvmm_session_stat, 112);

AT(kvmm_pin_range, session, 0);
AT(kvmm_pin_range, plane, 8);
AT(kvmm_pin_range, write, 12);
AT(kvmm_pin_range, begin, 16);
AT(kvmm_pin_range, end, 24);
SIZE(kvmm_pin_range, 32);

AT(kvmm_fence, size, 0);
AT(kvmm_fence, type, 8);
AT(kvmm_fence, handle, 16);
AT(kvmm_fence, done, 24);
SIZE(kvmm_fence, 32);

SIZE(kvmm_status, 4);
IS(KVMM_OK, 0);
IS(KVMM_EINVALID, -1);
IS(KVMM_ENOTFOUND, -2);
IS(KVMM_EEXISTS, -3);
IS(KVMM_EAGAIN, -4);
IS(KVMM_EBUSY, -5);
IS(KVMM_ENOMEMORY, -6);
IS(KVMM_ENOSPACE, -7);
IS(KVMM_EIO, -8);
IS(KVMM_ECORRUPT, -9);
IS(KVMM_ESTALE, -10);
IS(KVMM_EMODELMISMATCH, -11);
IS(KVMM_ERECOMPUTE, -12);
IS(KVMM_ENOTSUPPORTED, -13);
IS(KVMM_EPERMISSION, -14);
IS(KVMM_ERANGE, -15);
IS(KVMM_ESEALED, -16);
IS(KVMM_ESEALVIOLATION, -17);
IS(KVMM_ECLOSED, -18);
IS(KVMM_ECANCELLED, -19);
IS(KVMM_EVERSION, -20);
IS(KVMM_ELIMIT, -21);
IS(KVMM_EDEVICEGONE, -22);
IS(KVMM_RUNTIME_NO_CONTROL, 1);
IS(KVMM_RUNTIME_PIN_ONLY, 2);
IS(KVMM_RUNTIME_VOLATILE, 4);
IS(KVMM_PLACE_STRIDED, 0);
IS(KVMM_PLACE_CONTIGUOUS, 1);
IS(KVMM_ENGINE_FAULTING, 0);
IS(KVMM_ENGINE_PINNING, 1);
IS(KVMM_LANE_ANY, 0);
IS(KVMM_SESSION_STRUCTURED, 0);
IS(KVMM_SESSION_RAW, 1);
IS(KVMM_ALL_TOKENS, UINT64_MAX);
IS(KVMM_ALL_PLANES, UINT32_MAX);
IS(KVMM_ADVISE_NORMAL, 0);
IS(KVMM_ADVISE_RUNNING, 1);
IS(KVMM_ADVISE_IDLE, 2);
IS(KVMM_ADVISE_EVICT, 3);
IS(KVMM_ADVISE_DURABLE, 4);
IS(KVMM_PIN_READY, 0);
IS(KVMM_PIN_COMING, 1);
IS(KVMM_PIN_RECOMPUTE, 2);
IS(KVMM_PIN_FAILED, 3);
IS(KVMM_FENCE_NONE, 0);
IS(KVMM_FENCE_CALLBACK, 1);
IS(KVMM_FENCE_CUDA_EVENT, 2);
