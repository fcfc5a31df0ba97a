// SPDX-License-Identifier: Apache-2.0
#include "runtime/base/lock.h"

#include <atomic>

#include "runtime/base/check.h"

namespace kvmm {
namespace {

constexpr size_t kRanks = kLockRanks.size();

constexpr bool ascending() {
  for (size_t i = 1; i < kRanks; ++i) {
    if (kLockRanks[i - 1].rank >= kLockRanks[i].rank) {
      return false;
    }
  }
  return true;
}
static_assert(ascending(), "the list in lock_ranks.h stands in the order of its numbers");

// Place of a rank in the list, or kRanks.
constexpr size_t index_of(LockRank rank) {
  size_t i = 0;
  while (i < kRanks && kLockRanks[i].rank != rank) {
    ++i;
  }
  return i;
}

struct alignas(64) RankCount {
  std::atomic<uint64_t> taken{0};  // atomic because every thread adds
};

struct Held {
  const Mutex* mutex;
  LockRank rank;
};

struct ThreadLocks {
  std::array<Held, kHeldMax> held;
  size_t count;
  std::array<uint64_t, kRanks> taken;
};

// Zero-initialised and of the initial-exec model: the first lock that a thread of a dlopened
// library takes must not allocate its thread-local block, for that thread may be in the fault path.
// NOLINTNEXTLINE(cppcoreguidelines-avoid-non-const-global-variables): the recorder's own memory
[[gnu::tls_model("initial-exec")]] constinit thread_local ThreadLocks t_locks{};
// NOLINTNEXTLINE(cppcoreguidelines-avoid-non-const-global-variables): figures for tests only
constinit std::array<RankCount, kRanks> g_taken{};

bool holds(const Mutex* mutex) noexcept {
  for (size_t i = 0; i < t_locks.count; ++i) {
    if (t_locks.held[i].mutex == mutex) {
      return true;
    }
  }
  return false;
}

// Before a call that may wait.
void check_order(const Mutex& mutex) {
  for (size_t i = 0; i < t_locks.count; ++i) {
    const Held& h = t_locks.held[i];
    check(h.mutex != &mutex, "a thread does not lock what it holds", h.rank, mutex.rank());
    check(h.rank < mutex.rank(), "locks are taken in ascending order of rank: held, wanted", h.rank,
          mutex.rank());
  }
}

void note_acquired(const Mutex& mutex) {
  check(t_locks.count < kHeldMax, "locks held by one thread", t_locks.count, kHeldMax);
  t_locks.held[t_locks.count++] = {&mutex, mutex.rank()};
  const size_t i = index_of(mutex.rank());
  check(i < kRanks, "the mutex has a rank of the list", mutex.rank(), kRanks);
  ++t_locks.taken[i];
  g_taken[i].taken.fetch_add(1, std::memory_order_relaxed);
}

void note_released(const Mutex& mutex) {
  size_t i = 0;
  while (i < t_locks.count && t_locks.held[i].mutex != &mutex) {
    ++i;
  }
  check(i < t_locks.count, "a thread unlocks what it holds", mutex.rank(), t_locks.count);
  t_locks.held[i] = t_locks.held[--t_locks.count];
}

}  // namespace

const char* lock_rank_name(LockRank rank) noexcept {
  const size_t i = index_of(rank);
  return i < kRanks ? kLockRanks[i].name : "?";
}

uint64_t lock_acquisitions(LockRank rank) noexcept {
  const size_t i = index_of(rank);
  return i < kRanks ? g_taken[i].taken.load(std::memory_order_relaxed) : 0;
}

uint64_t lock_acquisitions_here(LockRank rank) noexcept {
  const size_t i = index_of(rank);
  return i < kRanks ? t_locks.taken[i] : 0;
}

size_t locks_held() noexcept {
  return t_locks.count;
}

void Mutex::lock() KVMM_NO_THREAD_SAFETY_ANALYSIS {
  check_order(*this);
  mutex_.lock();
  note_acquired(*this);
}

bool Mutex::try_lock() KVMM_NO_THREAD_SAFETY_ANALYSIS {
  check(!holds(this), "a thread does not try_lock what it holds", rank_, rank_);
  if (!mutex_.try_lock()) {
    return false;
  }
  note_acquired(*this);
  return true;
}

void Mutex::unlock() KVMM_NO_THREAD_SAFETY_ANALYSIS {
  note_released(*this);
  mutex_.unlock();
}

void Mutex::assert_held() const {
  check(holds(this), "the caller holds the mutex", rank_, t_locks.count);
}

void CondVar::wait(Mutex& mutex) {
  mutex.assert_held();
  check(t_locks.count == 1, "a thread that waits holds one lock only", t_locks.count, mutex.rank());
  note_released(mutex);
  std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
  cond_.wait(lock);
  // The MutexLock of the caller goes on owning it.
  static_cast<void>(lock.release());
  note_acquired(mutex);
}

}  // namespace kvmm
