// SPDX-License-Identifier: Apache-2.0
#include "tiers/frame_pool.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/unit/tiers/memory_devices.h"

namespace kvmm {
namespace {

// Blocks of 4 KiB with pages from 256 bytes: 16 to a block.
constexpr Bytes kBlock = Bytes(4096);
constexpr Bytes kSmall = Bytes(256);
constexpr uint32_t kA = 1;
constexpr uint32_t kB = 2;

FramePoolConfig config_of(uint64_t blocks, bool comes_zeroed) {
  FramePoolConfig c;
  c.tier = TierId(3);
  c.node = NodeId(1);
  c.block_size = kBlock;
  c.page_size_min = kSmall;
  c.capacity = kBlock * blocks;
  c.comes_zeroed = comes_zeroed;
  return c;
}

class FramePoolTest : public ::testing::Test {
 protected:
  void make(uint64_t blocks, bool comes_zeroed) {
    auto p = FramePool::create(mmu_, config_of(blocks, comes_zeroed));
    ASSERT_TRUE(p.ok()) << p.error().message();
    pool_ = std::move(*p);
  }
  void TearDown() override {
    if (pool_) {
      pool_->check_invariants();
    }
  }
  AddressMmu mmu_;
  std::unique_ptr<FramePool> pool_;
};

TEST(Watermarks, OrderIsChecked) {
  EXPECT_TRUE((Watermarks{Bytes(1), Bytes(2), Bytes(3)}.validate(Bytes(3)).ok()));
  EXPECT_TRUE(Watermarks{}.validate(Bytes(0)).ok());
  EXPECT_EQ((Watermarks{Bytes(3), Bytes(2), Bytes(3)}.validate(Bytes(9)).code()), Errc::kInvalid);
  EXPECT_EQ((Watermarks{Bytes(1), Bytes(4), Bytes(3)}.validate(Bytes(9)).code()), Errc::kInvalid);
  EXPECT_EQ((Watermarks{Bytes(1), Bytes(2), Bytes(4)}.validate(Bytes(3)).code()), Errc::kInvalid);
}

TEST_F(FramePoolTest, ABlockIsCarvedOnceAndItsBytesAreWhatTheDeviceSays) {
  make(1, true);
  mmu_.keeps_carved = false;
  Frame* f = pool_->allocate(kSmall, true, kA);
  ASSERT_NE(f, nullptr);
  EXPECT_EQ(mmu_.carves, 1);
  EXPECT_FALSE(f->zeroed) << "the device has written to it";
  EXPECT_EQ(pool_->class_stats(kSmall).zeroed, 0u);
  pool_->scrubbed(*f, kA);
  pool_->free(*f, true);  // the block is free again, and still in small pieces
  f = pool_->allocate(kSmall, true, kA);
  EXPECT_EQ(mmu_.carves, 1);
  pool_->free(*f, true);
  Frame* block = pool_->take_to_rebuild();
  ASSERT_NE(block, nullptr);
  pool_->put_back(*block, true);  // one piece again
  f = pool_->allocate(kSmall, true, kB);
  EXPECT_EQ(mmu_.carves, 2);
  pool_->free(*f, false);
}

TEST_F(FramePoolTest, ADeviceThatKeepsTheBytesKeepsTheZeros) {
  make(1, true);
  Frame* f = pool_->allocate(kSmall, true, kA);
  EXPECT_EQ(mmu_.carves, 1);
  EXPECT_TRUE(f->zeroed);
  pool_->free(*f, true);
}

TEST(Watermarks, EdgesAreExact) {
  const Watermarks w{Bytes(10), Bytes(20), Bytes(30)};
  EXPECT_TRUE(w.below_min(Bytes(9)));
  EXPECT_FALSE(w.below_min(Bytes(10)));
  EXPECT_TRUE(w.below_low(Bytes(19)));
  EXPECT_FALSE(w.below_low(Bytes(20)));
  EXPECT_FALSE(w.above_high(Bytes(29)));
  EXPECT_TRUE(w.above_high(Bytes(30)));
}

TEST(Watermarks, DefaultsFitAnyCapacity) {
  for (const uint64_t c : {uint64_t{0}, uint64_t{1}, uint64_t{4096}, uint64_t{1} << 50}) {
    EXPECT_TRUE(Watermarks::defaults(Bytes(c)).validate(Bytes(c)).ok()) << c;
  }
  EXPECT_EQ(Watermarks::defaults(gib(128)).min, gib(1));
}

TEST(FramePoolConfig, RefusesWhatCannotBe) {
  const auto refused = [](auto change) {
    FramePoolConfig c = config_of(4, true);
    EXPECT_TRUE(c.validate().ok());
    change(c);
    AddressMmu mmu;
    const auto pool = FramePool::create(mmu, c);
    EXPECT_EQ(mmu.areas, 0);
    return pool.code();
  };
  EXPECT_EQ(refused([](auto& c) { c.capacity = Bytes(0); }), Errc::kInvalid);
  EXPECT_EQ(refused([](auto& c) { c.capacity = kBlock + Bytes(1); }), Errc::kInvalid);
  EXPECT_EQ(refused([](auto& c) { c.capacity = Bytes(uint64_t{1} << 62); }), Errc::kInvalid);
  EXPECT_EQ(refused([](auto& c) { c.block_size = Bytes(0); }), Errc::kInvalid);
  EXPECT_EQ(refused([](auto& c) { c.block_size = Bytes(3000); }), Errc::kInvalid);
  EXPECT_EQ(refused([](auto& c) { c.page_size_min = Bytes(0); }), Errc::kInvalid);
  EXPECT_EQ(refused([](auto& c) { c.page_size_min = Bytes(4); }), Errc::kInvalid);  // 1024 a block
  EXPECT_EQ(refused([](auto& c) { c.page_size_min = Bytes(8192); }), Errc::kInvalid);
}

TEST(FramePool, DeviceErrorsComeThroughAndFramesGoBack) {
  AddressMmu mmu;
  mmu.fail = Errc::kNoMemory;
  EXPECT_EQ(FramePool::create(mmu, config_of(4, true)).code(), Errc::kNoMemory);
  mmu.fail = Errc::kOk;
  {
    auto pool = FramePool::create(mmu, config_of(4, true));
    ASSERT_TRUE(pool.ok());
    EXPECT_EQ(mmu.areas, 1);
    EXPECT_EQ(mmu.asked_node, NodeId(1));
  }
  EXPECT_EQ(mmu.areas, 0);
}

TEST_F(FramePoolTest, LowestAddressFirstAndDescribed) {
  make(2, true);
  Frame* f = pool_->allocate(kSmall, true, kA);
  ASSERT_NE(f, nullptr);
  EXPECT_EQ(f->addr, FrameAddr(uint64_t{1} << 40));
  EXPECT_EQ(f->size(), kSmall);
  EXPECT_EQ(f->tier, TierId(3));
  EXPECT_EQ(f->tenant, kA);
  EXPECT_TRUE(f->zeroed);
  Frame* g = pool_->allocate(kSmall, true, kA);
  EXPECT_EQ(g->addr, f->addr + kSmall);
  EXPECT_EQ(pool_->used_in_block(*f), 2U);
  EXPECT_TRUE(pool_->is_used(*f));
  uint32_t seen = 0;
  pool_->for_each_frame_in_block(*g, [&](Frame& x) { seen += pool_->is_used(x) ? 100 : 1; });
  EXPECT_EQ(seen, 214U);
  pool_->free(*f, true);
  EXPECT_FALSE(pool_->is_used(*f));
  pool_->free(*g, true);
  EXPECT_EQ(pool_->used_bytes(), Bytes(0));
}

TEST_F(FramePoolTest, FullIsNullAndFreeHeals) {
  make(2, true);
  std::vector<Frame*> out;
  while (Frame* f = pool_->allocate(Bytes(1024), true, kA)) {
    out.push_back(f);
  }
  EXPECT_EQ(out.size(), 8U);
  EXPECT_EQ(pool_->free_bytes(), Bytes(0));
  EXPECT_EQ(pool_->allocate(kSmall, true, kA), nullptr);
  EXPECT_EQ(pool_->allocate(kBlock, true, kA), nullptr);
  pool_->free(*out[3], false);
  EXPECT_EQ(pool_->allocate(kSmall, true, kA), nullptr) << "the block is carved in 1 KiB frames";
  EXPECT_EQ(pool_->allocate(Bytes(1024), false, kA), out[3]);
}

TEST_F(FramePoolTest, BlocksCoalesceAndStaySplit) {
  make(2, true);
  Frame* a = pool_->allocate(kSmall, true, kA);
  EXPECT_EQ(pool_->free_blocks(), 1U);
  EXPECT_EQ(pool_->split_blocks(), 1U);
  EXPECT_EQ(pool_->class_stats(kSmall).blocks, 1U);
  EXPECT_EQ(pool_->free_bytes(kSmall), kSmall * 15);
  pool_->free(*a, true);
  EXPECT_EQ(pool_->free_blocks(), 2U);
  EXPECT_EQ(pool_->stats().coalesced, 1U);
  EXPECT_EQ(pool_->class_stats(kBlock).zeroed, 2U) << "all its pieces were zeroed";
  // The whole block is preferred; the split one is counted.
  Frame* b = pool_->allocate(kBlock, true, kA);
  EXPECT_EQ(pool_->stats().split_taken, 0U);
  Frame* c = pool_->allocate(kBlock, true, kA);
  ASSERT_NE(c, nullptr);
  EXPECT_EQ(pool_->stats().split_taken, 1U);
  EXPECT_EQ(c->addr, a->addr);
  EXPECT_NE(b->addr, c->addr);
}

TEST_F(FramePoolTest, SmallFramesSpareWholeBlocks) {
  make(3, true);
  pool_->free(*pool_->allocate(kSmall, true, kA), true);  // block 0 is split now
  Frame* f = pool_->allocate(Bytes(512), true, kA);
  EXPECT_EQ(f->block, 0U);
  EXPECT_EQ(pool_->split_blocks(), 1U);
}

TEST_F(FramePoolTest, PartlyUsedBlocksBeforeFreeOnes) {
  make(3, true);
  Frame* f = pool_->allocate(kSmall, true, kA);
  for (int i = 1; i < 16; ++i) {
    EXPECT_EQ(pool_->allocate(kSmall, true, kA)->block, f->block);
  }
  EXPECT_NE(pool_->allocate(kSmall, true, kA)->block, f->block);
}

TEST_F(FramePoolTest, ZeroedOrDirtyAsWanted) {
  make(2, true);
  Frame* a = pool_->allocate(kSmall, true, kA);
  Frame* keep = pool_->allocate(kSmall, true, kA);
  pool_->free(*a, false);
  EXPECT_EQ(a->tenant, kA);
  Frame* dirty = pool_->allocate(kSmall, false, kA);
  EXPECT_EQ(dirty, a) << "a read overwrites: the dirty one will do";
  EXPECT_FALSE(dirty->zeroed);
  pool_->free(*dirty, false);
  Frame* clean = pool_->allocate(kSmall, true, kA);
  EXPECT_NE(clean, a);
  EXPECT_TRUE(clean->zeroed);
  EXPECT_EQ(keep->block, clean->block);
}

TEST_F(FramePoolTest, WantedZeroedFallsBackToDirty) {
  make(1, false);
  Frame* f = pool_->allocate(kBlock, true, kA);
  ASSERT_NE(f, nullptr);
  EXPECT_FALSE(f->zeroed);
  EXPECT_EQ(pool_->stats().foreign_taken, 0U) << "a fresh frame is nobody's";
}

TEST_F(FramePoolTest, AnotherTenantsDirtyFrameIsNeverGivenUnzeroed) {
  make(1, true);
  Frame* f = pool_->allocate(kBlock, false, kA);
  pool_->free(*f, false);
  ASSERT_EQ(pool_->allocate(kBlock, false, kB), nullptr);
  ASSERT_EQ(pool_->allocate(kSmall, false, kB), nullptr);
  Frame* g = pool_->allocate(kBlock, true, kB);
  ASSERT_EQ(g, f);
  EXPECT_FALSE(g->zeroed) << "the caller must scrub it";
  EXPECT_EQ(pool_->stats().foreign_taken, 1U);
  // Given back unscrubbed it has A's bytes and B's tag would be a lie: it fits neither.
  pool_->free(*g, false);
  ASSERT_EQ(pool_->allocate(kBlock, false, kB), nullptr);
  ASSERT_EQ(pool_->allocate(kBlock, false, kA), nullptr);
  g = pool_->allocate(kBlock, true, kB);
  ASSERT_EQ(g, f);
  pool_->scrubbed(*g, kB);
  pool_->free(*g, false);
  ASSERT_EQ(pool_->allocate(kBlock, false, kA), nullptr);
  ASSERT_EQ(pool_->allocate(kBlock, false, kB), g);
}

TEST_F(FramePoolTest, CoalescedBlockOfTwoTenantsFitsNeither) {
  make(1, true);
  Frame* a = pool_->allocate(kSmall, true, kA);
  Frame* b = pool_->allocate(kSmall, true, kB);
  pool_->free(*a, false);
  pool_->free(*b, false);
  EXPECT_EQ(pool_->free_blocks(), 1U);
  EXPECT_EQ(pool_->allocate(kBlock, false, kA), nullptr);
  EXPECT_EQ(pool_->allocate(kSmall, false, kB), nullptr);
  EXPECT_NE(pool_->allocate(kSmall, true, kB), nullptr);
}

TEST_F(FramePoolTest, CoalescedBlockOfOneTenantStaysItsOwn) {
  make(1, true);
  Frame* a = pool_->allocate(kSmall, true, kA);
  Frame* b = pool_->allocate(kSmall, true, kA);
  pool_->free(*a, false);
  pool_->free(*b, true);
  EXPECT_EQ(pool_->allocate(kBlock, false, kB), nullptr);
  EXPECT_NE(pool_->allocate(kBlock, false, kA), nullptr);
}

TEST_F(FramePoolTest, TenantsThatShareABucketAreToldApart) {
  make(2, true);
  Frame* a = pool_->allocate(kBlock, true, 5);
  Frame* b = pool_->allocate(kBlock, true, 21);  // 5 + 16
  pool_->free(*b, false);
  pool_->free(*a, false);  // in front
  EXPECT_EQ(pool_->allocate(kBlock, false, 37), nullptr);
  EXPECT_EQ(pool_->allocate(kBlock, false, 21), b);
  EXPECT_EQ(pool_->allocate(kBlock, false, 5), a);
}

TEST_F(FramePoolTest, ZeroAheadTakesDirtyFramesOnly) {
  make(2, true);
  EXPECT_EQ(pool_->take_to_zero(kBlock), nullptr);
  EXPECT_EQ(pool_->take_to_zero(kSmall), nullptr);
  Frame* a = pool_->allocate(kSmall, true, kA);
  Frame* keep = pool_->allocate(kSmall, true, kA);
  pool_->free(*a, false);
  EXPECT_EQ(pool_->take_to_zero(kSmall), a);
  EXPECT_TRUE(a->working);
  EXPECT_EQ(pool_->take_to_zero(kSmall), nullptr);
  EXPECT_EQ(pool_->working_bytes(), kSmall);
  pool_->check_invariants();
  pool_->free(*keep, true);
  EXPECT_EQ(pool_->free_blocks(), 1U) << "a worker is still on one frame";
  pool_->put_back(*a, true);
  EXPECT_EQ(pool_->free_blocks(), 2U);
  EXPECT_EQ(pool_->zeroed_bytes(), kBlock * 2);
}

TEST_F(FramePoolTest, FailedZeroingKeepsTheTag) {
  make(1, true);
  Frame* a = pool_->allocate(kBlock, true, kA);
  pool_->free(*a, false);
  ASSERT_EQ(pool_->take_to_zero(kBlock), a);
  EXPECT_EQ(pool_->allocate(kBlock, true, kA), nullptr) << "a worker has it";
  pool_->put_back(*a, false);
  EXPECT_EQ(pool_->allocate(kBlock, false, kB), nullptr);
  EXPECT_EQ(pool_->allocate(kBlock, false, kA), a);
}

TEST_F(FramePoolTest, RebuildMakesWhole) {
  make(1, true);
  ASSERT_EQ(pool_->take_to_rebuild(), nullptr);
  pool_->free(*pool_->allocate(kSmall, true, kA), false);
  Frame* f = pool_->take_to_rebuild();
  ASSERT_NE(f, nullptr);
  EXPECT_EQ(f->size(), kBlock);
  EXPECT_TRUE(f->working);
  pool_->check_invariants();
  pool_->put_back(*f, false);
  EXPECT_EQ(pool_->split_blocks(), 1U) << "the work failed";
  f = pool_->take_to_rebuild();
  ASSERT_NE(f, nullptr);
  pool_->put_back(*f, true);
  EXPECT_EQ(pool_->split_blocks(), 0U);
  EXPECT_EQ(pool_->stats().rebuilt, 1U);
  ASSERT_EQ(pool_->take_to_rebuild(), nullptr);
  EXPECT_TRUE(pool_->allocate(kBlock, true, kB)->zeroed);
}

TEST_F(FramePoolTest, FrameThatLostItsHugePageIsRebuiltLater) {
  make(1, true);
  Frame* f = pool_->allocate(kBlock, true, kA);
  pool_->mark_split(*f);
  pool_->mark_split(*f);
  EXPECT_EQ(pool_->split_blocks(), 1U);
  pool_->free(*f, false);
  EXPECT_EQ(pool_->take_to_rebuild(), f);
  pool_->put_back(*f, true);
  EXPECT_EQ(pool_->split_blocks(), 0U);
}

TEST(FramePool, DefaultsHoldTwoMebibyteBlocks) {
  AddressMmu mmu;
  FramePoolConfig c;
  c.capacity = gib(1);
  auto pool = FramePool::create(mmu, c);
  ASSERT_TRUE(pool.ok());
  std::vector<Frame*> frames;
  for (uint32_t i = 0; i < 512; ++i) {
    frames.push_back((*pool)->allocate(kPageSizeMin, true, kA));
  }
  EXPECT_EQ((*pool)->free_blocks(), 511U);
  EXPECT_EQ((*pool)->used_in_block(*frames[0]), 512U);
  for (Frame* f : frames) {
    (*pool)->free(*f, false);
  }
  EXPECT_EQ((*pool)->free_blocks(), 512U);
  (*pool)->check_invariants();
}

TEST(FixedFramePool, IsABudget) {
  AddressMmu mmu;
  mmu.fixed = true;
  auto made = FramePool::create(mmu, config_of(1, true));
  ASSERT_TRUE(made.ok());
  FramePool& pool = **made;
  EXPECT_TRUE(pool.fixed());
  EXPECT_EQ(mmu.areas, 0) << "the device makes such frames itself";
  std::vector<Frame*> out;
  for (uint64_t i = 0; i < 16; ++i) {
    Frame* f = pool.allocate_fixed(FrameAddr(0x1000 + i * 256), kSmall, kA);
    ASSERT_NE(f, nullptr) << i;
    EXPECT_EQ(f->addr, FrameAddr(0x1000 + i * 256));
    EXPECT_EQ(pool.used_in_block(*f), 1U);
    out.push_back(f);
  }
  EXPECT_EQ(pool.allocate_fixed(FrameAddr(0x9000), kSmall, kA), nullptr);
  EXPECT_EQ(pool.free_bytes(), Bytes(0));
  pool.check_invariants();
  for (int i = 0; i < 4; ++i) {
    pool.free(*out[static_cast<size_t>(i)], true);
  }
  EXPECT_EQ(pool.allocate_fixed(FrameAddr(0x9000), Bytes(2048), kA), nullptr);
  Frame* f = pool.allocate_fixed(FrameAddr(0x9000), Bytes(1024), kB);
  ASSERT_NE(f, nullptr);
  EXPECT_TRUE(pool.is_used(*f));
  uint32_t seen = 0;
  pool.for_each_frame_in_block(*f, [&](Frame& x) { seen += &x == f ? 1 : 100; });
  EXPECT_EQ(seen, 1U);
  EXPECT_EQ(pool.class_stats(Bytes(1024)).used, 1U);
  pool.check_invariants();
  pool.free(*f, true);
  EXPECT_FALSE(pool.is_used(*f));
  EXPECT_EQ(pool.used_bytes(), kSmall * 12);
}

using FramePoolDeathTest = FramePoolTest;

TEST_F(FramePoolDeathTest, MisuseStops) {
  make(2, true);
  Frame* f = pool_->allocate(kSmall, true, kA);
  Frame* keep = pool_->allocate(kSmall, true, kA);
  EXPECT_DEATH(pool_->allocate(Bytes(300), true, kA), "power of two");
  EXPECT_DEATH(pool_->allocate(Bytes(128), true, kA), "size of this pool");
  EXPECT_DEATH(pool_->allocate(kSmall, true, kTenantNobody), "for a tenant");
  EXPECT_DEATH(pool_->allocate(kSmall, true, kTenantMixed), "for a tenant");
  EXPECT_DEATH(pool_->allocate_fixed(f->addr, kSmall, kA), "frames of its own");
  EXPECT_DEATH(pool_->put_back(*f, true), "worked on");
  pool_->free(*f, true);
  EXPECT_DEATH(pool_->free(*f, true), "in use");
  keep->page = reinterpret_cast<Page*>(&pool_);
  EXPECT_DEATH(pool_->free(*keep, true), "no page");
  keep->page = nullptr;
}

}  // namespace
}  // namespace kvmm
