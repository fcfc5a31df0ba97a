// SPDX-License-Identifier: Apache-2.0
//
// Devices that fail, and swap areas that are taken out: each I/O of a small run fails in turn, once
// or for good, and what the engine then sees is exactly what was promised.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "tests/model/world.h"

namespace kvmm::test {
namespace {

WorldConfig stacked(uint32_t frames = 4) {
  WorldConfig c;
  c.frames = frames;
  c.planes = 1;
  c.lanes = 2;
  c.swap = mib(4);
  c.stacked_disk = true;
  return c;
}

ErrorRule failing(BlockOp op, uint64_t nth, uint64_t count, Errc result = Errc::kIo) {
  ErrorRule r;
  r.ops = mask_of(op);
  r.nth = nth;
  r.count = count;
  r.result = result;
  return r;
}

void write_pages(World& w, AddressSpace& s, uint32_t n) {
  for (uint32_t i = 0; i < n; ++i) {
    ASSERT_EQ(w.write(s, 0, i, 100 + i).access, SimAccess::kDone);
  }
}

TEST(ReadTrouble, OneErrorIsHealedByAnotherRead) {
  World w(stacked());
  AddressSpace& s = w.open(0);
  write_pages(w, s, 1);
  w.mm->evict(s);
  w.settle();
  ASSERT_TRUE(w.errors->add_rule(failing(BlockOp::kRead, 1, 1)).ok());
  const World::Answer a = w.read(s, 0, 0);
  EXPECT_EQ(a.access, SimAccess::kDone);
  EXPECT_EQ(a.value, 100u);
  EXPECT_EQ(w.mm->stats().read_errors.load(), 1u);
  EXPECT_EQ(w.mm->stats().poisoned.load(), 0u);
  EXPECT_EQ(w.swap.areas()[0]->stats().io_errors, 1u);
  w.check();
}

TEST(ReadTrouble, TwoErrorsAreAnErrorForATouch) {
  World w(stacked());
  AddressSpace& s = w.open(0);
  write_pages(w, s, 2);
  w.mm->evict(s);
  w.settle();
  w.mm_config.readahead_max = 0;
  w.mm_config.resume_prefetch = 0;
  ASSERT_TRUE(w.errors->add_rule(failing(BlockOp::kRead, 1, 2)).ok());
  EXPECT_EQ(w.read(s, 0, 0).access, SimAccess::kPoisoned);
  EXPECT_EQ(w.page(s, 0, 0).place, Place::kDiscarded);
  EXPECT_EQ(w.mm->stats().wrong_pages.load(), 0u) << "an unreadable page is not a wrong one";
  EXPECT_EQ(s.stats.bytes_discarded.load(), 4096u);
  MmNotice n;
  ASSERT_TRUE(w.mm->take_notice(&n));
  EXPECT_EQ(n.kind, MmNotice::Kind::kReadError);
  EXPECT_EQ(n.code, Errc::kIo);
  EXPECT_EQ(w.read(s, 0, 1).value, 101u) << "its neighbour is whole";
  w.check();
}

TEST(ReadTrouble, TheNoticeComesBeforeTheErrorThatMayEndTheProcess) {
  for (const bool told : {true, false}) {
    WorldConfig c = stacked();
    c.notice_time = millis(50);
    World w(c);
    AddressSpace& s = w.open(0);
    write_pages(w, s, 1);
    w.mm->evict(s);
    w.settle();
    ASSERT_TRUE(w.errors->add_rule(failing(BlockOp::kRead, 1, 2)).ok());
    EXPECT_FALSE(w.start_read(s, 0, 0, 1));
    for (int i = 0; i < 100 && !w.mm->has_notice(); ++i) {
      w.clock.advance(micros(200));
      w.step();
    }
    MmNotice n;
    ASSERT_TRUE(w.mm->take_notice(&n));
    w.step();
    EXPECT_EQ(w.mm->stats().poisoned.load(), 0u) << "taken is not yet told";
    EXPECT_FALSE(w.start_read(s, 0, 0, 2)) << "a second thread waits with it";
    if (told) {
      w.mm->notices_told();
    } else {
      w.clock.advance(millis(50));  // nobody reads: the engine gets its answer all the same
    }
    w.step();
    EXPECT_EQ(w.mm->stats().poisoned.load(), 1u);
    EXPECT_EQ(w.read(s, 0, 0).access, SimAccess::kPoisoned);
    w.check();
  }
}

TEST(ReadTrouble, APageLostByReadaheadPoisonsNothingUntilItIsTouched) {
  World w(stacked(8));
  AddressSpace& s = w.open(0);
  write_pages(w, s, 4);
  w.mm->evict(s);
  w.settle();
  // Whatever order the reads have: page 2's slot fails.
  ErrorRule r = failing(BlockOp::kRead, 1, 0);
  r.from = w.slot_offset(w.page(s, 0, 2));
  r.to = r.from + 1;
  ASSERT_TRUE(w.errors->add_rule(r).ok());
  EXPECT_EQ(w.read(s, 0, 0).value, 100u);
  w.settle();
  EXPECT_EQ(w.mm->stats().poisoned.load(), 0u);
  EXPECT_EQ(w.read(s, 0, 1).value, 101u);
  EXPECT_EQ(w.read(s, 0, 3).value, 103u);
  EXPECT_EQ(w.read(s, 0, 2).access, SimAccess::kPoisoned);
  EXPECT_EQ(w.mm->stats().poisoned.load(), 1u);
  w.check();
}

TEST(WriteTrouble, APageThatCannotBeWrittenStaysResident) {
  World w(stacked());
  AddressSpace& s = w.open(0);
  write_pages(w, s, 1);
  const auto rule = w.errors->add_rule(failing(BlockOp::kWrite, 1, 0));
  w.mm->evict(s);
  w.settle();
  EXPECT_TRUE(place_has_frame(w.page(s, 0, 0).place));
  EXPECT_EQ(w.mm->stats().write_errors.load(), w.mm_config.write_tries.load());
  MmNotice n;
  ASSERT_TRUE(w.mm->take_notice(&n));
  EXPECT_EQ(n.kind, MmNotice::Kind::kWriteError);
  EXPECT_EQ(w.swap.used_bytes(), Bytes(0)) << "no slot is left behind";
  EXPECT_EQ(w.read(s, 0, 0).value, 100u);
  // sync says so instead of waiting.
  MmJob job;
  w.mm->clean(s, job);
  for (int i = 0; i < 1000 && !job.done(); ++i) {
    w.step();
    w.pass();
  }
  EXPECT_TRUE(job.done());
  EXPECT_EQ(job.result, Errc::kIo);
  w.mm->end_job(job);
  // A disk that works again takes it.
  ASSERT_TRUE(w.errors->remove_rule(*rule).ok());
  EXPECT_EQ(w.read(s, 0, 0).value, 100u);
  w.mm->evict(s);
  w.settle();
  EXPECT_EQ(w.page(s, 0, 0).place, Place::kSwapped);
  EXPECT_EQ(w.read(s, 0, 0).value, 100u);
  w.check();
}

TEST(WriteTrouble, APassingErrorIsRetried) {
  World w(stacked());
  AddressSpace& s = w.open(0);
  write_pages(w, s, 1);
  ASSERT_TRUE(w.errors->add_rule(failing(BlockOp::kWrite, 1, 2)).ok());
  w.mm->evict(s);
  w.settle();
  EXPECT_EQ(w.page(s, 0, 0).place, Place::kSwapped);
  EXPECT_EQ(w.mm->stats().write_errors.load(), 2u);
  EXPECT_EQ(w.read(s, 0, 0).value, 100u);
}

TEST(WriteTrouble, AFullDiskIsNoDataLoss) {
  World w(stacked(4));
  AddressSpace& s = w.open(0);
  write_pages(w, s, 3);
  ASSERT_TRUE(w.errors->add_rule(failing(BlockOp::kWrite, 1, 0, Errc::kNoSpace)).ok());
  w.mm->evict(s);
  w.settle();
  for (uint32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(w.read(s, 0, i).value, 100 + i);
  }
  // A touch too many is an error, and the pages that are there stay what they are.
  EXPECT_EQ(w.write(s, 0, 3, 103).access, SimAccess::kDone);
  EXPECT_EQ(w.write(s, 0, 4, 104).access, SimAccess::kPoisoned);
  for (uint32_t i = 0; i < 4; ++i) {
    EXPECT_EQ(w.read(s, 0, i).value, 100 + i);
  }
  w.check();
}

// Most frames hold pages that cannot go, and the rest must do: a page that was read for a touch is
// not taken away again before the thread has run.
TEST(WriteTrouble, OneFrameThatCanGoIsEnoughToGetOn) {
  World w(stacked(4));
  w.mm_config.readahead_max = 0;
  w.mm_config.resume_prefetch = 0;
  AddressSpace& s = w.open(0);
  write_pages(w, s, 8);
  w.mm->evict(s);
  w.settle();
  ASSERT_TRUE(w.errors->add_rule(failing(BlockOp::kWrite, 1, 0, Errc::kNoSpace)).ok());
  for (uint32_t i = 0; i < 3; ++i) {
    ASSERT_EQ(w.write(s, 0, i, 200 + i).access, SimAccess::kDone);
  }
  for (int round = 0; round < 3; ++round) {
    for (uint32_t i = 0; i < 8; ++i) {
      ASSERT_EQ(w.read(s, 0, i).value, i < 3 ? 200 + i : 100 + i);
    }
  }
  EXPECT_LT(w.mm->stats().faults_major.load(), 100u);
  w.check();
}

// A small run in which the n-th I/O of a kind fails `count` times, for every n: values are right,
// or an error says so, and it ends.
class EachFailure : public ::testing::TestWithParam<std::tuple<BlockOp, uint64_t, ErrorAction>> {};

TEST_P(EachFailure, ValuesAreRightOrAnErrorSaysSo) {
  const auto [op, count, action] = GetParam();
  for (uint64_t nth = 1;; ++nth) {
    SCOPED_TRACE("failing I/O " + std::to_string(nth));
    World w(stacked(3));
    AddressSpace& s = w.open(0);
    ErrorRule rule = failing(op, nth, count);
    rule.action = action;
    const auto number = w.errors->add_rule(rule);
    ASSERT_TRUE(number.ok());
    std::array<uint64_t, 6> value{};
    std::array<bool, 6> lost{};
    Random random(nth);
    for (uint64_t i = 1; i <= 60; ++i) {
      const auto page = static_cast<uint32_t>(random.below(value.size()));
      const bool write = random.below(2) == 0;
      const World::Answer a = write ? w.write(s, 0, page, i) : w.read(s, 0, page);
      if (a.access == SimAccess::kPoisoned) {
        lost[page] = true;
        continue;
      }
      ASSERT_EQ(a.access, SimAccess::kDone);
      ASSERT_FALSE(lost[page]) << "an error turned into bytes";
      if (write) {
        value[page] = i;
      } else {
        ASSERT_EQ(a.value, value[page]) << "page " << page << " operation " << i;
      }
      w.check();
    }
    w.settle();
    w.check();
    ASSERT_EQ(w.mmu->waiters(), 0u);
    const auto errors = static_cast<uint64_t>(std::count(lost.begin(), lost.end(), true));
    ASSERT_LE(errors, count) << "one failure loses one page";
    if (w.errors->fired(*number) == 0) {
      ASSERT_GT(nth, 10u) << "the run has I/O to fail";
      break;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Io, EachFailure,
                         ::testing::Values(std::tuple(BlockOp::kRead, 1, ErrorAction::kFail),
                                           std::tuple(BlockOp::kRead, 2, ErrorAction::kFail),
                                           std::tuple(BlockOp::kRead, 1, ErrorAction::kShorten),
                                           std::tuple(BlockOp::kRead, 1, ErrorAction::kFlip),
                                           std::tuple(BlockOp::kRead, 2, ErrorAction::kFlip),
                                           std::tuple(BlockOp::kRead, 1, ErrorAction::kRefuse),
                                           std::tuple(BlockOp::kWrite, 1, ErrorAction::kFail),
                                           std::tuple(BlockOp::kWrite, 3, ErrorAction::kFail),
                                           std::tuple(BlockOp::kWrite, 1, ErrorAction::kShorten),
                                           std::tuple(BlockOp::kWrite, 1, ErrorAction::kLose),
                                           std::tuple(BlockOp::kWrite, 1, ErrorAction::kTear),
                                           std::tuple(BlockOp::kWrite, 1, ErrorAction::kRefuse)));

// ---- swapoff

struct Drain {
  explicit Drain(World& world) : w(world) { job.area = w.swap.areas()[0].get(); }
  // Until it is done; `each` plays the engine in between.
  template <class Fn>
  void run(Fn&& each) {
    w.mm->drain(job);
    for (int i = 0; !job.done; ++i) {
      ASSERT_LT(i, 100000) << "swapoff goes on for ever";
      w.step();
      each(i);
      w.pass();
    }
  }
  World& w;
  Mm::DrainJob job;
};

TEST(Swapoff, PagesMoveToMemoryAndToTheOtherAreaWhileTheEngineRuns) {
  WorldConfig c = stacked(6);
  c.swap_2 = mib(4);
  World w(c);
  AddressSpace& s = w.open(0);
  std::array<uint64_t, 16> value{};
  for (uint32_t i = 0; i < value.size(); ++i) {
    value[i] = 100 + i;
    ASSERT_EQ(w.write(s, 0, i, value[i]).access, SimAccess::kDone);
  }
  w.mm->evict(s);
  w.settle();
  ASSERT_GT(w.swap.areas()[0]->used_bytes().value(), 0u);
  Random random(5);
  Drain drain(w);
  drain.run([&](int i) {
    const auto page = static_cast<uint32_t>(random.below(value.size()));
    if (i % 2 == 0) {
      ASSERT_EQ(w.read(s, 0, page).value, value[page]);
    } else {
      value[page] = 1000 + static_cast<uint64_t>(i);
      ASSERT_EQ(w.write(s, 0, page, value[page]).access, SimAccess::kDone);
    }
  });
  EXPECT_EQ(drain.job.result, Errc::kOk);
  w.settle();
  EXPECT_EQ(drain.job.area->used_bytes(), Bytes(0));
  auto gone = w.swap.remove(*drain.job.area);
  ASSERT_TRUE(gone.ok());
  w.mm->area_removed(**gone);
  for (uint32_t i = 0; i < value.size(); ++i) {
    ASSERT_EQ(w.read(s, 0, i).value, value[i]) << "page " << i;
  }
  w.check();
}

TEST(Swapoff, WithoutRoomItIsRefusedAndTheAreaGoesOn) {
  World w(stacked(4));
  AddressSpace& s = w.open(0);
  write_pages(w, s, 12);
  Drain drain(w);
  drain.run([](int) {});
  EXPECT_EQ(drain.job.result, Errc::kNoMemory);
  // It says exactly why: whose pages, how many, and what there is for them.
  EXPECT_EQ(drain.job.sessions_left, 1u);
  EXPECT_EQ(drain.job.holders[0].space, s.id());
  EXPECT_EQ(drain.job.holders[0].pages, drain.job.pages_left);
  EXPECT_GE(drain.job.pages_left, 8u);
  EXPECT_EQ(drain.job.bytes_left.value(), drain.job.pages_left * 4096);
  EXPECT_LE(drain.job.bytes_left, drain.job.area->used_bytes()) << "a write under way has a slot";
  EXPECT_LE(drain.job.dram_free, Bytes(4 * 4096));
  EXPECT_EQ(drain.job.other_areas_free, Bytes(0));
  EXPECT_TRUE(drain.job.area->accepting());
  w.settle();
  for (uint32_t i = 0; i < 12; ++i) {
    ASSERT_EQ(w.read(s, 0, i).value, 100 + i) << "page " << i;
  }
  // It takes pages as before.
  for (uint32_t i = 0; i < 12; ++i) {
    ASSERT_EQ(w.write(s, 0, i, 200 + i).access, SimAccess::kDone);
  }
  for (uint32_t i = 0; i < 12; ++i) {
    ASSERT_EQ(w.read(s, 0, i).value, 200 + i) << "page " << i;
  }
  w.check();
}

TEST(Swapoff, AnAreaOfResidentPagesIsLeftWithoutIo) {
  World w(stacked(8));
  AddressSpace& s = w.open(0);
  write_pages(w, s, 3);
  w.mm->evict(s);
  w.settle();
  for (uint32_t i = 0; i < 3; ++i) {
    ASSERT_EQ(w.read(s, 0, i).value, 100 + i);
  }
  w.settle();
  const uint64_t in = w.mm->stats().swap_in_bytes.load();
  Drain drain(w);
  drain.run([](int) {});
  EXPECT_EQ(drain.job.result, Errc::kOk);
  EXPECT_EQ(w.mm->stats().swap_in_bytes.load(), in);
  EXPECT_EQ(drain.job.area->used_bytes(), Bytes(0));
  EXPECT_EQ(w.read(s, 0, 2).value, 102u);
}

}  // namespace
}  // namespace kvmm::test
