// SPDX-License-Identifier: Apache-2.0
#include "runtime/base/lock.h"

#include <gtest/gtest.h>

#include <atomic>
#include <barrier>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace kvmm {
namespace {

// Members, not locals: gtest allocates a fixture anew for every test, so that ThreadSanitizer sees
// the mutexes of the test before go away and does not mix up their orders.
class LockTest : public testing::Test {
 protected:
  Mutex api_{LockRank::kApi};
  Mutex core_{LockRank::kCore};
  Mutex workers_{LockRank::kWorkers};
  Mutex log_{LockRank::kLog};
};

TEST(Lock, RanksAscendAndHaveTexts) {
  for (size_t i = 0; i < kLockRanks.size(); ++i) {
    EXPECT_STREQ(lock_rank_name(kLockRanks[i].rank), kLockRanks[i].name);
    EXPECT_GT(std::string(kLockRanks[i].protects).size(), 10U);
    EXPECT_GT(std::string(kLockRanks[i].never).size(), 10U);
    if (i > 0) {
      EXPECT_LT(kLockRanks[i - 1].rank, kLockRanks[i].rank);
    }
  }
  EXPECT_STREQ(lock_rank_name(static_cast<LockRank>(255)), "?");
  EXPECT_EQ(lock_acquisitions(static_cast<LockRank>(255)), 0U);
}

TEST_F(LockTest, AscendingOrderIsRecorded) {
  EXPECT_EQ(locks_held(), 0U);
  {
    MutexLock a(api_);
    MutexLock c(core_);
    MutexLock l(log_);
    EXPECT_EQ(locks_held(), 3U);
    core_.assert_held();
  }
  EXPECT_EQ(locks_held(), 0U);
}

TEST_F(LockTest, MayBeGivenBackInAnyOrder) {
  api_.lock();
  core_.lock();
  api_.unlock();
  log_.lock();  // still above core_
  EXPECT_EQ(locks_held(), 2U);
  core_.unlock();
  log_.unlock();
  api_.lock();  // nothing is held: any rank
  api_.unlock();
  EXPECT_EQ(locks_held(), 0U);
}

TEST_F(LockTest, TryLockMayGoAgainstTheOrder) {
  MutexLock hold(core_);
  if (!api_.try_lock()) {
    FAIL() << "nobody holds it";
  }
  EXPECT_EQ(locks_held(), 2U);
  api_.unlock();
}

TEST_F(LockTest, TryLockSaysNoWhileAnotherThreadHoldsIt) {
  core_.lock();
  bool got = true;
  size_t held = 1;
  std::thread other([&] {
    if (core_.try_lock()) {
      core_.unlock();
    } else {
      got = false;
    }
    held = locks_held();
  });
  other.join();
  core_.unlock();
  EXPECT_FALSE(got);
  EXPECT_EQ(held, 0U);
}

TEST_F(LockTest, CountsAcquisitionsPerRank) {
  const uint64_t all = lock_acquisitions(LockRank::kWorkers);
  const uint64_t here = lock_acquisitions_here(LockRank::kWorkers);
  const uint64_t core = lock_acquisitions_here(LockRank::kCore);
  for (int i = 0; i < 5; ++i) {
    MutexLock hold(workers_);
  }
  if (!workers_.try_lock()) {
    FAIL() << "nobody holds it";
  }
  workers_.unlock();
  std::thread other([&] { MutexLock hold(workers_); });
  other.join();
  EXPECT_EQ(lock_acquisitions(LockRank::kWorkers), all + 7);
  EXPECT_EQ(lock_acquisitions_here(LockRank::kWorkers), here + 6);
  EXPECT_EQ(lock_acquisitions_here(LockRank::kCore), core);
}

TEST_F(LockTest, ExcludesOtherThreads) {
  uint64_t sum = 0;
  constexpr int kThreads = 4;
  constexpr int kRounds = 20000;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < kRounds; ++i) {
        MutexLock hold(core_);
        ++sum;
      }
    });
  }
  for (std::thread& t : threads) {
    t.join();
  }
  EXPECT_EQ(sum, uint64_t{kThreads} * kRounds);
}

TEST_F(LockTest, CondVarHandsTheMutexOver) {
  CondVar changed;
  int turn = 0;
  std::thread other([&] {
    MutexLock hold(workers_);
    while (turn != 1) {
      changed.wait(workers_);
    }
    EXPECT_EQ(locks_held(), 1U);
    turn = 2;
    changed.notify_all();
  });
  {
    MutexLock hold(workers_);
    turn = 1;
    changed.notify_all();
    while (turn != 2) {
      changed.wait(workers_);
    }
    EXPECT_EQ(locks_held(), 1U);
  }
  other.join();
  EXPECT_EQ(turn, 2);
}

// The recorder itself: each rule is broken once, and the process must stop with that rule named.
// The static analysis would refuse some of these, which is why they say not to analyse them.

