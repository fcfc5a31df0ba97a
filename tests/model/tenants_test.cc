// SPDX-License-Identifier: Apache-2.0
//
// Whose bytes may be in a frame, end to end: what one tenant left in it is never taken for another
// tenant's, and is gone before another one's page is in it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "tests/model/world.h"

namespace kvmm::test {
namespace {

constexpr uint32_t kA = 1, kB = 2;

class Tenants : public ::testing::Test {
 protected:
  static WorldConfig one_frame() {
    WorldConfig c;
    c.frames = 1;
    c.planes = 1;
    c.stacked_disk = true;
    return c;
  }
  void SetUp() override {
    world_.mm_config.zero_ahead = 0;
    world_.mm_config.readahead_max = 0;
    world_.mm_config.resume_prefetch = 0;
  }
  // The one frame holds a page of tenant A, who goes.
  void leave_bytes_of_a() {
    AddressSpace& a = world_.open(0, ObjectKind::kRaw, kA);
    ASSERT_EQ(world_.write(a, 0, 0, 0xaaaa).access, SimAccess::kDone);
    frame_ = world_.page(a, 0, 0).frame;
    EXPECT_EQ(frame_->tenant, kA);
    world_.close(a);
    ASSERT_EQ(frame_->page, nullptr);
    ASSERT_EQ(frame_->tenant, kA) << "they are still in it";
    ASSERT_FALSE(frame_->zeroed);
  }
  // A page of tenant B that is in a slot.
  AddressSpace& swapped_page_of_b() {
    AddressSpace& b = world_.open(1, ObjectKind::kRaw, kB);
    EXPECT_EQ(world_.write(b, 0, 0, 0xbbbb).access, SimAccess::kDone);
    world_.mm->evict(b);
    world_.settle();
    return b;
  }
  bool holds_bytes_of_a() const {
    std::array<std::byte, 8> mine{};
    const uint64_t value = 0xaaaa;
    std::memcpy(mine.data(), &value, 8);
    const auto* bytes = reinterpret_cast<const std::byte*>(frame_->addr.value());
    return std::search(bytes, bytes + frame_->size().value(), mine.begin(), mine.end()) !=
           bytes + frame_->size().value();
  }

  World world_{one_frame()};
  Frame* frame_ = nullptr;
};

TEST_F(Tenants, AZeroFillScrubsTheFrameBeforeItIsMapped) {
  leave_bytes_of_a();
  ASSERT_TRUE(holds_bytes_of_a());
  AddressSpace& b = world_.open(1, ObjectKind::kRaw, kB);
  EXPECT_EQ(world_.read(b, 0, 5).value, 0u);
  ASSERT_EQ(world_.page(b, 0, 5).frame, frame_);
  EXPECT_FALSE(holds_bytes_of_a());
  EXPECT_EQ(frame_->tenant, kB);
  world_.close(b);
  EXPECT_EQ(frame_->tenant, kB) << "and not A's again";
}

TEST_F(Tenants, AReadThatSucceedsLeavesNothingOfTheOther) {
  AddressSpace& b = swapped_page_of_b();
  leave_bytes_of_a();
  EXPECT_EQ(world_.read(b, 0, 0).value, 0xbbbbu);
  ASSERT_EQ(world_.page(b, 0, 0).frame, frame_);
  EXPECT_FALSE(holds_bytes_of_a());
  EXPECT_EQ(frame_->tenant, kB);
}

TEST_F(Tenants, AReadThatFailsLeavesAFrameThatFitsNobody) {
  AddressSpace& b = swapped_page_of_b();
  leave_bytes_of_a();
  ErrorRule rule;
  rule.ops = mask_of(BlockOp::kRead);
  rule.count = 2;
  ASSERT_TRUE(world_.errors->add_rule(rule).ok());
  EXPECT_EQ(world_.read(b, 0, 0).access, SimAccess::kPoisoned);
  ASSERT_EQ(frame_->page, nullptr);
  EXPECT_EQ(frame_->tenant, kTenantMixed) << "perhaps A's bytes, perhaps half of B's page";
  EXPECT_FALSE(frame_->zeroed);

  EXPECT_EQ(world_.read(b, 0, 5).value, 0u);
  EXPECT_EQ(frame_->tenant, kB);
  EXPECT_FALSE(holds_bytes_of_a());
  world_.check();
}

}  // namespace
}  // namespace kvmm::test
