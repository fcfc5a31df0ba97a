// SPDX-License-Identifier: Apache-2.0
//
// A world with a session whose pages lie in two swap areas; the device of the first is stacked
// (World::errors, World::delay).
//
// Thread safety: one thread.
#pragma once

#include <gtest/gtest.h>

#include "tests/model/world.h"

namespace kvmm::test {

using Verdict = SwapHealth::Verdict;

inline WorldConfig two_areas(uint32_t frames = 8) {
  WorldConfig c;
  c.frames = frames;
  c.planes = 1;
  c.lanes = 4;
  c.swap = mib(4);
  c.swap_2 = mib(4);
  c.swap_extent = kib(64);
  c.stacked_disk = true;
  return c;
}

inline ErrorRule failing_for_good(BlockOpMask ops, Errc result = Errc::kIo) {
  ErrorRule r;
  r.ops = ops;
  r.count = 0;
  r.result = result;
  return r;
}

inline constexpr BlockOpMask kReads = mask_of(BlockOp::kRead);
inline constexpr BlockOpMask kWrites = mask_of(BlockOp::kWrite);

class SwapWorld {
 public:
  explicit SwapWorld(const WorldConfig& c) : w(c), s(w.open(0)) {
    w.mm_config.readahead_max = 0;
    w.mm_config.resume_prefetch = 0;
  }
  // Pages [0, n) hold 100 + i, and are out.
  void fill(uint32_t n) {
    for (uint32_t i = 0; i < n; ++i) {
      ASSERT_EQ(w.write(s, 0, i, 100 + i).access, SimAccess::kDone);
    }
    w.mm->evict(s);
    w.settle();
  }
  void expect(uint32_t n) {
    for (uint32_t i = 0; i < n; ++i) {
      ASSERT_EQ(w.read(s, 0, i).value, 100 + i) << "page " << i;
    }
  }
  SwapArea& area(size_t i) { return *w.swap.areas()[i]; }
  Verdict verdict(size_t i) { return area(i).health().verdict(); }
  uint32_t out(const SwapArea& a) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < w.config.pages_a_lane; ++i) {
      const Page& p = w.page(s, 0, i);
      n += p.slot != 0 && SlotId(p.slot).area() == a.id() ? 1 : 0;
    }
    return n;
  }
  World w;
  AddressSpace& s;
};

}  // namespace kvmm::test
