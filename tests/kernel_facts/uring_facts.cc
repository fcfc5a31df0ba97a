// SPDX-License-Identifier: Apache-2.0
//
// io_uring ties a request to the thread that submitted it (decision 0011).
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <thread>

#include "tests/kernel_facts/facts.h"

namespace kvmm::facts {
namespace {

struct Ring {
  Ring() : error(-::io_uring_queue_init(4, &ring, 0)) {
    made =
        error == 0 && ::pipe2(pipe.data(), O_CLOEXEC) == 0 && ::pipe2(sink.data(), O_CLOEXEC) == 0;
  }
  ~Ring() {
    if (error == 0) {
      ::io_uring_queue_exit(&ring);
    }
    for (const int fd : {pipe[0], pipe[1], sink[0], sink[1]}) {
      if (fd >= 0) {
        ::close(fd);
      }
    }
  }
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  // A read of the pipe, which has nothing yet.
  void submit_read() {
    io_uring_sqe* const sqe = ::io_uring_get_sqe(&ring);
    ::io_uring_prep_read(sqe, pipe[0], &byte, 1, 0);
    ::io_uring_submit(&ring);
  }
  // The result of what has finished, waiting `ms` at most; `none` if nothing has.
  int result(int ms, int none) {
    pollfd p{ring.ring_fd, POLLIN, 0};
    ::poll(&p, 1, ms);
    io_uring_cqe* cqe = nullptr;
    return ::io_uring_peek_cqe(&ring, &cqe) == 0 ? cqe->res : none;
  }

  io_uring ring{};
  const int error;
  std::array<int, 2> pipe{-1, -1}, sink{-1, -1};
  bool made = false;
  char byte = 0;
};

constexpr int kNothing = 1'000'000;

// Its data comes after its thread has gone: nobody is left to finish the read.
Finding thread_exit_cancels() {
  Ring r;
  if (!r.made) {
    return cannot_tell("io_uring_setup: " + errno_text(r.error));
  }
  std::thread([&r] { r.submit_read(); }).join();
  [[maybe_unused]] const ssize_t n = ::write(r.pipe[1], "x", 1);
  const int result = r.result(2000, kNothing);
  const std::string ended =
      result == kNothing ? "waits on" : "ends with " + (result < 0 ? errno_text(-result) : "data");
  return result < 0 ? holds("its read " + ended) : other("its read " + ended);
}

// The thread submits a read, then enters the kernel with a page that is missing: write(2) copies
// from it and waits. The read's data comes, and the completion does not, until the page is there.
Finding blocked_thread() {
  Ring r;
  const Uffd u(0);
  const Memory page(kPage);
  if (!r.made) {
    return cannot_tell("io_uring_setup: " + errno_text(r.error));
  }
  if (!u.ok() || u.register_range(page) != 0) {
    return u.refused();
  }
  std::array<int, 2> begun{-1, -1};
  if (::pipe2(begun.data(), O_CLOEXEC) != 0) {
    return cannot_tell("pipe: " + errno_text(errno));
  }
  std::thread engine([&] {
    r.submit_read();
    [[maybe_unused]] ssize_t n = ::write(begun[1], "b", 1);
    n = ::write(r.sink[1], page.data(), kPage);  // waits for the page
  });
  char byte = 0;
  [[maybe_unused]] ssize_t n = ::read(begun[0], &byte, 1);
  pollfd nothing{r.sink[0], POLLIN, 0};
  ::poll(&nothing, 1, 50);  // it is in the kernel by now
  n = ::write(r.pipe[1], "x", 1);
  const int early = r.result(200, kNothing);
  u.zeropage(page.at(), kPage);
  const int late = r.result(2000, kNothing);
  engine.join();
  ::close(begun[0]);
  ::close(begun[1]);
  if (early != kNothing) {
    return other("the completion came while its thread waited for a page");
  }
  return late == 1 ? holds("no completion in 200 ms, one as soon as the page was there")
                   : other("no completion at all: " + std::to_string(late));
}

constexpr std::array kFacts = {
    Fact{"uring-thread-exit",
         "what a thread submitted and has not ended fails once the thread is gone",
         "only the core thread submits (decision 0011)", thread_exit_cancels},
    Fact{"uring-blocked-thread", "a thread that waits for a page in the kernel completes no I/O",
         "only the core thread submits (decision 0011)", blocked_thread},
};

}  // namespace

std::span<const Fact> uring_facts() {
  return kFacts;
}

}  // namespace kvmm::facts
