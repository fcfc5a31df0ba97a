// SPDX-License-Identifier: Apache-2.0
//
// Calls of one thread while the work of another one's call is under way: pins against write-back,
// sync against write-back ahead, swapoff against sync, close against unpin.
#include <gtest/gtest.h>

#include "tests/model/world.h"

namespace kvmm::test {
namespace {

WorldConfig held(uint32_t frames) {
  WorldConfig c;
  c.frames = frames;
  c.planes = 1;
  c.lanes = 4;
  c.swap = mib(4);
  c.stacked_disk = true;
  return c;
}

PinRange range(AddressSpace& s, uint32_t begin, uint32_t end) {
  PinRange r;
  r.space = &s;
  r.spans.push_back({s.planes()[0].object.get(), begin, end});
  return r;
}

void fill(World& w, AddressSpace& s, uint32_t n) {
  for (uint32_t i = 0; i < n; ++i) {
    ASSERT_EQ(w.write(s, 0, i, 100 + i).access, SimAccess::kDone);
  }
}

// Until the page is being written; the disk holds its answer back.
void until_writing(World& w, Page& p) {
  w.delay->set_hold(true);
  w.step();
  for (int i = 0; p.place != Place::kWriting; ++i) {
    ASSERT_LT(i, 1000);
    w.pass();
    w.step();
  }
}

TEST(Races, APinThatComesDuringWriteBackKeepsItsPageMapped) {
  World w(held(8));
  AddressSpace& s = w.open(0);
  fill(w, s, 2);
  MmJob job;
  w.mm->clean(s, job);
  until_writing(w, w.page(s, 0, 0));
  PinBatch batch;
  batch.ranges.push_back(range(s, 0, 2));
  ASSERT_TRUE(w.mm->pin(batch, w.clock.now()).ok());
  EXPECT_EQ(batch.ranges[0].answer, PinAnswer::kComing);
  w.delay->set_hold(false);
  w.settle();
  w.mm->pin_poll(batch);
  ASSERT_EQ(batch.ranges[0].answer, PinAnswer::kReady);
  EXPECT_EQ(w.page(s, 0, 0).place, Place::kMapped) << "who was told that it is there, uses it";
  EXPECT_EQ(w.page(s, 0, 1).place, Place::kMapped);
  EXPECT_TRUE(job.done());
  EXPECT_EQ(job.result, Errc::kBusy) << "the engine may write it again: it is not clean";
  w.mm->end_job(job);
  ASSERT_TRUE(w.mm->unpin(batch, {}).ok());
  w.check();
}

TEST(Races, SyncWaitsForPagesThatWriteBackAheadHasBegun) {
  World w(held(8));
  AddressSpace& s = w.open(0);
  fill(w, s, 3);
  w.mm_config.writeback_ahead = 4096;
  w.mm->advise(s, Advice::kIdle);
  until_writing(w, w.page(s, 0, 0));
  w.mm_config.writeback_ahead = 0;
  MmJob job;
  w.mm->clean(s, job);
  EXPECT_EQ(job.pending, 3u) << "also those that somebody else has begun";
  w.delay->set_hold(false);
  w.settle();
  EXPECT_TRUE(job.done());
  EXPECT_EQ(job.result, Errc::kOk);
  for (uint32_t i = 0; i < 3; ++i) {
    EXPECT_TRUE(w.page(s, 0, i).has(Page::kSlotCurrent)) << i;
  }
  w.mm->end_job(job);
  w.check();
}

TEST(Races, ASessionIsGoneBeforeABatchThatHoldsNothingOfItIsUnpinned) {
  World w(held(8));
  AddressSpace& s = w.open(0);
  AddressSpace& other = w.open(1);
  fill(w, s, 1);
  fill(w, other, 1);
  PinBatch batch;
  batch.ranges.push_back(range(s, 0, 0));  // all tokens of a session that has none
  batch.ranges.push_back(range(other, 0, 1));
  ASSERT_TRUE(w.mm->pin(batch, w.clock.now()).ok());
  w.close(s);
  ASSERT_TRUE(w.mm->unpin(batch, {}).ok());  // AddressSanitizer watches
  EXPECT_EQ(w.page(other, 0, 0).pins, 0);
  w.check();
}

TEST(Races, AnAreaIsInUseWhileAnotherCallsFlushIsOnItsWay) {
  World w(held(8));
  AddressSpace& s = w.open(0);
  fill(w, s, 1);
  SwapArea& area = *w.swap.areas().front();
  EXPECT_FALSE(w.mm->uses(area));
  Mm::FlushJob flush;
  w.mm->flush(flush);
  w.mm->step(w.clock.now(), false);  // a thread of the engine submits nothing itself
  EXPECT_TRUE(w.mm->io_waits());
  EXPECT_TRUE(w.mm->uses(area)) << "were the area taken out now, the flush would never end";
  EXPECT_TRUE(w.mm->busy());
  w.settle();
  EXPECT_TRUE(flush.done);
  EXPECT_EQ(flush.result, Errc::kOk);
  EXPECT_FALSE(w.mm->uses(area));
  EXPECT_FALSE(w.mm->busy());
}

TEST(Races, AKernelThatIsShortOfMemoryForAMomentDelaysAnUnmap) {
  World w(held(8));
  AddressSpace& s = w.open(0);
  fill(w, s, 2);
  w.mmu->fail_entry(MmuOp::kUnmap, 1, Errc::kNoMemory);
  w.mm->evict(s);
  w.settle();
  EXPECT_EQ(w.page(s, 0, 0).place, Place::kMapped) << "as one that is held";
  w.mm->evict(s);
  w.settle();
  EXPECT_EQ(w.page(s, 0, 0).place, Place::kSwapped);
  w.mmu->fail_entry(MmuOp::kUnmap, 1, Errc::kNoMemory);
  EXPECT_EQ(w.read(s, 0, 1).value, 101u);
  w.close(s);  // doomed pages try again
}

TEST(Races, ManyAreasAreFlushedAtOnce) {
  World w(held(8));
  std::vector<std::unique_ptr<SimDisk>> disks;
  for (uint64_t i = 0; i < 40; ++i) {
    SimDiskConfig d;
    d.capacity = mib(4);
    d.seed = 100 + i;
    disks.push_back(std::make_unique<SimDisk>(w.clock, d));
    SwapAreaConfig a;
    a.name = "more" + std::to_string(i);
    a.path = a.name;
    a.wait = [&w] { w.clock.advance_to_alarm(); };
    auto area = SwapArea::open(*disks.back(), a);
    ASSERT_TRUE(area.ok());
    w.mm->area_added(**area);
    ASSERT_TRUE(w.swap.add(std::move(*area)).ok());
  }
  AddressSpace& s = w.open(0);
  fill(w, s, 8);
  MmJob job;
  w.mm->clean(s, job);
  w.settle();
  w.mm->end_job(job);
  Mm::FlushJob flush;
  w.mm->flush(flush);
  for (int i = 0; i < 1000 && !flush.done; ++i) {
    w.pass();
    w.step();
  }
  EXPECT_TRUE(flush.done);
  EXPECT_EQ(flush.result, Errc::kOk);
  w.close(s);
  while (w.swap.areas().size() > 1) {
    SwapArea& last = *w.swap.areas().back();
    w.mm->area_removed(last);
    ASSERT_TRUE(w.swap.remove(last).ok());
  }
}

}  // namespace
}  // namespace kvmm::test
