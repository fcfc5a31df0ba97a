// SPDX-License-Identifier: Apache-2.0
//
// Engine threads that write to the same pages while reclaim takes these pages away: no update is
// lost, no page is wrong, and no huge frame is split.
#include <gtest/gtest.h>

#include <algorithm>
#include <ostream>
#include <random>

#include "tests/stress/stress_world.h"

namespace kvmm_stress {
namespace {

constexpr uint32_t kThreads = 3;
constexpr uint32_t kSharedLanes = 2;

struct Case {
  const char* name;
  uint64_t page;
  const char* frames;
  uint64_t dram;
  uint64_t lane_bytes;
  uint64_t swaps_min;  // pages that must have gone out, and come in
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << c.name;
}

class Reclaim : public ::testing::TestWithParam<Case> {};

// Thread t owns word t of every page, so two threads never write to one word, and always to one
// page. What a word ought to be is counted outside of the pages.
TEST_P(Reclaim, LosesNoUpdateOfEngineThreads) {
  const Case& c = GetParam();
  StressOptions o;
  o.page = c.page;
  o.frames = c.frames;
  o.dram = c.dram;
  o.lane_bytes = c.lane_bytes;
  StressWorld w(o);
  ASSERT_TRUE(w.ok());
  for (uint32_t lane = 0; lane < kSharedLanes; ++lane) {
    w.open(lane);
  }
  const uint64_t pages = kSharedLanes * c.lane_bytes / c.page;
  const uint64_t out_before = w.counter("swap_out_bytes");
  const uint64_t in_before = w.counter("swap_in_bytes");
  std::vector<std::vector<uint32_t>> written(kThreads, std::vector<uint32_t>(pages, 0));
  std::vector<uint64_t> lost(kThreads, 0);
  auto word_of = [&](uint64_t page, uint32_t thread) {
    // Somewhere in the page, another place in each; lanes of the sessions follow each other.
    const uint64_t words = c.page / 8;
    return reinterpret_cast<volatile uint64_t*>(w.base(0)) + page * words +
           (page * 61 + 8) % (words - kThreads) + thread;
  };
  {
    AttributeReader reader(w.runtime(),
                           {kvmm_session_id(w.session(0)), kvmm_session_id(w.session(1))});
    const Bound bound(8);
    std::atomic<bool> enough{false};
    std::vector<std::thread> engines;
    for (uint32_t t = 0; t < kThreads; ++t) {
      engines.emplace_back([&, t] {
        std::minstd_rand random(t + 1);
        for (uint64_t i = 0; !enough && !bound.over(); ++i) {
          // Mostly runs of pages, as engines have them, and jumps between.
          const uint64_t at = random() % pages;
          for (uint64_t k = at; k < std::min(at + 8, pages); ++k) {
            volatile uint64_t* word = word_of(k, t);
            const uint32_t before = written[t][k];
            lost[t] += *word != (before == 0 ? 0 : pattern(t, k, before)) ? 1 : 0;
            *word = pattern(t, k, ++written[t][k]);
          }
          // The first thread alone looks at the counters, and not often.
          if (t == 0 && i % 64 == 63) {
            enough = w.counter("swap_out_bytes") - out_before >= 2 * c.swaps_min * c.page &&
                     w.counter("swap_in_bytes") - in_before >= 2 * c.swaps_min * c.page;
          }
        }
      });
    }
    for (std::thread& e : engines) {
      e.join();
    }
    EXPECT_GE(reader.rounds(), 1u);
  }
  for (uint32_t t = 0; t < kThreads; ++t) {
    for (uint64_t k = 0; k < pages; ++k) {
      const uint32_t n = written[t][k];
      lost[t] += *word_of(k, t) != (n == 0 ? 0 : pattern(t, k, n)) ? 1 : 0;
    }
    EXPECT_EQ(lost[t], 0u) << "updates of thread " << t << " are lost";
  }
  // There was pressure, and it went through the disk.
  EXPECT_GE(w.counter("swap_out_bytes") - out_before, c.swaps_min * c.page);
  EXPECT_GE(w.counter("swap_in_bytes") - in_before, c.swaps_min * c.page);
  EXPECT_GT(w.counter("faults_major"), c.swaps_min / 8);
  EXPECT_EQ(w.counter("frames_split"), 0u);
  EXPECT_EQ(w.counter("wrong_pages"), 0u);
  EXPECT_EQ(w.counter("poisoned"), 0u);
}

INSTANTIATE_TEST_SUITE_P(
    Pages, Reclaim,
    ::testing::Values(Case{"movable_4k", 4 * kKi, "movable", 4 * kMi, 4 * kMi, 2000},
                      Case{"movable_64k", 64 * kKi, "movable", 8 * kMi, 8 * kMi, 1000},
                      Case{"movable_2m", 2 * kMi, "movable", 16 * kMi, 16 * kMi, 50},
                      Case{"shareable_4k", 4 * kKi, "shareable", 4 * kMi, 4 * kMi, 2000},
                      Case{"shareable_64k", 64 * kKi, "shareable", 8 * kMi, 8 * kMi, 1000},
                      Case{"shareable_2m", 2 * kMi, "shareable", 16 * kMi, 16 * kMi, 50}),
    [](const auto& i) { return i.param.name; });

// Sessions that come and go beside one that stays: their frames and slots change owners, their
// bytes never do.
TEST(Sessions, ComeAndGoUnderPressure) {
  StressOptions o;
  o.dram = 4 * kMi;
  o.lane_bytes = 4 * kMi;
  StressWorld w(o);
  ASSERT_TRUE(w.ok());
  w.open(0);
  const uint64_t words = o.lane_bytes / 8;
  auto at = [&](uint32_t lane, uint64_t word) {
    return reinterpret_cast<volatile uint64_t*>(w.base(lane)) + word;
  };
  for (uint64_t i = 0; i < words; i += 512) {
    *at(0, i) = pattern(0, i, 1);
  }
  std::atomic<uint64_t> wrong{0};
  std::atomic<uint64_t> lives{0};
  const Bound bound(5);
  auto live = [&](uint32_t lane) {
    for (uint64_t life = 1; !bound.over() && life <= 40; ++life) {
      w.open(lane);
      for (uint64_t i = 0; i < words; i += 512) {
        wrong += *at(lane, i) != 0 ? 1 : 0;  // nothing of who was here before
        *at(lane, i) = pattern(lane, i, life);
      }
      for (uint64_t i = 0; i < words; i += 512) {
        wrong += *at(lane, i) != pattern(lane, i, life) ? 1 : 0;
      }
      w.close(lane);
      ++lives;
    }
  };
  {
    AttributeReader reader(w.runtime(), {kvmm_session_id(w.session(0))});
    std::thread one(live, 1);
    std::thread two(live, 2);
    one.join();
    two.join();
  }
  for (uint64_t i = 0; i < words; i += 512) {
    wrong += *at(0, i) != pattern(0, i, 1) ? 1 : 0;
  }
  EXPECT_EQ(wrong, 0u);
  EXPECT_GE(lives, 4u);
  EXPECT_GT(w.counter("swap_out_bytes"), 8 * kMi);
  EXPECT_GT(w.counter("swap_in_bytes"), 4 * kMi);
  EXPECT_EQ(w.counter("wrong_pages"), 0u);
}

// A session that an unmodified engine decodes with is in memory. Others were used and lie idle.
// New ones need memory: it comes from the idle ones, never from the one that runs.
TEST(Decoding, ARawSessionLosesNoPageToOthers) {
  StressOptions o;
  o.dram = 16 * kMi;
  o.lanes = 8;
  o.lane_bytes = 4 * kMi;
  StressWorld w(o);
  ASSERT_TRUE(w.ok());
  for (uint32_t lane = 0; lane < o.lanes; ++lane) {
    w.open(lane);
  }
  const uint64_t pages = o.lane_bytes / o.page;
  auto word = [&](uint32_t lane, uint64_t page) {
    return reinterpret_cast<volatile uint64_t*>(w.base(lane) + page * o.page + page * 8);
  };
  for (uint32_t lane = 0; lane < 3; ++lane) {  // lanes 1 and 2: then idle
    for (uint64_t i = 0; i < pages; ++i) {
      *word(lane, i) = pattern(lane, i, 1);
    }
  }
  ASSERT_EQ(w.stat(0).bytes_resident, o.lane_bytes);
  const kvmm_session_stat before = w.stat(0);
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> steps{0};
  std::atomic<uint64_t> wrong{0};
  std::thread decoder([&] {
    while (!stop) {
      for (uint64_t i = 0; i < pages; ++i) {
        wrong += *word(0, i) != pattern(0, i, 1) ? 1 : 0;
      }
      ++steps;
      std::this_thread::yield();
    }
  });
  const Bound bound(15);
  while (w.counter("probes_hit") == 0 && !bound.over()) {
    std::this_thread::yield();  // until it is known who runs
  }
  uint64_t life = 1;
  for (; life <= 4 && !bound.over(); ++life) {
    for (uint32_t lane = 3; lane < o.lanes; ++lane) {
      for (uint64_t i = 0; i < pages; ++i) {
        *word(lane, i) = pattern(lane, i, life);
      }
    }
  }
  stop = true;
  decoder.join();
  EXPECT_GE(life, 3u);
  EXPECT_GT(steps, 100u);
  EXPECT_EQ(wrong, 0u);
  const kvmm_session_stat after = w.stat(0);
  EXPECT_EQ(after.faults_major, before.faults_major) << "pages of the running session were taken";
  EXPECT_EQ(after.swap_in_bytes, before.swap_in_bytes);
  EXPECT_EQ(after.bytes_resident, o.lane_bytes);
  EXPECT_GT(w.counter("swap_out_bytes"), 2 * o.dram) << "there was pressure";
  EXPECT_GT(w.counter("swap_in_bytes"), o.dram);
  for (uint32_t lane = 1; lane < 3; ++lane) {
    EXPECT_LT(w.stat(lane).bytes_resident, o.lane_bytes) << "an idle session gave way";
    for (uint64_t i = 0; i < pages; ++i) {
      ASSERT_EQ(*word(lane, i), pattern(lane, i, 1)) << "lane " << lane << " page " << i;
    }
  }
}

}  // namespace
}  // namespace kvmm_stress
