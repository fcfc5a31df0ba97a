// SPDX-License-Identifier: Apache-2.0
//
// Clang's thread-safety attributes under names of our own; nothing with other compilers.
//
//   Mutex core_{LockRank::kCore};
//   uint64_t faults_ KVMM_GUARDED_BY(core_);        // touching it without core_ does not compile
//   void step_locked() KVMM_REQUIRES(core_);        // who calls it holds core_
//   void step() KVMM_EXCLUDES(core_);               // who calls it does not
//
// The preset `clang` builds with -Wthread-safety -Werror, so that the annotations are a proof and
// not a comment. They prove that a field is guarded; that locks are taken in order is checked while
// the program runs (runtime/base/lock.h).
#pragma once

#if defined(__clang__)
#define KVMM_THREAD_ANNOTATION(x) __attribute__((x))
#else
#define KVMM_THREAD_ANNOTATION(x)
#endif

// On types: a lock; an object that holds a lock for its life.
#define KVMM_CAPABILITY(name) KVMM_THREAD_ANNOTATION(capability(name))
#define KVMM_SCOPED_CAPABILITY KVMM_THREAD_ANNOTATION(scoped_lockable)

// On fields: the field, or what it points to, is touched only while the lock is held.
#define KVMM_GUARDED_BY(lock) KVMM_THREAD_ANNOTATION(guarded_by(lock))
#define KVMM_PT_GUARDED_BY(lock) KVMM_THREAD_ANNOTATION(pt_guarded_by(lock))

// On functions: held at entry and exit; not held at entry; taken inside; given back inside.
#define KVMM_REQUIRES(...) KVMM_THREAD_ANNOTATION(requires_capability(__VA_ARGS__))
#define KVMM_EXCLUDES(...) KVMM_THREAD_ANNOTATION(locks_excluded(__VA_ARGS__))
#define KVMM_ACQUIRE(...) KVMM_THREAD_ANNOTATION(acquire_capability(__VA_ARGS__))
#define KVMM_RELEASE(...) KVMM_THREAD_ANNOTATION(release_capability(__VA_ARGS__))
#define KVMM_TRY_ACQUIRE(...) KVMM_THREAD_ANNOTATION(try_acquire_capability(__VA_ARGS__))
#define KVMM_ASSERT_HELD(lock) KVMM_THREAD_ANNOTATION(assert_capability(lock))
#define KVMM_RETURNS_LOCK(lock) KVMM_THREAD_ANNOTATION(lock_returned(lock))

// For the few functions that implement a lock. Anywhere else it needs a reason beside it.
#define KVMM_NO_THREAD_SAFETY_ANALYSIS KVMM_THREAD_ANNOTATION(no_thread_safety_analysis)
