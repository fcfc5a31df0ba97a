// SPDX-License-Identifier: Apache-2.0
//
// Swap areas on the drivers that need no hardware.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "drivers/null/null_driver.h"
#include "drivers/sim/sim_disk.h"
#include "tests/unit/tiers/small_areas.h"

namespace kvmm {
namespace {

constexpr uint64_t kSeed = 20;

class SwapOnSim : public ::testing::Test {
 protected:
  SwapOnSim() : disk_(clock_, disk_config()) {
    config_ = config_of();
    config_.unit = kib(4);
    config_.extent = kib(64);
    config_.wait = [this] { ASSERT_TRUE(clock_.advance_to_alarm()) << "nothing is in flight"; };
  }
  static SimDiskConfig disk_config() {
    SimDiskConfig c;
    c.capacity = mib(1);
    c.seed = kSeed;
    return c;
  }
  SimClock clock_;
  SimDisk disk_;
  SwapAreaConfig config_;
};

TEST_F(SwapOnSim, OpensInVirtualTime) {
  const auto area = SwapArea::open(disk_, config_);
  ASSERT_TRUE(area.ok()) << area.error().message();
  EXPECT_GE(clock_.now(), micros(3 * 80)) << "read, write and flush took their time";
  EXPECT_EQ(disk_.unflushed(), 0U);
}

TEST_F(SwapOnSim, SuperblockSurvivesPowerLoss) {
  ASSERT_TRUE(SwapArea::open(disk_, config_).ok());
  disk_.power_loss();
  EXPECT_EQ(SwapArea::open(disk_, config_).code(), Errc::kDeviceGone);
  disk_.power_on();
  const auto area = SwapArea::open(disk_, config_);
  ASSERT_TRUE(area.ok()) << area.error().message();
  EXPECT_EQ((*area)->superblock().epoch, 2U);
}

TEST_F(SwapOnSim, RotInTheSuperblockIsSeen) {
  ASSERT_TRUE(SwapArea::open(disk_, config_).ok());
  const std::byte rot{0x99};
  disk_.poke(104, std::span(&rot, 1));
  EXPECT_EQ(SwapArea::open(disk_, config_).code(), Errc::kCorrupt);
}

TEST(SwapOnNull, FormatsWhatForgets) {
  DeviceInfo info;
  info.name = "null0";
  info.cls = DeviceClass::kBlock;
  info.bus = "null";
  info.capacity = mib(16);
  auto device = make_null_driver()->bind(info, nullptr);
  ASSERT_TRUE(device.ok()) << device.error().message();
  SwapAreaConfig c;
  c.name = "null0";
  const auto area = SwapArea::open(*(*device)->block(), c);
  ASSERT_TRUE(area.ok()) << area.error().message();
  EXPECT_EQ((*area)->capacity(), mib(14));
  EXPECT_EQ((*area)->allocate(mib(2))->unit(), 0U);
}

}  // namespace
}  // namespace kvmm
