// SPDX-License-Identifier: Apache-2.0
//
// UFFDIO_MOVE: when it is atomic, and what stands in its way.
#include <liburing.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <thread>

#include "tests/kernel_facts/facts.h"

namespace kvmm::facts {
namespace {

// A frame with content and an empty range, both registered.
struct Pair {
  explicit Pair(size_t length, uint64_t features = kFeatureMove, bool huge = false)
      : uffd(features), frame(length, -1, huge), range(length, -1, huge) {
    ::memset(frame.data(), 1, length);
    ready = uffd.ok() && uffd.register_range(frame) == 0 && uffd.register_range(range) == 0;
  }
  int in(size_t length) const { return uffd.move(range.at(), frame.at(), length); }
  int out(size_t length) const { return uffd.move(frame.at(), range.at(), length); }
  Finding refused() const {
    return uffd.ok() ? cannot_tell("the ranges cannot be registered") : uffd.refused();
  }
  Uffd uffd;
  Memory frame, range;
  bool ready = false;
};

Finding expect(int got, int expected, const std::string& what) {
  const std::string text = what + ": " + errno_text(got);
  return got == expected ? holds(text) : other(text + " and not " + errno_text(expected));
}

// Two threads count in one page, which is taken away and given back under them. A blocked thread
// is woken by the move back; nobody reads the userfaultfd.
Finding move_atomic() {
  const Pair p(16 * kPage);
  if (!p.ready) {
    return p.refused();
  }
  constexpr size_t kMoved = 16 * kPage;
  ::memset(p.frame.data(), 0, kMoved);
  if (const int e = p.in(kMoved); e != 0) {
    return other("the first move: " + errno_text(e));
  }
  std::atomic<bool> stop{false};
  std::array<uint64_t, 2> counted{};
  const auto cell = [&p](size_t i) {
    return reinterpret_cast<volatile uint64_t*>(p.range.data() + i * 7 * kPage);
  };
  std::array<std::thread, 2> writers;
  for (size_t i = 0; i < writers.size(); ++i) {
    writers[i] = std::thread([&, i] {
      while (!stop) {
        *cell(i) = *cell(i) + 1;
        ++counted[i];
      }
    });
  }
  int rounds = 0;
  int error = 0;
  for (; rounds < 3000 && error == 0; ++rounds) {
    error = p.out(kMoved);
    int back = EBUSY;  // whatever came over must go back, or the writers wait for ever
    for (int i = 0; i < 1000 && back != 0 && back != ENOENT; ++i) {
      back = p.in(kMoved);
    }
  }
  stop = true;
  for (std::thread& t : writers) {
    t.join();
  }
  if (error != 0 && error != EBUSY && error != EAGAIN) {
    return other("a move under writers: " + errno_text(error));
  }
  if (*cell(0) != counted[0] || *cell(1) != counted[1]) {
    return other("an update was lost");
  }
  return holds(std::to_string(counted[0] + counted[1]) + " updates over " + std::to_string(rounds) +
               " rounds of 64 KiB, none lost");
}

Finding move_needs_target_registered() {
  const Uffd u(kFeatureMove);
  const Memory frame(kPage);
  const Memory range(kPage);
  ::memset(frame.data(), 1, kPage);  // before: afterwards nobody would answer the fault
  if (!u.ok() || u.register_range(frame) != 0) {
    return u.refused();
  }
  return expect(u.move(range.at(), frame.at(), kPage), EINVAL, "into a range of no userfaultfd");
}

Finding move_same_lock() {
  const Pair p(kPage);
  if (!p.ready) {
    return p.refused();
  }
  if (::mlock(p.frame.data(), kPage) != 0) {
    return cannot_tell("mlock: " + errno_text(errno));
  }
  const int locked = p.in(kPage);
  ::munlock(p.frame.data(), kPage);
  if (const int e = p.in(kPage); e != 0) {
    return other("after munlock: " + errno_text(e));
  }
  return expect(locked, EINVAL, "a locked frame into a range that is not");
}

Finding move_target_empty() {
  const Pair p(kPage);
  const Memory more(kPage);
  if (!p.ready || p.in(kPage) != 0) {
    return p.refused();
  }
  ::memset(more.data(), 2, kPage);
  const int e = p.uffd.move(p.range.at(), more.at(), kPage);
  return more.data()[0] == 2 && p.range.data()[0] == 1
             ? expect(e, EEXIST, "onto a page that is mapped")
             : other("one of the two pages was changed");
}

Finding move_marker() {
  const Pair p(kPage, kFeatureMove | kFeaturePoison);
  if (!p.ready || p.uffd.poison(p.range.at(), kPage) != 0) {
    return p.refused();
  }
  if (present(p.range.at())) {
    return other("a poisoned page counts as present");
  }
  const int marked = p.in(kPage);
  p.range.advise(MADV_DONTNEED);
  if (const int e = p.in(kPage); e != 0) {
    return other("after MADV_DONTNEED: " + errno_text(e));
  }
  return expect(marked, EEXIST, "onto a marker, nothing mapped");
}

Finding move_short() {
  const Pair p(4 * kPage);
  if (!p.ready || ::madvise(p.frame.data() + 2 * kPage, kPage, MADV_DONTNEED) != 0) {
    return p.refused();
  }
  int64_t moved = 0;
  const int e = p.uffd.move(p.range.at(), p.frame.at(), 4 * kPage, &moved);
  return e != 0 && moved == 2 * kPage && present(p.range.at(kPage)) &&
                 !present(p.range.at(2 * kPage))
             ? holds("a hole after two of four pages: 8192 moved, " + errno_text(e))
             : other("a hole after two of four pages: " + std::to_string(moved) + " moved, " +
                     errno_text(e));
}

Finding move_fork() {
  const Pair p(kPage);
  std::array<int, 2> hold{};
  if (!p.ready || ::pipe(hold.data()) != 0) {
    return p.refused();
  }
  const pid_t child = ::fork();
  if (child == 0) {
    char byte = 0;
    ::close(hold[1]);
    ::_exit(::read(hold[0], &byte, 1) < 0 ? 1 : 0);  // until the parent closes its end
  }
  const int shared = p.in(kPage);
  ::close(hold[0]);
  ::close(hold[1]);
  ::waitpid(child, nullptr, 0);
  return expect(shared, EBUSY, "a page that a child shares");
}

Finding move_registered_buffer() {
  const Pair p(kPage);
  io_uring ring{};
  if (!p.ready) {
    return p.refused();
  }
  if (const int e = ::io_uring_queue_init(4, &ring, 0); e != 0) {
    return cannot_tell("io_uring_setup: " + errno_text(-e));
  }
  const iovec buffer{p.frame.data(), kPage};
  const int registered = ::io_uring_register_buffers(&ring, &buffer, 1);
  const int pinned = p.in(kPage);
  ::io_uring_queue_exit(&ring);
  if (registered != 0) {
    return cannot_tell("register_buffers: " + errno_text(-registered));
  }
  return expect(pinned, EBUSY, "a registered buffer of io_uring");
}

// A small page goes in and out of `range`, which leaves a page table behind.
Finding after_a_small_page(bool clear) {
  const Pair p(kHuge, kFeatureMove, true);
  const Memory small(kPage);
  if (!p.ready || p.uffd.register_range(small) != 0) {
    return p.refused();
  }
  if (!mapped_as_huge(p.frame.at())) {
    return cannot_tell("the system gave no huge page");
  }
  small.advise(MADV_DONTNEED);
  if (const int e = p.uffd.zeropage(small.at(), kPage); e != 0) {
    return cannot_tell("UFFDIO_ZEROPAGE: " + errno_text(e));
  }
  small.data()[0] = 1;
  if (p.uffd.move(p.range.at(), small.at(), kPage) != 0 ||
      p.uffd.move(small.at(), p.range.at(), kPage) != 0) {
    return other("a small page cannot be moved in and out");
  }
  if (clear) {
    p.range.advise(MADV_DONTNEED);
  }
  if (const int e = p.in(kHuge); e != 0) {
    return other("the huge frame: " + errno_text(e));
  }
  const bool whole = mapped_as_huge(p.range.at());
  return whole == clear ? holds(whole ? "whole" : "split")
                        : other(whole ? "whole all the same" : "split all the same");
}
Finding huge_splits() {
  return after_a_small_page(false);
}
Finding huge_heals() {
  return after_a_small_page(true);
}

constexpr std::array kFacts = {
    Fact{"move-atomic", "UFFDIO_MOVE is atomic against writers: no update is lost",
         "unmapping a page while the engine runs: everything that is movable", move_atomic},
    Fact{"move-needs-registration", "the target of a move is registered with that userfaultfd",
         "frame areas and ranges are registered alike, so that both ways work",
         move_needs_target_registered},
    Fact{"move-same-lock", "a locked page does not move into a range that is not locked",
         "KV memory is never locked (engines that call mlockall get kInvalid)", move_same_lock},
    Fact{"move-target-empty", "a move onto a mapped page is EEXIST and changes nothing",
         "EEXIST as the sign of a spurious fault", move_target_empty},
    Fact{"move-marker", "a marker answers EEXIST with nothing mapped; MADV_DONTNEED clears it",
         "one retry after MADV_DONTNEED (drivers/host/move_mmu.cc)", move_marker},
    Fact{"move-short", "a move that stops half-way says how far it came",
         "moving back what came over: a page is never in two halves", move_short},
    Fact{"move-fork", "a page that a fork shares does not move: EBUSY",
         "MADV_DONTFORK on all KV memory, bounded retries", move_fork},
    Fact{"move-registered-buffer", "a registered buffer of io_uring does not move: EBUSY",
         "no registered buffers over movable frames", move_registered_buffer},
    Fact{"huge-splits", "a huge frame is split by a range that held a small page",
         "clearing both sides first costs 0.5 us a move, and could go", huge_splits},
    Fact{"huge-heals", "MADV_DONTNEED of the whole range first keeps the huge frame whole",
         "ranges where page sizes mix; frames are split and rebuilt (kernels before 6.14)",
         huge_heals},
};

}  // namespace

std::span<const Fact> move_facts() {
  return kFacts;
}

}  // namespace kvmm::facts
