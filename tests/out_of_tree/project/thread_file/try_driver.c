/* SPDX-License-Identifier: Apache-2.0
 *
 * Swaps over a driver: 64 MiB of KV in 16 MiB of DRAM, written, sent out, read back, compared.
 * usage: try_driver DRIVER SWAPFILE [OPTIONS] */
#include <kvmm/kvmm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { kPage = 64 << 10, kPages = 1024 };

static void require(kvmm_status status, const char* what) {
  if (status == KVMM_OK)
    return;
  fprintf(stderr, "%s: %s: %s\n", what, kvmm_status_name(status), kvmm_last_error());
  /* 77 means "skipped" to ctest: this machine does not allow what a faulting engine needs. */
  exit(strcmp(what, "runtime") == 0 && status == KVMM_EPERMISSION && !getenv("CI") ? 77 : 1);
}

static uint64_t word_of(uint64_t at) {
  return (at + 1) * UINT64_C(0x9e3779b97f4a7c15);
}

int main(int argc, char** argv) {
  if (argc != 3 && argc != 4) {
    fprintf(stderr, "usage: try_driver DRIVER SWAPFILE [OPTIONS]\n");
    return 2;
  }
  kvmm_runtime_options options = KVMM_INIT(kvmm_runtime_options);
  options.name = "try_driver";
  options.dram_bytes = UINT64_C(16) << 20;
  options.flags = KVMM_RUNTIME_VOLATILE;
  kvmm_runtime* runtime = NULL;
  require(kvmm_runtime_open(&options, &runtime), "runtime");

  kvmm_swap_options swap = KVMM_INIT(kvmm_swap_options);
  swap.path = argv[2];
  swap.bytes = UINT64_C(256) << 20;
  swap.driver = argv[1];
  swap.driver_options = argc == 4 ? argv[3] : NULL;
  require(kvmm_swapon_with(runtime, &swap), "swapon");

  kvmm_arena_options arena_options = KVMM_INIT(kvmm_arena_options);
  kvmm_arena* arena = NULL;
  require(kvmm_arena_create(runtime, &arena_options, &arena), "arena");
  kvmm_plane_options plane = KVMM_INIT(kvmm_plane_options);
  plane.lane_stride = (uint64_t)kPage * kPages;
  plane.page_size = kPage;
  require(kvmm_arena_add_plane(arena, &plane, NULL), "plane");
  kvmm_session_options session_options = KVMM_INIT(kvmm_session_options);
  session_options.kind = KVMM_SESSION_RAW;
  kvmm_session* session = NULL;
  require(kvmm_session_open(arena, &session_options, &session), "session");
  void* address = NULL;
  require(kvmm_session_address(session, 0, &address), "address");

  uint64_t* words = address;
  const uint64_t count = (uint64_t)kPage * kPages / sizeof *words;
  for (uint64_t i = 0; i < count; ++i)
    words[i] = word_of(i);
  for (uint64_t i = 0; i < count; ++i) {
    if (words[i] != word_of(i)) {
      fprintf(stderr, "wrong word at %llu\n", (unsigned long long)i);
      return 1;
    }
  }
  kvmm_session_stat stat = KVMM_INIT(kvmm_session_stat);
  require(kvmm_session_stats(session, &stat), "stats");
  char driver[64] = "";
  require(kvmm_attr_get(runtime, "swap/swap0/driver", driver, sizeof driver), "driver");
  require(kvmm_runtime_close(runtime), "close");
  printf("%s: %d MiB written and read back, %llu pages of it from swap\n", driver,
         kPage * (kPages >> 10) >> 10, (unsigned long long)stat.faults_major);
  return stat.faults_major == 0;
}
