// SPDX-License-Identifier: Apache-2.0
//
// What page-in is compared with: the same file read with O_DIRECT through io_uring, into memory
// that is there already, nothing verified, nobody waiting in a fault. One thread keeps `depth`
// reads in flight. No program that wants these bytes can do with less.
//
//   offsets in the file -> [ depth reads in flight ] -> one latency each, seconds of all
//
// Thread safety: none.
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

struct PlainRead {
  uint64_t offset = 0;
  uint64_t first_word = 0;  // what must be there; 0: anything
};

// Where plain reads put the bytes.
struct ReadInto {
  // 0: a place for each read in flight, used again and again. Else each read of a pass has a place
  // of its own, as bytes must have that somebody wants to keep; `places` bounds the reads of a
  // pass.
  uint64_t places = 0;
  bool huge = true;  // memory of 2 MiB pages, if the kernel gives them; else of 4 KiB
};

class PlainReads {
 public:
  // Reads of `fd` (O_DIRECT, owned from here on) of at most `size` <= 2 MiB, at most `depth` at
  // once. Throws Failure (77: no io_uring).
  PlainReads(int fd, uint64_t size, unsigned depth, const ReadInto& into = {});
  ~PlainReads();
  PlainReads(const PlainReads&) = delete;
  PlainReads& operator=(const PlainReads&) = delete;

  // `size` bytes at each offset (a multiple of 4 KiB), in this order. REQUIRES: size and depth as
  // given to the constructor, or less. Throws Failure: a read failed, or other bytes came.
  Pass read(const std::vector<PlainRead>& reads, uint64_t size, unsigned depth);
  int fd() const { return fd_; }

 private:
  void release();

  int fd_ = -1;
  bool own_place_ = false;
  uint64_t size_ = 0;  // of a place
  uint64_t places_ = 0;
  io_uring ring_{};
  bool ring_open_ = false;
  char* mapped_ = nullptr;
  char* memory_ = nullptr;  // the first whole 2 MiB of it
  uint64_t memory_bytes_ = 0;
};

// Opens `path` for PlainReads. Throws Failure.
int open_direct(const std::string& path);
// Every multiple of `step` at which the file holds data (holes left out), ascending.
std::vector<PlainRead> data_of(int fd, uint64_t step);

}  // namespace kvmm::bench
