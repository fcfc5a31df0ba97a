// SPDX-License-Identifier: Apache-2.0
//
// BlockOps on one io_uring over one SwapFile.
//
//   submit: request -> slot -> SQE ... one io_uring_submit for the batch      (depth slots)
//   kernel: CQE, and a tick of the eventfd
//   poll:   CQE -> slot: all bytes?  yes: result, push, slot free
//                                    no:  SQE for the rest (short), or once more (EAGAIN, EINTR)
//
// Invariants
//   1. A slot has at most one SQE in flight; SQ and CQ hold one entry a slot, so neither overflows.
//   2. Neither submit nor poll allocates or waits. (The kernel may take time to issue a batch.)
//   3. No buffer is registered: registration pins movable frames, and a pinned frame cannot be
//      moved to its address.
//   4. If the ring itself fails (io_uring_submit answers what does not go away), every request that
//      the kernel has not seen, and every later one, finishes with kDeviceGone.
//
// Results of the kernel's errno: ENOSPC, EDQUOT, EFBIG -> kNoSpace; ENODEV, ENXIO, ESHUTDOWN ->
// kDeviceGone; EOPNOTSUPP -> kNotSupported (of a discard: when no other way is left, and
// info().discards becomes false); ECANCELED for good
// -> kLimit (the user has no threads left for the kernel's workers); the end of the file (somebody
// truncated it) -> kIo with ENODATA; all others kIo.
//
// Thread safety: as BlockOps; submit and poll may come from different threads one after another.
// A thread that submitted may see EINTR from epoll_wait(2) and the like when its I/O completes.
// Ownership: the file and the ring. The destructor waits for what is in flight, since the kernel
// would go on writing to the caller's buffers.
#pragma once

#include <liburing.h>

#include <memory>
#include <vector>

#include "drivers/ops.h"
#include "drivers/uring/swap_file.h"
#include "drivers/uring/uring_calls.h"

namespace kvmm {

class UringBlock final : public BlockOps {
 public:
  // BLOCKING. Sets up the ring, opens the file, and reads its first bytes to see that this kernel,
  // this container and this file system let all of it through.
  // Errors: those of SwapFile::open; kPermission and kNotSupported (io_uring is refused or lacks
  // an operation; the text has the ways to allow it), kLimit (locked memory, descriptors).
  static Result<std::unique_ptr<UringBlock>> create(const UringCalls& calls,
                                                    const SwapFileConfig& config, uint32_t depth);
  ~UringBlock() override;
  UringBlock(const UringBlock&) = delete;
  UringBlock& operator=(const UringBlock&) = delete;

  BlockInfo info() const override;
  size_t submit(std::span<BlockRequest* const> requests) override;
  void poll() override;
  int event_fd() const override { return event_fd_; }
  bool arm() override;
  Result<void> resize(Bytes capacity) override { return file_->grow(capacity); }

 private:
  struct Slot {
    BlockRequest* request = nullptr;  // null: free
    uint64_t done = 0;                // bytes of it that are transferred
    uint32_t retries = 0;             // EAGAIN, EINTR, ECANCELED in a row
  };

  UringBlock(const UringCalls& calls, uint32_t depth) : calls_(calls), depth_(depth) {}
  Result<void> open_ring();
  Result<void> try_read();
  void prepare(uint32_t slot);
  void push_batch();  // io_uring_submit, and what its answers mean
  void ring_failed(int os_error);
  void complete(uint32_t slot, int32_t res);  // a CQE
  void finish(uint32_t slot, Errc result, int os_error);

  // Constant after create().
  UringCalls calls_;
  uint32_t depth_;
  std::unique_ptr<SwapFile> file_;
  io_uring ring_{};
  bool ring_open_ = false;
  int event_fd_ = -1;

  // Guarded by the caller's serialisation.
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_;    // slots, used as a stack
  std::vector<uint32_t> queued_;  // slots whose SQE the kernel has not taken yet, oldest first
  int ring_error_ = 0;            // errno that ended the ring, or 0
  bool arms_ = false;             // the owner calls arm() before it sleeps: no ticks in between
};

}  // namespace kvmm
