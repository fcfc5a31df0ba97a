// SPDX-License-Identifier: Apache-2.0
#include "tools/kvbench/plain_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <random>

#include "runtime/base/check.h"
#include "tools/kvbench/benchmark.h"
#include "tools/kvbench/scratch.h"

namespace kvmm::bench {
namespace {

using Clock = std::chrono::steady_clock;
constexpr uint64_t kStep = 2 << 20;

double us_since(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

}  // namespace

PlainFile::PlainFile(const std::string& dir, uint64_t bytes, uint64_t size, unsigned depth) {
  check(bytes % kStep == 0 && size <= kStep && depth != 0, "shape of the file", bytes, size);
  {
    const ScratchDir scratch(dir, bytes);
    const std::string path = scratch.file("plain");
    fd_ = open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_DIRECT | O_CLOEXEC, 0600);
    if (fd_ < 0) {
      throw Failure(errno == EINVAL ? kExitImpossible : kExitFailed,
                    fmt::format("{}: {}; the file system must take O_DIRECT: name another "
                                "directory with --dir",
                                path, std::strerror(errno)));
    }
  }
  try {
    memory_bytes_ = kStep * (depth + 1);  // one more: a whole huge page whatever the start is
    void* const memory =
        mmap(nullptr, memory_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
      throw Failure(kExitFailed,
                    fmt::format("{} MiB of memory: {}", memory_bytes_ >> 20, std::strerror(errno)));
    }
    memory_ = static_cast<char*>(memory);
    (void)madvise(memory_, memory_bytes_, MADV_HUGEPAGE);  // a wish; small pages do too
    write_all(bytes);
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

PlainFile::~PlainFile() {
  release();
}

void PlainFile::release() {
  if (ring_open_) {
    io_uring_queue_exit(&ring_);
  }
  if (memory_ != nullptr) {
    munmap(memory_, memory_bytes_);
  }
  if (fd_ >= 0) {
    close(fd_);
  }
}

void PlainFile::write_all(uint64_t bytes) {
  std::mt19937_64 random(1);  // not zeros: a disk may treat them as nothing
  for (uint64_t i = 0; i < memory_bytes_; i += sizeof(uint64_t)) {
    const uint64_t word = random();
    std::memcpy(memory_ + i, &word, sizeof(word));
  }
  for (uint64_t at = 0; at < bytes; at += kStep) {
    std::memcpy(memory_, &at, sizeof(at));
    const ssize_t n = pwrite(fd_, memory_, kStep, static_cast<off_t>(at));
    if (n != static_cast<ssize_t>(kStep)) {
      throw Failure(kExitFailed, fmt::format("writing the file for plain reads: {}; name another "
                                             "directory with --dir",
                                             n < 0 ? std::strerror(errno) : "cut short"));
    }
  }
  if (fsync(fd_) != 0) {
    throw Failure(kExitFailed,
                  fmt::format("flushing the file for plain reads: {}", std::strerror(errno)));
  }
}

Pass PlainFile::read(const std::vector<uint64_t>& pages, uint64_t size, unsigned depth) {
  check(size <= kStep && kStep * (depth + 1) <= memory_bytes_, "as it was made", size, depth);
  Pass pass;
  pass.latency_us.reserve(pages.size());
  std::vector<Clock::time_point> started(depth);
  size_t next = 0;
  const auto submit = [&](unsigned lane) {
    io_uring_sqe* const sqe = io_uring_get_sqe(&ring_);
    check(sqe != nullptr, "a ring has as many entries as it is deep");
    started[lane] = Clock::now();
    io_uring_prep_read(sqe, fd_, memory_ + lane * kStep, static_cast<unsigned>(size),
                       pages[next++] * size);
    io_uring_sqe_set_data64(sqe, lane);
    return io_uring_submit(&ring_) == 1 ? 0 : EIO;
  };
  const Clock::time_point begin = Clock::now();
  int error = 0;
  size_t flying = 0;
  for (unsigned lane = 0; lane < depth && next < pages.size(); ++lane) {
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
    pass.latency_us.push_back(us_since(started[lane]));
    if (result != static_cast<int>(size)) {
      error = result < 0 ? -result : EIO;
    }
    if (error == 0 && next < pages.size()) {
      error = submit(lane);
      ++flying;
    }
  }
  pass.seconds = us_since(begin) / 1e6;
  if (error != 0) {
    throw Failure(kExitFailed, fmt::format("a plain read failed: {}", std::strerror(error)));
  }
  return pass;
}

}  // namespace kvmm::bench
