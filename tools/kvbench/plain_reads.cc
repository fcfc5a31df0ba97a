// SPDX-License-Identifier: Apache-2.0
#include "tools/kvbench/plain_reads.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "runtime/base/check.h"
#include "tools/kvbench/benchmark.h"

namespace kvmm::bench {
namespace {

using Clock = std::chrono::steady_clock;
constexpr uint64_t kLane = 2 << 20;

double us_since(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

}  // namespace

PlainReads::PlainReads(int fd, uint64_t size, unsigned depth, const ReadInto& into)
    : fd_(fd),
      own_place_(into.places != 0),
      size_(own_place_ ? size : kLane),
      places_(into.places == 0 ? depth : into.places) {
  check(size <= kLane && depth != 0 && depth <= places_, "shape of the reads", size, depth);
  try {
    memory_bytes_ = size_ * places_ + kLane;  // whole huge pages whatever the start is
    void* const memory =
        mmap(nullptr, memory_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
      throw Failure(kExitFailed,
                    fmt::format("{} MiB of memory: {}", memory_bytes_ >> 20, std::strerror(errno)));
    }
    mapped_ = static_cast<char*>(memory);
    memory_ =
        reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(memory) + kLane - 1) / kLane * kLane);
    // A wish; other pages do too.
    (void)madvise(mapped_, memory_bytes_, into.huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    std::memset(mapped_, 1, memory_bytes_);  // it is there before anything is timed
    if (const int result = io_uring_queue_init(depth, &ring_, 0); result != 0) {
      throw Failure(kExitImpossible,
                    fmt::format("io_uring: {}; kernel.io_uring_disabled and the container's "
                                "seccomp rules must allow it",
                                std::strerror(-result)));
    }
    ring_open_ = true;
  } catch (...) {
    release();
    throw;
  }
}

PlainReads::~PlainReads() {
  release();
}

void PlainReads::release() {
  if (ring_open_) {
    io_uring_queue_exit(&ring_);
  }
  if (mapped_ != nullptr) {
    munmap(mapped_, memory_bytes_);
  }
  close(fd_);
}

Pass PlainReads::read(const std::vector<PlainRead>& reads, uint64_t size, unsigned depth) {
  check(size <= size_ && depth <= places_, "as it was made", size, depth);
  Pass pass;
  pass.latency_us.reserve(reads.size());
  struct Lane {
    Clock::time_point started;
    uint64_t first_word = 0;
    char* place = nullptr;
  };
  std::vector<Lane> lanes(depth);
  check(!own_place_ || reads.size() <= places_, "a place for each", reads.size(), places_);
  size_t next = 0;
  const auto submit = [&](unsigned lane) {
    io_uring_sqe* const sqe = io_uring_get_sqe(&ring_);
    check(sqe != nullptr, "a ring has as many entries as it is deep");
    char* const place = memory_ + (own_place_ ? next : lane) * size_;
    const PlainRead& read = reads[next++];
    lanes[lane] = {Clock::now(), read.first_word, place};
    io_uring_prep_read(sqe, fd_, place, static_cast<unsigned>(size), read.offset);
    io_uring_sqe_set_data64(sqe, lane);
    return io_uring_submit(&ring_) == 1 ? 0 : EIO;
  };
  const Clock::time_point begin = Clock::now();
  int error = 0;
  uint64_t wrong = 0;
  size_t flying = 0;
  for (unsigned lane = 0; lane < depth && next < reads.size(); ++lane) {
    error = submit(lane);
    ++flying;
  }
  // After an error nothing more is asked for, but what flies must land: it writes to our memory.
  while (flying != 0) {
    io_uring_cqe* cqe = nullptr;
    if (const int result = io_uring_wait_cqe(&ring_, &cqe); result != 0) {
      if (result == -EINTR) {
        continue;
      }
      throw Failure(kExitFailed, fmt::format("io_uring: {}", std::strerror(-result)));
    }
    const auto lane = static_cast<unsigned>(io_uring_cqe_get_data64(cqe));
    const int result = cqe->res;
    io_uring_cqe_seen(&ring_, cqe);
    --flying;
    pass.latency_us.push_back(us_since(lanes[lane].started));
    if (result != static_cast<int>(size)) {
      error = result < 0 ? -result : EIO;
    }
    uint64_t word = 0;
    std::memcpy(&word, lanes[lane].place, sizeof(word));
    wrong += lanes[lane].first_word == 0 || word == lanes[lane].first_word ? 0 : 1;
    if (error == 0 && next < reads.size()) {
      error = submit(lane);
      ++flying;
    }
  }
  pass.seconds = us_since(begin) / 1e6;
  if (error != 0) {
    throw Failure(kExitFailed, fmt::format("a plain read failed: {}", std::strerror(error)));
  }
  if (wrong != 0) {
    throw Failure(kExitFailed,
                  fmt::format("{} of {} plain reads found another page than was there before: "
                              "the two sides do not read the same bytes",
                              wrong, reads.size()));
  }
  return pass;
}

int open_direct(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC);
  if (fd < 0) {
    throw Failure(errno == EINVAL ? kExitImpossible : kExitFailed,
                  fmt::format("{}: {}; the file system must take O_DIRECT: name another directory "
                              "with --dir",
                              path, std::strerror(errno)));
  }
  return fd;
}

std::vector<PlainRead> data_of(int fd, uint64_t step) {
  std::vector<PlainRead> all;
  const off_t size = lseek(fd, 0, SEEK_END);
  for (uint64_t at = 0; size > 0 && at + step <= static_cast<uint64_t>(size); at += step) {
    const off_t data = lseek(fd, static_cast<off_t>(at), SEEK_DATA);
    if (data < 0) {
      break;  // only holes are left
    }
    const uint64_t here = static_cast<uint64_t>(data) / step * step;
    at = std::max(at, here);
    if (at + step <= static_cast<uint64_t>(size)) {
      all.push_back({at, 0});
    }
  }
  return all;
}

}  // namespace kvmm::bench
