// SPDX-License-Identifier: Apache-2.0
//
// The cheap facts: without them there is no runtime of the usual kind.
#include <linux/io_uring.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "tools/kvctl/fact.h"

namespace kvmm::facts {
namespace {

Finding move_carries() {
  const Uffd u(kFeatureMove);
  const Memory frame(kPage);
  const Memory range(kPage);
  if (!u.ok()) {
    return u.refused();
  }
  ::memset(frame.data(), 0x5a, kPage);
  if (u.register_range(frame) != 0 || u.register_range(range) != 0) {
    return cannot_tell("the ranges cannot be registered");
  }
  if (const int e = u.move(range.at(), frame.at(), kPage); e != 0) {
    return other("UFFDIO_MOVE of one page: " + errno_text(e));
  }
  if (present(frame.at()) || range.data()[kPage - 1] != 0x5a) {
    return other("the page was not carried");
  }
  const int back = u.move(frame.at(), range.at(), kPage);
  return back == 0 ? holds("moved in and out") : other("the way back: " + errno_text(back));
}

Finding poison_sigbus() {
  const Uffd u(kFeatureMove | kFeaturePoison);
  const Memory frame(kPage);
  const Memory range(kPage);
  if (!u.ok()) {
    return u.refused();
  }
  ::memset(frame.data(), 1, kPage);
  if (u.register_range(frame) != 0 || u.register_range(range) != 0) {
    return cannot_tell("the ranges cannot be registered");
  }
  if (const int e = u.poison(range.at(), kPage); e != 0) {
    return other("UFFDIO_POISON: " + errno_text(e));
  }
  if (const int s = signal_of_read(range.at()); s != SIGBUS) {
    return other("a touch of a poisoned page ends in signal " + std::to_string(s));
  }
  range.advise(MADV_DONTNEED);
  const int e = u.move(range.at(), frame.at(), kPage);
  return e == 0 && range.data()[0] == 1 ? holds("SIGBUS; MADV_DONTNEED clears it")
                                        : other("after MADV_DONTNEED: " + errno_text(e));
}

Finding continue_memfd() {
  const Uffd u(kFeatureMinorShmem);
  const Fd memory(static_cast<int>(::syscall(SYS_memfd_create, "kvmm-fact", 1u)));
  if (!u.ok()) {
    return u.refused();
  }
  if (!memory.ok() || ::ftruncate(memory.get(), kHuge) != 0) {
    return cannot_tell("memfd_create: " + errno_text(errno));
  }
  const Memory alias(kHuge, memory.get());
  const Memory range(kHuge, memory.get());
  const uint64_t mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR;
  if (const int e = u.register_range(range, mode); e != 0) {
    return other("MISSING | MINOR on a memfd cannot be registered: " + errno_text(e));
  }
  alias.data()[0] = 0x77;
  if (present(range.at())) {
    return other("a write through the alias mapped the page in the range");
  }
  if (const int e = u.map_shared(range.at(), kPage); e != 0 || range.data()[0] != 0x77) {
    return other("UFFDIO_CONTINUE: " + errno_text(e));
  }
  if (u.map_shared(range.at(kPage), kPage) != EFAULT) {
    return other("UFFDIO_CONTINUE of a hole does not answer EFAULT");
  }
  range.advise(MADV_DONTNEED);
  return !present(range.at()) && alias.data()[0] == 0x77
             ? holds("mapped, unmapped by MADV_DONTNEED, content kept; a hole is EFAULT")
             : other("MADV_DONTNEED unmaps nothing, or loses content");
}

Finding huge_moves_whole() {
  const Uffd u(kFeatureMove);
  const Memory frame(kHuge, -1, true);
  const Memory range(kHuge, -1, true);
  if (!u.ok()) {
    return u.refused();
  }
  ::memset(frame.data(), 3, kHuge);
  if (!mapped_as_huge(frame.at())) {
    return cannot_tell("the system gave no huge page (transparent_hugepage, PAGEMAP_SCAN)");
  }
  if (u.register_range(frame) != 0 || u.register_range(range) != 0) {
    return cannot_tell("the ranges cannot be registered");
  }
  const int e = u.move(range.at(), frame.at(), kHuge);
  return e == 0 && mapped_as_huge(range.at()) ? holds("one huge page, there as here")
                                              : other("split, or " + errno_text(e));
}

// Setup and enter: some containers allow the first and refuse the second.
Finding uring_enters() {
  io_uring_params params{};
  const Fd ring(static_cast<int>(::syscall(SYS_io_uring_setup, 4u, &params)));
  if (!ring.ok()) {
    return other("io_uring_setup: " + errno_text(errno));
  }
  const long n = ::syscall(SYS_io_uring_enter, ring.get(), 0u, 0u, 0u, nullptr, size_t{0});
  return n == 0 ? holds("a ring was made and entered")
                : other("io_uring_enter: " + errno_text(errno));
}

constexpr std::array kFacts = {
    Fact{"move-carries", "UFFDIO_MOVE carries a page to another address and back",
         "movable frames; option frames=shareable remains", move_carries},
    Fact{"poison-sigbus", "a poisoned page answers SIGBUS until MADV_DONTNEED clears it",
         "a lost page is an error and never zeros (decision 0012)", poison_sigbus},
    Fact{"continue-memfd", "UFFDIO_CONTINUE maps what a memfd holds, MADV_DONTNEED unmaps it",
         "shareable frames", continue_memfd},
    Fact{"huge-moves-whole", "an aligned huge frame moves as one into an empty range",
         "2 MiB pages at 1 us a move", huge_moves_whole},
    Fact{"uring-enters", "io_uring can be set up and entered", "swap areas by the driver uring",
         uring_enters},
};

}  // namespace

std::span<const Fact> cheap_facts() {
  return kFacts;
}

}  // namespace kvmm::facts
