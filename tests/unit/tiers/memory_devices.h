// SPDX-License-Identifier: Apache-2.0
//
// Devices for these tests: an MMU whose frames are only addresses, and a disk that is a vector.
//
// Both let a test look behind them: the disk's bytes can be damaged, its errors are switched on one
// by one, and it can finish requests late, out of `submit`.
#pragma once

#include <algorithm>
#include <deque>
#include <vector>

#include "drivers/ops.h"

namespace kvmm {

class AddressMmu : public MmuOps {
 public:
  MmuInfo info() const override {
    MmuInfo i;
    i.name = "addresses";
    i.granule = Bytes(256);
    i.page_size_max = kPageSizeMax;
    i.kind = fixed ? FrameKind::kShareable : FrameKind::kMovable;
    i.fixed_frames = fixed;
    return i;
  }
  Result<AddressRange> reserve(Bytes, Bytes, Bytes) override { return Errc::kNotSupported; }
  void release(AddressRange) override {}
  Result<FrameArea> create_frames(Bytes size, uint32_t count, NodeId node) override {
    if (fail != Errc::kOk) {
      return fail;
    }
    asked_node = node;
    ++areas;
    return FrameArea{FrameAddr(uint64_t{1} << 40), size, count, FrameKind::kMovable, 1};
  }
  void destroy_frames(const FrameArea&) override { --areas; }
  bool carve(FrameAddr) override {
    ++carves;
    return keeps_carved;
  }
  size_t submit(std::span<MmuRequest* const>) override { return 0; }

  bool fixed = false;
  bool keeps_carved = true;  // what `carve` answers
  int carves = 0;
  Errc fail = Errc::kOk;
  NodeId asked_node;
  int areas = 0;  // created and not destroyed
};

class MemoryDisk : public BlockOps {
 public:
  explicit MemoryDisk(uint64_t capacity, uint64_t alignment = 512)
      : bytes(capacity), alignment_(alignment) {}

  BlockInfo info() const override {
    BlockInfo i;
    i.name = "memory";
    i.capacity = Bytes(bytes.size());
    i.alignment = Bytes(alignment_);
    i.length_max = length_max;
    i.depth = 4;
    i.discards = discards;
    i.grows_to = grows_to;
    return i;
  }
  size_t submit(std::span<BlockRequest* const> requests) override {
    if (refuse_submits > 0) {
      --refuse_submits;
      return 0;
    }
    for (BlockRequest* r : requests) {
      if (late) {
        waiting_.push_back(r);
      } else {
        finish(*r);
      }
    }
    return requests.size();
  }
  // Finishes one request every second poll: a caller that polls once and gives up fails.
  void poll() override {
    ++polls;
    if (polls % 2 == 0 && !waiting_.empty()) {
      BlockRequest* r = waiting_.front();
      waiting_.pop_front();
      finish(*r);
    }
  }
  Result<void> resize(Bytes capacity) override {
    if (!grows) {
      return Errc::kNotSupported;
    }
    bytes.resize(capacity.value());
    return {};
  }

  std::vector<std::byte> bytes;
  Bytes length_max = kib(64);
  bool discards = true;
  bool late = false;
  bool grows = false;
  Bytes grows_to;
  int refuse_submits = 0;
  Errc fail_read = Errc::kOk, fail_write = Errc::kOk, fail_flush = Errc::kOk;
  int os_error = 0;
  int reads = 0, writes = 0, flushes = 0, polls = 0;

 private:
  void finish(BlockRequest& r) {
    r.result = perform(r);
    r.os_error = r.result == Errc::kOk ? 0 : os_error;
    r.queue->push(r);
  }
  Errc perform(BlockRequest& r) {
    const uint64_t n = r.length.value();
    if (r.op == BlockOp::kFlush) {
      ++flushes;
      return fail_flush;
    }
    if (r.offset % alignment_ != 0 || n % alignment_ != 0 || n == 0 || r.length > length_max ||
        r.offset + n > bytes.size() ||
        (r.data != nullptr && reinterpret_cast<uintptr_t>(r.data) % alignment_ != 0)) {
      return Errc::kInvalid;
    }
    const auto at = bytes.begin() + static_cast<ptrdiff_t>(r.offset);
    const auto end = at + static_cast<ptrdiff_t>(n);
    switch (r.op) {
      case BlockOp::kRead:
        ++reads;
        if (fail_read == Errc::kOk) {
          std::copy(at, end, r.data);
        }
        return fail_read;
      case BlockOp::kWrite:
        ++writes;
        if (fail_write == Errc::kOk) {
          std::copy(r.data, r.data + n, at);
        }
        return fail_write;
      default:
        std::fill(at, end, std::byte{0});
        return Errc::kOk;
    }
  }

  uint64_t alignment_;
  std::deque<BlockRequest*> waiting_;
};

}  // namespace kvmm
