/* SPDX-License-Identifier: Apache-2.0
 *
 * A faulting engine in plain C11 over the installed header: one session; write, append, send out to
 * the swap file that is named, read back at the same addresses, sync. */
#include <kvmm/kvmm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { kTokenStride = 128, kTokens = 500 };

static void require(kvmm_status status, const char* what) {
  if (status == KVMM_OK)
    return;
  fprintf(stderr, "%s: %s: %s\n", what, kvmm_status_name(status), kvmm_last_error());
  /* 77 means "skipped" to ctest: this machine does not allow what a faulting engine needs. */
  exit((status == KVMM_EPERMISSION || status == KVMM_ENOTSUPPORTED) && !getenv("CI") ? 77 : 1);
}

static kvmm_session_stat stats_of(kvmm_session* session) {
  kvmm_session_stat stat = KVMM_INIT(kvmm_session_stat);
  require(kvmm_session_stats(session, &stat), "stats");
  return stat;
}

static int all_there(const unsigned char* bytes) {
  for (size_t i = 0; i < (size_t)kTokens * kTokenStride; ++i) {
    if (bytes[i] != (unsigned char)(i / kTokenStride % 251)) {
      fprintf(stderr, "wrong byte at %zu\n", i);
      return 0;
    }
  }
  return 1;
}

int main(int argc, char** argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: consumer SWAPFILE\n");
    return 2;
  }
  kvmm_runtime_options options = KVMM_INIT(kvmm_runtime_options);
  options.name = "consumer-pkgconfig";
  options.dram_bytes = (uint64_t)16 << 20;
  options.swap_path = argv[1];
  options.swap_bytes = (uint64_t)16 << 20;
  options.flags = KVMM_RUNTIME_NO_CONTROL;
  kvmm_runtime* runtime = NULL;
  require(kvmm_runtime_open(&options, &runtime), "runtime");

  kvmm_arena_options arena_options = KVMM_INIT(kvmm_arena_options);
  arena_options.layout = "consumer u8x128";
  arena_options.lanes = 2;
  arena_options.lane_tokens = 1024;
  kvmm_arena* arena = NULL;
  require(kvmm_arena_create(runtime, &arena_options, &arena), "arena");
  kvmm_plane_options plane_options = KVMM_INIT(kvmm_plane_options);
  plane_options.name = "kv";
  plane_options.token_stride = kTokenStride;
  uint32_t plane = 0;
  require(kvmm_arena_add_plane(arena, &plane_options, &plane), "plane");
  kvmm_session_options session_options = KVMM_INIT(kvmm_session_options);
  kvmm_session* session = NULL;
  require(kvmm_session_open(arena, &session_options, &session), "session");
  void* address = NULL;
  require(kvmm_session_address(session, plane, &address), "address");

  unsigned char* bytes = address;
  for (size_t t = 0; t < kTokens; ++t)
    memset(bytes + t * kTokenStride, (int)(t % 251), kTokenStride);
  require(kvmm_append(session, NULL, kTokens), "append");
  if (!all_there(bytes) || kvmm_tokens(session) != kTokens)
    return 1;

  /* Out, without waiting; sync waits for writes, so it passes the time here. */
  require(kvmm_advise(session, KVMM_ADVISE_EVICT), "evict");
  uint64_t sequence = 0;
  for (int i = 0; i < 1000 && stats_of(session).bytes_resident != 0; ++i)
    require(kvmm_sync(session, &sequence), "sync");
  if (stats_of(session).bytes_resident != 0 || stats_of(session).bytes_swapped == 0) {
    fprintf(stderr, "the session was not sent out\n");
    return 1;
  }
  /* And back, by touching it. */
  if (!all_there(bytes) || stats_of(session).faults_major == 0)
    return 1;
  /* The lane is only so long: a typed refusal, not a crash. */
  if (kvmm_append(session, NULL, 1024) != KVMM_ERANGE)
    return 1;

  require(kvmm_session_close(session), "close session");
  require(kvmm_arena_destroy(arena), "destroy arena");
  require(kvmm_runtime_close(runtime), "close runtime");
  printf("consumer (pkg-config): %d.%d ok\n", (int)(kvmm_version() >> 16),
         (int)(kvmm_version() >> 8 & 255));
  return 0;
}