void lock_against_the_order() KVMM_NO_THREAD_SAFETY_ANALYSIS {
  Mutex core(LockRank::kCore);
  Mutex api(LockRank::kApi);
  core.lock();
  api.lock();
}
void lock_the_same_rank() KVMM_NO_THREAD_SAFETY_ANALYSIS {
  Mutex one(LockRank::kCore);
  Mutex two(LockRank::kCore);
  one.lock();
  two.lock();
}
void lock_below_the_middle() KVMM_NO_THREAD_SAFETY_ANALYSIS {
  // The highest rank held is not the one taken last: unlock moved it.
  Mutex api(LockRank::kApi);
  Mutex core(LockRank::kCore);
  Mutex workers(LockRank::kWorkers);
  Mutex log(LockRank::kLog);
  api.lock();
  core.lock();
  log.lock();
  api.unlock();
  workers.lock();
}
void lock_twice() KVMM_NO_THREAD_SAFETY_ANALYSIS {
  Mutex core(LockRank::kCore);
  core.lock();
  core.lock();
}
void try_lock_twice() KVMM_NO_THREAD_SAFETY_ANALYSIS {
  Mutex core(LockRank::kCore);
  core.lock();
  static_cast<void>(core.try_lock());
}
void lock_after_a_try_lock() KVMM_NO_THREAD_SAFETY_ANALYSIS {
  // try_lock went down to api; core is still held, so control_server < both is refused.
  Mutex core(LockRank::kCore);
  Mutex api(LockRank::kApi);
  Mutex control(LockRank::kControlServer);
  core.lock();
  static_cast<void>(api.try_lock());
  control.lock();
}
void unlock_what_is_free() KVMM_NO_THREAD_SAFETY_ANALYSIS {
  Mutex core(LockRank::kCore);
  core.unlock();
}
void unlock_what_another_holds() KVMM_NO_THREAD_SAFETY_ANALYSIS {
  Mutex core(LockRank::kCore);
  core.lock();
  std::thread other([&]() KVMM_NO_THREAD_SAFETY_ANALYSIS { core.unlock(); });
  other.join();
}
void assert_what_is_free() KVMM_NO_THREAD_SAFETY_ANALYSIS {
  Mutex core(LockRank::kCore);
  core.assert_held();
}
void wait_with_two_locks() KVMM_NO_THREAD_SAFETY_ANALYSIS {
  Mutex api(LockRank::kApi);
  Mutex core(LockRank::kCore);
  CondVar never;
  api.lock();
  core.lock();
  never.wait(core);
}
void hold_too_many() KVMM_NO_THREAD_SAFETY_ANALYSIS {
  std::vector<std::unique_ptr<Mutex>> all;
  for (size_t i = 0; i <= kHeldMax; ++i) {
    all.push_back(std::make_unique<Mutex>(LockRank::kCore));
    static_cast<void>(all.back()->try_lock());  // against the order, so only the number is wrong
  }
}
void lock_an_unknown_rank() KVMM_NO_THREAD_SAFETY_ANALYSIS {
  Mutex none(static_cast<LockRank>(200));
  none.lock();
}

TEST(LockRecorderDeathTest, StopsWhatBreaksTheRules) {
  testing::GTEST_FLAG(death_test_style) = "threadsafe";
  const std::string order = "locks are taken in ascending order of rank: held, wanted";
  EXPECT_DEATH(lock_against_the_order(), order + ": 30 \\(0x1e\\) against 20");
  EXPECT_DEATH(lock_the_same_rank(), order + ": 30 \\(0x1e\\) against 30");
  EXPECT_DEATH(lock_below_the_middle(), order + ": 50 \\(0x32\\) against 40");
  EXPECT_DEATH(lock_after_a_try_lock(), order);
  EXPECT_DEATH(lock_twice(), "a thread does not lock what it holds");
  EXPECT_DEATH(try_lock_twice(), "a thread does not try_lock what it holds");
  EXPECT_DEATH(unlock_what_is_free(), "a thread unlocks what it holds");
  EXPECT_DEATH(unlock_what_another_holds(), "a thread unlocks what it holds");
  EXPECT_DEATH(assert_what_is_free(), "the caller holds the mutex");
  EXPECT_DEATH(wait_with_two_locks(), "a thread that waits holds one lock only");
  EXPECT_DEATH(hold_too_many(), "locks held by one thread");
  EXPECT_DEATH(lock_an_unknown_rank(), "the mutex has a rank of the list");
}

// docs/locking.md carries the list as a table. Prints the right table when it differs.
TEST(Lock, TheDocumentAgreesWithTheList) {
  std::ostringstream table;
  table << "| number | lock | protects | never while holding it |\n|---|---|---|---|\n";
  for (const LockRankInfo& r : kLockRanks) {
    table << "| " << static_cast<unsigned>(r.rank) << " | `" << r.name << "` | " << r.protects
          << " | " << r.never << " |\n";
  }
  std::ifstream file(KVMM_SOURCE_DIR "/docs/locking.md");
  ASSERT_TRUE(file) << "docs/locking.md is missing";
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_NE(text.str().find("\n" + table.str() + "\n"), std::string::npos)
      << "docs/locking.md must have this table:\n"
      << table.str();
}

}  // namespace
}  // namespace kvmm
