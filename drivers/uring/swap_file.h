// SPDX-License-Identifier: Apache-2.0
//
// One file or block device, opened for direct I/O by nobody else.
//
//   path --stat--> regular file or block device? --open O_DIRECT--> --flock--> --grow--> SwapFile
//            |                                        |                |          |
//            kInvalid (FIFO, directory, ...)          kNotSupported    kBusy      kNoSpace
//
// Invariants
//   1. A failed open leaves the system as it was: a file that it created is unlinked, a file that
//      it grew has its old size.
//   2. While a SwapFile lives, no other SwapFile of this or another process has the same inode. A
//      block device is opened O_EXCL besides, so that a mounted one is refused.
//   3. capacity() is a multiple of alignment() and not beyond the end of the file, unless somebody
//      truncates the file behind us.
//
// Thread safety: one thread. Ownership: the descriptor and its lock.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

#include "drivers/uring/uring_calls.h"
#include "runtime/base/result.h"
#include "runtime/base/units.h"

namespace kvmm {

struct SwapFileConfig {
  std::string path;
  Bytes size;             // at least this large; 0: as large as it is
  bool prealloc = false;  // give every byte disk blocks now, instead of at its first write
};

class SwapFile {
 public:
  // BLOCKING. Errors (each text names the path): kInvalid (neither file nor block device, size 0, a
  // device smaller than size), kBusy (in use), kNotSupported (no direct I/O on this file system),
  // kPermission (also of a file that other users may read: it will hold KV), kNotFound (no such
  // folder), kNoSpace (also a file size limit), kLimit (descriptors), kIo.
  static Result<SwapFile> open(const UringCalls& calls, const SwapFileConfig& config);

  SwapFile(SwapFile&& o) noexcept { *this = std::move(o); }
  SwapFile& operator=(SwapFile&& o) noexcept;
  ~SwapFile();  // unlocks also if a forked child still has the descriptor

  int fd() const { return fd_; }
  Bytes capacity() const { return capacity_; }
  Bytes alignment() const { return alignment_; }
  // How the device gives place back: nothing, a hole (a file; a device: zeros without writing them)
  // or a discard of the device.
  enum class Discards : uint8_t { kNot, kHole, kDevice };
  Discards discards() const { return discards_; }
  // The device has refused one: the next best.
  void discard_refused() {
    discards_ = discards_ == Discards::kDevice && holes_ ? Discards::kHole : Discards::kNot;
  }
  // What fallocate could grow it to by the limits of when it was opened; 0: it cannot.
  Bytes grows_to() const { return grows_to_; }
  // NON-BLOCKING. What it can by the limits of now: beyond them the kernel sends SIGXFSZ.
  Bytes size_limit() const;
  // fallocate has made it that long.
  void grown(Bytes capacity) { capacity_ = std::max(capacity_, capacity); }
  const std::string& path() const { return path_; }

  // BLOCKING. A file grows to `capacity`; a block device can only be found to have grown. On an
  // error nothing has changed. Errors: kInvalid (not aligned, smaller than now), kNoSpace,
  // kNotSupported (a device, or prealloc on a file system without), kIo.
  Result<void> grow(Bytes capacity);

  // BLOCKING. Invariant 1 for a caller that cannot use the file after all. REQUIRES: nothing has
  // been written to it; only the destructor may follow.
  void undo_open();

 private:
  explicit SwapFile(const UringCalls& calls) : calls_(calls) {}
  Result<void> open_locked(const std::string& path);
  Result<void> check_private(const struct stat& file) const;
  Result<void> find_alignment();
  Result<void> find_size(Bytes wanted);
  Result<void> find_discard();
  void find_growth();
  Result<void> fill(Bytes from, Bytes to);  // prealloc of [from, to)
  Error refuse(Errc code, const std::string& text, int os_error) const;
  Error refuse_growth(Bytes capacity, int os_error) const;

  // Constant after open(), but for capacity_, which only grows, and discards_.
  UringCalls calls_{};
  std::string path_;
  int fd_ = -1;
  bool is_device_ = false;
  bool prealloc_ = false;
  bool holes_ = false;  // a hole can be made
  Bytes grows_to_;
  bool created_ = false;      // by this open: undone by unlink
  uint64_t size_before_ = 0;  // of a regular file, for the undo
  Discards discards_ = Discards::kNot;
  Bytes capacity_;
  Bytes alignment_;
};

}  // namespace kvmm
