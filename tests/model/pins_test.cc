// SPDX-License-Identifier: Apache-2.0
//
// Pins: what a batch is answered, how pins count, and when fences let pages go.
#include <gtest/gtest.h>

#include "tests/model/world.h"

namespace kvmm::test {
namespace {

WorldConfig pinning(uint32_t frames) {
  WorldConfig c;
  c.frames = frames;
  c.planes = 1;
  c.lanes = 4;
  c.swap = mib(4);
  c.engine = EngineKind::kPinning;
  c.stacked_disk = true;
  return c;
}

WorldConfig without_swap(uint32_t frames) {
  WorldConfig c = pinning(frames);
  c.swap = Bytes(0);
  c.stacked_disk = false;
  return c;
}

PinRange range(AddressSpace& s, uint32_t begin, uint32_t end, bool write = false) {
  PinRange r;
  r.space = &s;
  r.write = write;
  r.spans.push_back({s.planes()[0].object.get(), begin, end});
  return r;
}

// A batch that is unpinned at the latest when the test ends.
struct Pinned {
  Pinned(World& world, std::vector<PinRange> ranges) : w(world) {
    batch.ranges = std::move(ranges);
    batch.settled = [](void* me) { ++static_cast<Pinned*>(me)->settled; };
    batch.context = this;
    result = w.mm->pin(batch, w.clock.now());
    w.step();
  }
  ~Pinned() { unpin(); }
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;

