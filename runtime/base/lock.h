// SPDX-License-Identifier: Apache-2.0
//
// Mutexes with a rank, and the recorder that stops the process when ranks are taken out of order.
//
//   class Registry {
//     void add(Arena* a) {
//       MutexLock hold(mutex_);
//       arenas_.push_back(a);
//     }
//     Mutex mutex_{LockRank::kApi};
//     std::vector<Arena*> arenas_ KVMM_GUARDED_BY(mutex_);
//   };
//
//   order     control_server -> api -> attributes -> core -> device -> workers -> log
//             (the list is lock_ranks.h, the rules docs/locking.md)
//   allowed   skip ranks; give locks back in any order; try_lock any mutex that one does not hold
//   stopped   lock a rank that is not above every rank held; lock or try_lock what one holds;
//             unlock what one does not hold; wait on a CondVar with a second lock held
//
// Why `try_lock` may go against the order: it never waits, so it closes no cycle. Reclaim needs it:
// it comes from a frame, holds the frame's lock, and wants the lock of whoever maps it.
//
// The recorder is always on. It keeps the locks that a thread holds in an array of that thread
// (at most kHeldMax); a lock costs one or two comparisons and one relaxed addition more than a
// std::mutex. A wrong order stops the process the first time it happens, not the first time it
// deadlocks, and is a `check()`: the operands printed are the rank held and the rank wanted.
//
// Thread safety: that is what it is. The recorder's functions speak of the calling thread.
#pragma once

#include <array>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>

#include "runtime/base/lock_ranks.h"
#include "runtime/base/thread_annotations.h"

namespace kvmm {

enum class LockRank : uint8_t {
#define KVMM_X(enumerator, number, name, protects, never) enumerator = number,
  KVMM_LOCK_RANKS(KVMM_X)
#undef KVMM_X
};

struct LockRankInfo {
  LockRank rank;
  const char* name;      // "core"
  const char* protects;  // one clause
  const char* never;     // what is never done while holding it
};

#define KVMM_X(enumerator, number, name, protects, never) \
  LockRankInfo{LockRank::enumerator, name, protects, never},
inline constexpr std::array kLockRanks = {KVMM_LOCK_RANKS(KVMM_X)};
#undef KVMM_X

// The name of a rank, "?" for a number that is none. Never null.
const char* lock_rank_name(LockRank rank) noexcept;
// How often a lock of this rank was taken in this process, by `lock` or a successful `try_lock`.
// Tests hold it against what a path may take: "a fault takes core once and api never".
uint64_t lock_acquisitions(LockRank rank) noexcept;
// The same, by the calling thread alone: other threads do not disturb the figure.
uint64_t lock_acquisitions_here(LockRank rank) noexcept;
// Locks that the calling thread holds now.
size_t locks_held() noexcept;

// A thread that holds more locks than this is stopped: there are not that many ranks.
inline constexpr size_t kHeldMax = 8;

// Not recursive. Destroying a locked mutex is undefined, as with std::mutex.
class KVMM_CAPABILITY("mutex") Mutex {
 public:
  explicit Mutex(LockRank rank) noexcept : rank_(rank) {}
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  // REQUIRES: every lock that the thread holds has a lower rank (checked before it waits).
  void lock() KVMM_ACQUIRE();
  // Takes it if nobody holds it. REQUIRES: the thread itself does not hold it; any order of ranks.
  [[nodiscard]] bool try_lock() KVMM_TRY_ACQUIRE(true);
  // REQUIRES: the thread holds it.
  void unlock() KVMM_RELEASE();
  // Stops the process unless the calling thread holds it; tells the static analysis that it does.
  void assert_held() const KVMM_ASSERT_HELD(this);

  LockRank rank() const noexcept { return rank_; }

 private:
  friend class CondVar;
  std::mutex mutex_;
  const LockRank rank_;
};

// Holds a mutex from construction to the end of the scope.
class KVMM_SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) KVMM_ACQUIRE(mutex) : mutex_(mutex) { mutex_.lock(); }
  ~MutexLock() KVMM_RELEASE() { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

// Waits for a condition that a mutex guards. Spurious wake-ups happen: wait in a loop.
//
//   MutexLock hold(mutex_);
//   while (queue_.empty()) ready_.wait(mutex_);
class CondVar {
 public:
  CondVar() = default;
  CondVar(const CondVar&) = delete;
  CondVar& operator=(const CondVar&) = delete;

  // Gives the mutex back, waits, takes it again. REQUIRES: the thread holds `mutex` and no other
  // lock (a thread that sleeps with a lock held makes others wait for an event they cannot see).
  void wait(Mutex& mutex) KVMM_REQUIRES(mutex);
  void notify_one() noexcept { cond_.notify_one(); }
  void notify_all() noexcept { cond_.notify_all(); }

 private:
  std::condition_variable cond_;
};

}  // namespace kvmm
