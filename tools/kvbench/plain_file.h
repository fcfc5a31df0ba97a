// SPDX-License-Identifier: Apache-2.0
//
// What page-in is compared with: the same bytes from the same disk by O_DIRECT reads through
// io_uring, into memory that is there already, nothing verified, nobody waiting in a fault. One
// thread keeps `depth` reads in flight. No program that wants these bytes can do with less.
#pragma once

#include <liburing.h>

#include <cstdint>
#include <string>
#include <vector>

namespace kvmm::bench {

// One go over some pages.
struct Pass {
  double seconds = 0;
  std::vector<double> latency_us;  // one of each page: asked for until there
};

class PlainFile {
 public:
  // A file of `bytes` (a multiple of 2 MiB) random bytes in `dir`, written and flushed; reads of at
  // most `size` bytes, at most `depth` at once. Throws Failure (77: no io_uring, no O_DIRECT).
  PlainFile(const std::string& dir, uint64_t bytes, uint64_t size, unsigned depth);
  ~PlainFile();
  PlainFile(const PlainFile&) = delete;
  PlainFile& operator=(const PlainFile&) = delete;

  // Reads `size` bytes at each of `pages` (numbers of `size` bytes), in this order. REQUIRES: size
  // and depth as given to the constructor, or less. Throws Failure: a read failed.
  Pass read(const std::vector<uint64_t>& pages, uint64_t size, unsigned depth);

 private:
  void write_all(uint64_t bytes);
  void release();

  int fd_ = -1;
  io_uring ring_{};
  bool ring_open_ = false;
  char* memory_ = nullptr;
  uint64_t memory_bytes_ = 0;
};

}  // namespace kvmm::bench
