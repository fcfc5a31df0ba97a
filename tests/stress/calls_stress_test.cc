// SPDX-License-Identifier: Apache-2.0
//
// API calls of several threads at once: jobs on one session follow each other, and address ranges
// come and go while other threads fault.
#include <gtest/gtest.h>

#include "tests/stress/stress_world.h"

namespace kvmm_stress {
namespace {

constexpr uint32_t kThreads = 3;

// Each call finds the job of another one under way now and then, and is woken when that has ended.
TEST(Calls, JobsOnOneSessionFollowEachOther) {
  StressOptions o;
  StressWorld w(o);
  ASSERT_TRUE(w.ok());
  w.open(0);
  std::vector<uint32_t> failed(kThreads, 0);
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (uint32_t i = 0; i < 400; ++i) {
        for (uint32_t page = 0; page < 8; ++page) {
          *reinterpret_cast<volatile uint64_t*>(w.base(0) + (t * 8 + page) * o.page) = i;
        }
        // On their way out they cannot be dropped at once: the call waits.
        failed[t] += kvmm_advise(w.session(0), KVMM_ADVISE_EVICT) != KVMM_OK ? 1 : 0;
        failed[t] += kvmm_discard(w.session(0), 0, KVMM_ALL_TOKENS) != KVMM_OK ? 1 : 0;
      }
    });
  }
  for (std::thread& t : threads) {
    t.join();
  }
  for (const uint32_t n : failed) {
    EXPECT_EQ(n, 0u);
  }
}

TEST(Calls, RangesComeAndGoWhileThreadsFault) {
  StressOptions o;
  o.dram = 4 * kMi;
  StressWorld w(o);
  ASSERT_TRUE(w.ok());
  w.open(0);
  std::atomic<bool> stop{false};
  uint32_t failed = 0;  // read after the join
  std::thread ranges([&] {
    for (uint32_t i = 0; i < 30; ++i) {
      kvmm_arena_options a{};
      a.size = sizeof a;
      kvmm_arena* arena = nullptr;
      failed += kvmm_arena_create(w.runtime(), &a, &arena) != KVMM_OK ? 1 : 0;
      for (uint32_t k = 0; k < 128; ++k) {  // many, so that the device's table moves a lot
        void* base = nullptr;
        failed += kvmm_arena_reserve(arena, 2 * kMi, &base) != KVMM_OK ? 1 : 0;
      }
      failed += kvmm_arena_destroy(arena) != KVMM_OK ? 1 : 0;

      a.placement = KVMM_PLACE_CONTIGUOUS;
      failed += kvmm_arena_create(w.runtime(), &a, &arena) != KVMM_OK ? 1 : 0;
      kvmm_plane_options p{};
      p.size = sizeof p;
      p.lane_stride = 4 * kMi;
      p.page_size = o.page;
      uint32_t plane = 0;
      failed += kvmm_arena_add_plane(arena, &p, &plane) != KVMM_OK ? 1 : 0;
      kvmm_session_options s{};
      s.size = sizeof s;
      s.kind = KVMM_SESSION_RAW;
      kvmm_session* session = nullptr;
      failed += kvmm_session_open(arena, &s, &session) != KVMM_OK ? 1 : 0;
      failed += kvmm_session_close(session) != KVMM_OK ? 1 : 0;
      failed += kvmm_arena_destroy(arena) != KVMM_OK ? 1 : 0;
    }
    stop = true;
  });
  uint64_t lost = 0;
  const uint64_t pages = o.lane_bytes / o.page;
  for (uint64_t round = 0; !stop; ++round) {  // twice the memory: every touch moves pages
    for (uint64_t page = 0; page < pages; ++page) {
      auto* word = reinterpret_cast<volatile uint64_t*>(w.base(0) + page * o.page);
      lost += *word != round ? 1 : 0;
      *word = round + 1;
    }
  }
  ranges.join();
  EXPECT_EQ(failed, 0u);
  EXPECT_EQ(lost, 0u);
}

}  // namespace
}  // namespace kvmm_stress
