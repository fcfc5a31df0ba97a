// SPDX-License-Identifier: Apache-2.0
//
// Steps that are bounded: what the core thread does so that it can look at faults between two maps.
#include <gtest/gtest.h>

#include "tests/model/world.h"

namespace kvmm::test {
namespace {

// The core thread's way of stepping: a page is mapped, then it looks at faults again.
TEST(Steps, ABoundedStepLeavesTheRestForTheNext) {
  WorldConfig config;
  config.planes = 1;
  World w(config);
  AddressSpace& s = w.open(0);
  constexpr uint32_t kPages = 6;
  for (uint32_t i = 0; i < kPages; ++i) {
    ASSERT_EQ(w.write(s, 0, i, i + 1).access, SimAccess::kDone);
  }
  w.mm->evict(s);
  w.settle();
  for (uint32_t i = 0; i < kPages; ++i) {
    ASSERT_FALSE(w.start_read(s, 0, i, i));
  }
  w.step();                      // takes the faults: all six are being read
  w.clock.advance(millis(500));  // and have arrived
  const auto mapped = [&] {
    uint32_t n = 0;
    for (uint32_t i = 0; i < kPages; ++i) {
      n += w.page(s, 0, i).place == Place::kMapped ? 1 : 0;
    }
    return n;
  };
  uint32_t before = 0;
  uint32_t bounded = 0;
  while (before < kPages) {
    w.mm->step(w.clock.now(), true, 1);
    const uint32_t now = mapped();
    ASSERT_LE(now, before + 1);
    if (now == before + 1 && now < kPages && w.mm->has_ready()) {
      ++bounded;
      EXPECT_NE(w.mm->next_due(), Tick(0)) << "it wants to be called again";
    }
    before = now;
    w.check();
    if (!w.mm->has_ready()) {
      w.clock.advance(millis(1));  // checksums take their time
    }
  }
  EXPECT_NE(bounded, 0u) << "several were ready at once, or nothing was tested";
  w.close(s);
}

}  // namespace
}  // namespace kvmm::test