  PinAnswer answer(size_t i = 0) {
    w.mm->pin_poll(batch);
    return batch.ranges[i].answer;
  }
  void unpin(const Fence& fence = {}) {
    if (batch.pinned) {
      EXPECT_TRUE(w.mm->unpin(batch, fence).ok());
      w.step();
    }
  }
  World& w;
  PinBatch batch;
  Result<void> result;
  int settled = 0;
};

void fill(World& w, AddressSpace& s, uint32_t n) {
  for (uint32_t i = 0; i < n; ++i) {
    ASSERT_EQ(w.write(s, 0, i, 100 + i).access, SimAccess::kDone);
  }
}

TEST(Pins, MappedPagesAreReadyAtOnceAndAbsentOnesComing) {
  World w(pinning(8));
  AddressSpace& s = w.open(0);
  fill(w, s, 3);
  Pinned ready(w, {range(s, 0, 3)});
  EXPECT_EQ(ready.answer(), PinAnswer::kReady);
  EXPECT_EQ(ready.settled, 1);
  ready.unpin();
  w.mm->evict(s);
  w.settle();
  w.delay->set_hold(true);
  Pinned later(w, {range(s, 0, 3)});
  EXPECT_EQ(later.answer(), PinAnswer::kComing);
  EXPECT_EQ(later.settled, 0);
  w.delay->set_hold(false);
  w.settle();
  EXPECT_EQ(later.answer(), PinAnswer::kReady);
  EXPECT_EQ(later.settled, 1) << "told once";
  w.check();
}

TEST(Pins, PinnedPagesAreNeverReclaimed) {
  World w(pinning(6));
  AddressSpace& s = w.open(0);
  AddressSpace& other = w.open(1);
  fill(w, s, 4);
  Pinned pin(w, {range(s, 0, 4)});
  ASSERT_EQ(pin.answer(), PinAnswer::kReady);
  w.mm->evict(s);
  for (uint32_t i = 0; i < 16; ++i) {
    ASSERT_EQ(w.write(other, 0, i, i).access, SimAccess::kDone);
    for (uint32_t k = 0; k < 4; ++k) {
      ASSERT_EQ(w.page(s, 0, k).place, Place::kMapped);
    }
  }
  EXPECT_GT(w.mm->stats().reclaimed.load(), 8u);
  w.check();
}

TEST(Pins, OverlappingPinsAddUp) {
  World w(pinning(8));
  AddressSpace& s = w.open(0);
  fill(w, s, 4);
  Pinned a(w, {range(s, 0, 3), range(s, 1, 2)});
  Pinned b(w, {range(s, 1, 4)});
  EXPECT_EQ(w.page(s, 0, 0).pins, 1);
  EXPECT_EQ(w.page(s, 0, 1).pins, 3);
  EXPECT_EQ(w.page(s, 0, 3).pins, 1);
  a.unpin();
  EXPECT_EQ(w.page(s, 0, 0).pins, 0);
  EXPECT_EQ(w.page(s, 0, 1).pins, 1);
  w.mm->evict(s);
  w.settle();
  EXPECT_EQ(w.page(s, 0, 0).place, Place::kSwapped);
  EXPECT_EQ(w.page(s, 0, 1).place, Place::kMapped);
  b.unpin();
  w.mm->evict(s);
  w.settle();
  EXPECT_EQ(w.page(s, 0, 1).place, Place::kSwapped);
}

TEST(Pins, TwoBatchesWaitForOnePage) {
  World w(pinning(8));
  AddressSpace& s = w.open(0);
  fill(w, s, 2);
  w.mm->evict(s);
  w.settle();
  w.delay->set_hold(true);
  Pinned a(w, {range(s, 0, 1)});
  Pinned b(w, {range(s, 0, 2), range(s, 0, 1)});
  EXPECT_EQ(a.answer(), PinAnswer::kComing);
  EXPECT_EQ(b.answer(1), PinAnswer::kComing);
  a.unpin();  // given up before it came
  w.delay->set_hold(false);
  w.settle();
  EXPECT_EQ(b.answer(0), PinAnswer::kReady);
  EXPECT_EQ(b.answer(1), PinAnswer::kReady);
  EXPECT_EQ(a.settled, 0);
  w.check();
}

TEST(Pins, MoreThanTheTierIsRefusedAndNothingIsPinned) {
  World w(pinning(4));
  AddressSpace& s = w.open(0);
  Pinned pin(w, {range(s, 0, 5)});
  EXPECT_EQ(pin.result.code(), Errc::kNoMemory);
  EXPECT_FALSE(w.mm->pins_open());
  EXPECT_EQ(w.page(s, 0, 0).pins, 0);
}

TEST(Pins, WritingToASealedPageIsRefused) {
  World w(pinning(8));
  AddressSpace& s = w.open(0, ObjectKind::kPrivate);
  fill(w, s, 2);
  ASSERT_TRUE(w.mm->append(s, 5).ok());  // four tokens a page
  Pinned bad(w, {range(s, 0, 2, true)});
  EXPECT_EQ(bad.result.code(), Errc::kSealed);
  Pinned good(w, {range(s, 0, 1), range(s, 1, 2, true)});
  EXPECT_TRUE(good.result.ok());
}

TEST(Pins, LostContentIsToldToBeComputedAgain) {
  World w(pinning(8));
  AddressSpace& s = w.open(0, ObjectKind::kPrivate);
  fill(w, s, 3);
  ASSERT_TRUE(w.mm->append(s, 12).ok());
  w.mm->evict(s);
  w.settle();
  std::array<std::byte, 1> rot{std::byte{1}};
  w.disk->poke(w.slot_offset(w.page(s, 0, 1)) + 7, rot);
  {
    Pinned pin(w, {range(s, 0, 3), range(s, 2, 3)});
    w.settle();
    EXPECT_EQ(pin.answer(0), PinAnswer::kRecompute);
    EXPECT_EQ(pin.answer(1), PinAnswer::kReady) << "the rest of the batch stays pinned";
    EXPECT_EQ(w.page(s, 0, 0).place, Place::kMapped);
    EXPECT_EQ(w.mm->stats().poisoned.load(), 0u);
  }
  std::vector<std::pair<uint64_t, uint64_t>> gone;
  w.mm->for_each_gone(s, [&](uint64_t a, uint64_t b) { gone.emplace_back(a, b); });
  ASSERT_EQ(gone.size(), 1u);
  EXPECT_EQ(gone[0], std::pair(uint64_t{4}, uint64_t{8}));
  ASSERT_TRUE(w.mm->recompute_begin(s, 4, 8).ok());
  {
    Pinned write(w, {range(s, 1, 2, true)});
    w.settle();
    ASSERT_EQ(write.answer(), PinAnswer::kReady);
    EXPECT_EQ(w.read(s, 0, 1).value, 0u) << "zeros, never the bad bytes";
    ASSERT_EQ(w.write(s, 0, 1, 201).access, SimAccess::kDone);
  }
  ASSERT_TRUE(w.mm->recompute_end(s, 4, 8).ok());
  w.mm->evict(s);
  w.settle();
  EXPECT_EQ(w.read(s, 0, 1).value, 201u);
  EXPECT_EQ(w.page(s, 0, 1).content, Content::kSealed);
  EXPECT_EQ(s.stats.seal_violations.load(), 0u);
}

// With every frame held by pages that cannot go, a pin that waits for one waits for itself.
TEST(Pins, WithoutAFrameTheAnswerIsFailedNotAHang) {
  World w(without_swap(4));
  AddressSpace& full = w.open(0);
  AddressSpace& s = w.open(1);
  fill(w, full, 3);
  Pinned pin(w, {range(s, 0, 1), range(s, 1, 2)});
  w.settle();
  EXPECT_EQ(pin.answer(0), PinAnswer::kReady);
  EXPECT_EQ(pin.answer(1), PinAnswer::kFailed);
  EXPECT_EQ(pin.settled, 1);
  EXPECT_EQ(w.mm->stats().poisoned.load(), 0u) << "nobody touched it";
  pin.unpin();
  // With room it can be had.
  w.close(full);
  Pinned again(w, {range(s, 0, 2)});
  w.settle();
  EXPECT_EQ(again.answer(), PinAnswer::kReady);
  EXPECT_EQ(w.write(s, 0, 1, 7).access, SimAccess::kDone);
}

TEST(Pins, ABatchWaitsForTheFramesOfAnotherThatIsReady) {
  World w(pinning(4));
  AddressSpace& a = w.open(0);
  AddressSpace& b = w.open(1);
  fill(w, a, 3);
  fill(w, b, 3);
  Pinned first(w, {range(a, 0, 3)});
  w.settle();
  ASSERT_EQ(first.answer(), PinAnswer::kReady);
  Pinned second(w, {range(b, 0, 3)});
  for (int i = 0; i < 50; ++i) {
    w.pass();
    w.step();
  }
  EXPECT_EQ(second.answer(), PinAnswer::kComing) << "the first one will be unpinned";
  first.unpin();
  w.settle();
  EXPECT_EQ(second.answer(), PinAnswer::kReady);
  w.check();
}

// Two batches hold a frame each that the other needs: one is refused, the other one gets on.
TEST(Pins, OfBatchesThatWaitForEachOtherOneFails) {
  World w(without_swap(2));
  AddressSpace& a = w.open(0);
  AddressSpace& b = w.open(1);
  fill(w, a, 1);
  fill(w, b, 1);
  Pinned first(w, {range(a, 0, 1), range(a, 1, 2)});
  Pinned second(w, {range(b, 0, 2)});
  w.step();
  EXPECT_EQ(first.answer(0), PinAnswer::kReady);
  EXPECT_EQ(first.answer(1), PinAnswer::kFailed);
  EXPECT_EQ(second.answer(), PinAnswer::kComing) << "the first one will be unpinned";
  ASSERT_TRUE(w.mm->unpin(first.batch, Fence()).ok());
  w.close(a);
  w.settle();
  EXPECT_EQ(second.answer(), PinAnswer::kReady);
  EXPECT_EQ(w.mm->stats().no_memory.load(), 1u);
  w.check();
}

// A pin can be told that there is no memory, a touch can only be killed.
TEST(Pins, APinFailsBeforeATouchDoes) {
  World w(without_swap(2));
  AddressSpace& a = w.open(0);
  AddressSpace& b = w.open(1);
  fill(w, a, 1);
  fill(w, b, 1);
  EXPECT_FALSE(w.start_read(b, 0, 1, 3));
  Pinned pin(w, {range(a, 0, 2)});
  EXPECT_EQ(pin.answer(), PinAnswer::kFailed);
  EXPECT_EQ(w.mm->stats().poisoned.load(), 0u);
  ASSERT_TRUE(w.mm->unpin(pin.batch, Fence()).ok());
  w.close(a);
  w.settle();
  EXPECT_EQ(w.read(b, 0, 1).access, SimAccess::kDone);
}

TEST(Fences, PagesStayUntilTheFenceIsDone) {
  World w(pinning(8));
  AddressSpace& s = w.open(0);
  fill(w, s, 2);
  int done = 0;
  {
    Pinned pin(w, {range(s, 0, 2)});
    Fence fence;
    fence.kind = Fence::Kind::kCallback;
    fence.handle = &done;
    fence.done = [](void* p) { return *static_cast<int*>(p); };
    pin.unpin(fence);
  }
  EXPECT_TRUE(w.mm->pins_open());
  EXPECT_NE(w.mm->next_due(), Tick(0)) << "it asks to be called again";
  w.mm->evict(s);
  w.settle();
  EXPECT_EQ(w.page(s, 0, 0).place, Place::kMapped);
  MmJob job;
  EXPECT_EQ(w.mm->detach_begin(s, job).code(), Errc::kBusy);
  done = 1;
  w.step();
  EXPECT_FALSE(w.mm->pins_open());
  w.mm->evict(s);
  w.settle();
  EXPECT_EQ(w.page(s, 0, 0).place, Place::kSwapped);
}

TEST(Fences, WhatCannotBeWaitedForIsRefusedAndStaysPinned) {
  World w(pinning(8));
  AddressSpace& s = w.open(0);
  fill(w, s, 1);
  Pinned pin(w, {range(s, 0, 1)});
  Fence fence;
  fence.kind = Fence::Kind::kCallback;
  EXPECT_EQ(w.mm->unpin(pin.batch, fence).code(), Errc::kInvalid) << "no callback";
  fence.kind = Fence::Kind::kEvent;
  EXPECT_EQ(w.mm->unpin(pin.batch, fence).code(), Errc::kNotSupported);
  EXPECT_EQ(w.page(s, 0, 0).pins, 1);
}

TEST(Pins, NothingPinnedIsDroppedTruncatedOrClosed) {
  World w(pinning(8));
  AddressSpace& s = w.open(0, ObjectKind::kPrivate);
  fill(w, s, 3);
  ASSERT_TRUE(w.mm->append(s, 12).ok());
  Pinned pin(w, {range(s, 1, 2)});
  MmJob job;
  EXPECT_EQ(w.mm->truncate(s, 4, job).code(), Errc::kBusy);
  EXPECT_EQ(w.mm->discard_tokens(s, 0, 12, job).code(), Errc::kBusy);
  EXPECT_EQ(w.mm->detach_begin(s, job).code(), Errc::kBusy);
  const Vma& v = *s.planes()[0].vma;
  EXPECT_EQ(w.mm->clear_range({v.start, v.page_size * v.pages}, job).code(), Errc::kBusy);
  EXPECT_TRUE(job.done());
  EXPECT_EQ(s.tokens, 12u);
  for (uint32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(w.read(s, 0, i).value, 100 + i);
  }
  w.run_job([&](MmJob& j) { return w.mm->truncate(s, 8, j); });  // leaves the pinned page alone
  EXPECT_EQ(w.read(s, 0, 1).value, 101u);
}

}  // namespace
}  // namespace kvmm::test
