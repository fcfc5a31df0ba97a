// SPDX-License-Identifier: Apache-2.0
#include "tiers/zonelist.h"

#include <gtest/gtest.h>

#include "tests/unit/tiers/memory_devices.h"

namespace kvmm {
namespace {

class ZonelistTest : public testing::Test {
 protected:
  // Two tiers of 8 MiB; the near one keeps 2 MiB for those who cannot wait.
  std::unique_ptr<TierTable> make() {
    std::vector<TierDescription> d(2);
    for (size_t i = 0; i < d.size(); ++i) {
      d[i].name = i == 0 ? "dram" : "slow";
      d[i].rank = static_cast<uint32_t>(i);
      d[i].node = NodeId(static_cast<uint16_t>(i));
      d[i].capacity = mib(8);
      d[i].mmu = &mmu_;
      d[i].watermarks = Watermarks{mib(1), i == 0 ? mib(2) : mib(1), mib(3)};
    }
    auto table = TierTable::create(d);
    EXPECT_TRUE(table.ok()) << table.error().message();
    return *std::move(table);
  }
  AddressMmu mmu_;
};

TEST_F(ZonelistTest, NearFramesFirstThenSlowOnesThenTheReserve) {
  const auto table = make();
  Zonelist zones(*table);
  EXPECT_EQ(zones.capacity(), mib(16));
  EXPECT_EQ(zones.watermarks().low, mib(3));
  std::vector<Frame*> frames;
  std::string order;
  while (Frame* f = zones.allocate(kPageSizeMax, false, 1)) {
    frames.push_back(f);
    order += std::to_string(f->tier.value());
  }
  EXPECT_EQ(order, "00011101") << "3 of dram, 3 of slow, then what was kept: dram's, slow's";
  EXPECT_EQ(zones.free_bytes(), Bytes(0));
  EXPECT_TRUE(zones.below_min());
  EXPECT_EQ(zones.class_stats(kPageSizeMax).used, 8U);
  for (Frame* f : frames) {
    zones.free(*f, false);
  }
  EXPECT_EQ(table->tier(TierId(0)).pool().free_bytes(), mib(8)) << "each to its own pool";
  EXPECT_EQ(table->tier(TierId(1)).pool().free_bytes(), mib(8));
  EXPECT_EQ(zones.free_blocks(), 8U);
  EXPECT_FALSE(zones.below_low());
  zones.check_invariants();
}

TEST_F(ZonelistTest, ZeroingGoesThroughAllPools) {
  const auto table = make();
  Zonelist zones(*table);
  std::vector<Frame*> all;
  while (Frame* f = zones.allocate(kPageSizeMax, false, 1)) {
    all.push_back(f);
  }
  for (Frame* f : all) {
    zones.free(*f, false);
  }
  std::vector<Frame*> working;
  while (Frame* f = zones.take_to_zero(kPageSizeMax)) {
    working.push_back(f);
  }
  EXPECT_EQ(working.size(), 8U);
  EXPECT_EQ(zones.zeroed_bytes(), Bytes(0));
  for (Frame* f : working) {
    zones.put_back(*f, true);
  }
  EXPECT_EQ(zones.zeroed_bytes(), mib(16));
}

TEST_F(ZonelistTest, FixedFramesAreTheFirstTiers) {
  mmu_.fixed = true;
  const auto table = make();
  Zonelist zones(*table);
  EXPECT_EQ(zones.capacity(), mib(8)) << "a frame that belongs to its address has no node";
  Frame* f = zones.allocate_fixed(FrameAddr(uint64_t{1} << 30), mib(2), 1);
  ASSERT_NE(f, nullptr);
  EXPECT_EQ(f->tier, TierId(0));
  EXPECT_EQ(zones.used_bytes(), mib(2));
  zones.free(*f, true);
  EXPECT_EQ(zones.free_bytes(), mib(8));
}

using ZonelistDeathTest = ZonelistTest;

TEST_F(ZonelistDeathTest, TiersOfTwoDevicesAreNoList) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  AddressMmu other;
  std::vector<TierDescription> d(2);
  for (size_t i = 0; i < d.size(); ++i) {
    d[i].name = std::to_string(i);
    d[i].capacity = mib(8);
    d[i].mmu = i == 0 ? &mmu_ : &other;
  }
  const auto table = TierTable::create(d);
  ASSERT_TRUE(table.ok());
  EXPECT_DEATH(Zonelist zones(**table), "one MMU");
}

}  // namespace
}  // namespace kvmm
