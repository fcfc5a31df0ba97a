// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <vector>

#include "tests/unit/tiers/memory_devices.h"
#include "tests/unit/tiers/small_areas.h"

namespace kvmm {
namespace {

class SwapSpaceTest : public ::testing::Test {
 protected:
  SwapArea* add(const std::string& name, int32_t priority, uint64_t extents = 2) {
    disks_.push_back(std::make_unique<MemoryDisk>(capacity_for(extents)));
    auto a = SwapArea::open(*disks_.back(), config_of(name, priority));
    EXPECT_TRUE(a.ok());
    auto added = space_.add(std::move(*a));
    return added ? *added : nullptr;
  }
  std::vector<std::unique_ptr<MemoryDisk>> disks_;
  SwapSpace space_;
};

TEST_F(SwapSpaceTest, EmptyHasNoSpace) {
  EXPECT_TRUE(space_.empty());
  EXPECT_EQ(space_.allocate(kUnit).code(), Errc::kNoSpace);
  EXPECT_EQ(space_.find("swap0"), nullptr);
}

TEST_F(SwapSpaceTest, HigherPriorityFirstThenTheRest) {
  SwapArea* slow = add("slow", -5);
  SwapArea* fast = add("fast", 10);
  EXPECT_EQ(space_.areas()[0].get(), fast);
  EXPECT_EQ(&space_.area(*space_.allocate(kExtent)), fast);
  EXPECT_EQ(&space_.area(*space_.allocate(kExtent)), fast);
  const auto third = space_.allocate(kExtent);
  EXPECT_EQ(&space_.area(*third), slow);
  EXPECT_TRUE(space_.allocate(kExtent).ok());
  EXPECT_EQ(space_.allocate(kExtent).code(), Errc::kNoSpace);
  EXPECT_EQ(space_.allocate(Bytes(100)).code(), Errc::kInvalid);
  EXPECT_EQ(space_.used_bytes(), space_.capacity());
  space_.free(*third);
  EXPECT_EQ(slow->used_bytes(), kExtent);
}

TEST_F(SwapSpaceTest, EqualPrioritiesTakeTurns) {
  SwapArea* a = add("a", 1);
  SwapArea* b = add("b", 1);
  SwapArea* c = add("c", 1);
  for (int i = 0; i < 30; ++i) {
    ASSERT_TRUE(space_.allocate(kUnit).ok());
  }
  for (SwapArea* area : {a, b, c}) {
    EXPECT_EQ(area->used_bytes(), kUnit * 10) << area->config().name;
  }
  b->set_accepting(false);
  for (int i = 0; i < 12; ++i) {
    ASSERT_TRUE(space_.allocate(kUnit).ok());
  }
  EXPECT_EQ(b->used_bytes(), kUnit * 10);
  EXPECT_EQ(a->used_bytes() + c->used_bytes(), kUnit * 32);
}

TEST_F(SwapSpaceTest, EachSizeTakesItsOwnTurns) {
  SwapArea* a = add("a", 1, 20);
  SwapArea* b = add("b", 1, 20);
  for (int i = 0; i < 8; ++i) {  // large and small alternate: else one area had all large ones
    ASSERT_TRUE(space_.allocate(kExtent).ok());
    ASSERT_TRUE(space_.allocate(kUnit).ok());
  }
  EXPECT_EQ(a->used_bytes(), b->used_bytes());
  // One that comes later begins with one slot, not with all that the others have had.
  SwapArea* c = add("c", 1, 20);
  std::vector<uint8_t> given;
  for (int i = 0; i < 6; ++i) {
    given.push_back(space_.allocate(kUnit)->area());
  }
  EXPECT_EQ(given, (std::vector<uint8_t>{c->id(), a->id(), b->id(), c->id(), a->id(), b->id()}));
}

TEST_F(SwapSpaceTest, NeighboursLieSideBySideOnEveryDevice) {
  SwapArea* a = add("a", 1);
  SwapArea* b = add("b", 1);
  for (uint64_t i = 0; i < 8; ++i) {
    const auto s = space_.allocate(kUnit);
    ASSERT_TRUE(s.ok());
    EXPECT_EQ(s->area(), i % 2 == 0 ? a->id() : b->id());
    EXPECT_EQ(s->unit(), i / 2);
  }
}

TEST_F(SwapSpaceTest, ASlowAreaComesBehindItsEquals) {
  SwapArea* a = add("a", 1);
  SwapArea* b = add("b", 1);
  SwapArea* low = add("low", 0);
  BlockRequest io;
  for (int i = 0; i < 20; ++i) {
    a->health().started(io, Tick(0));
    a->health().finished(io, millis(300));
  }
  ASSERT_TRUE(a->health().judge(millis(300), {millis(100), millis(10000), 16}));
  for (int i = 0; i < 32; ++i) {
    EXPECT_EQ(space_.allocate(kUnit)->area(), b->id());
  }
  EXPECT_EQ(space_.allocate(kUnit)->area(), a->id()) << "before a lower priority";
  EXPECT_EQ(low->used_bytes(), Bytes(0));
}

TEST_F(SwapSpaceTest, WhoGrowsIsWaitedForOnlyIfNobodyElseHasRoom) {
  disks_.push_back(std::make_unique<MemoryDisk>(0));
  disks_.back()->grows = true;
  disks_.back()->grows_to = Bytes(capacity_for(8));
  SwapAreaConfig c = config_of("file", 5);
  c.size = disks_.back()->grows_to;
  auto opened = SwapArea::open(*disks_.back(), c);
  ASSERT_TRUE(opened.ok());
  SwapArea* file = *space_.add(std::move(*opened));
  EXPECT_EQ(space_.allocate(kUnit).code(), Errc::kAgain);
  SwapArea* low = add("low", 0, 1);
  for (int i = 0; i < 16; ++i) {
    EXPECT_EQ(space_.allocate(kUnit)->area(), low->id());
  }
  EXPECT_EQ(space_.allocate(kUnit).code(), Errc::kAgain) << "full is not the last word";
  EXPECT_EQ(space_.allocate(Bytes(100)).code(), Errc::kInvalid);
  Growth g;
  ASSERT_TRUE(file->take_growth(Tick(0), &g));
  file->grew(g, Errc::kOk, Tick(0));
  EXPECT_EQ(space_.allocate(kUnit)->area(), file->id());
}

TEST_F(SwapSpaceTest, FoundByPathOrNameAndOnce) {
  SwapArea* a = add("a", 1);
  EXPECT_EQ(space_.find("/swap/a"), a);
  EXPECT_EQ(space_.find("a"), a);
  disks_.push_back(std::make_unique<MemoryDisk>(capacity_for(2)));
  auto twin = SwapArea::open(*disks_.back(), config_of("a"));
  ASSERT_TRUE(twin.ok());
  EXPECT_EQ(space_.add(std::move(*twin)).code(), Errc::kExists);
  EXPECT_EQ(space_.areas().size(), 1U);
}

TEST_F(SwapSpaceTest, RemoveOnlyWhatIsIdle) {
  SwapArea* a = add("a", 1);
  SwapArea* b = add("b", 0);
  const auto s = space_.allocate(kExtent);
  EXPECT_EQ(space_.remove(*a).code(), Errc::kBusy);
  space_.free(*s);
  Discard d;
  ASSERT_EQ(a->take_discards(std::span(&d, 1)), 1U);
  EXPECT_EQ(space_.remove(*a).code(), Errc::kBusy);
  a->discarded(d);
  const uint8_t id = a->id();
  auto out = space_.remove(*a);
  ASSERT_TRUE(out.ok());
  EXPECT_EQ(space_.find("a"), nullptr);
  EXPECT_EQ(space_.remove(**out).code(), Errc::kNotFound);
  EXPECT_EQ(&space_.area(*space_.allocate(kUnit)), b);
  EXPECT_EQ(add("c", 3)->id(), id) << "the number is free again";
}

TEST_F(SwapSpaceTest, TwoHundredFiftyFiveAreas) {
  for (int i = 0; i < 255; ++i) {
    SwapArea* a = add("s" + std::to_string(i), 0, 1);
    ASSERT_NE(a, nullptr);
    ASSERT_EQ(a->id(), i + 1);
  }
  EXPECT_EQ(add("one too many", 0, 1), nullptr);
  std::set<uint8_t> used;
  for (int i = 0; i < 255; ++i) {
    used.insert(space_.allocate(kUnit)->area());
  }
  EXPECT_EQ(used.size(), 255U);
}

}  // namespace
}  // namespace kvmm
