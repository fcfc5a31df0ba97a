// SPDX-License-Identifier: Apache-2.0
//
// Pins: pages that stay mapped while an engine's kernels use them.
//
//   pin(batch)   every page of every range: pins++, wanted if it is not mapped
//   ...          pages arrive; a range is ready when none of its pages is missing
//   unpin(fence) pins-- once the fence is done
//
// Invariants: a page's pins are the number of batch ranges that cover it; a page with pins > 0 is
// never reclaimed, truncated or discarded.
//
// Thread safety: guarded by the core lock. Ownership: the caller owns the batch until unpin.
#pragma once

#include <boost/intrusive/list.hpp>
#include <vector>

#include "drivers/ops.h"
#include "vmm/address_space.h"

namespace kvmm {

enum class PinAnswer : uint8_t { kReady, kComing, kRecompute, kFailed };

// Pages [begin, end) of one plane of one session.
struct PinSpan {
  Object* object = nullptr;
  uint32_t begin = 0, end = 0;
};

struct PinRange {
  AddressSpace* space = nullptr;
  bool write = false;
  std::vector<PinSpan> spans;
  uint64_t missing = 0;  // pages that are not mapped yet
  PinAnswer answer = PinAnswer::kComing;
};

struct PinBatch {
  boost::intrusive::list_member_hook<> hook;  // open batches that still miss pages
  std::vector<PinRange> ranges;
  bool pinned = false;
  // Called from a step when no range is coming any more. NON-BLOCKING.
  void (*settled)(void* context) = nullptr;
  void* context = nullptr;
};

struct FencedUnpin {
  std::vector<PinRange> ranges;
  Fence fence;
};

class PinTable {
 public:
  using List = boost::intrusive::list<
      PinBatch, boost::intrusive::member_hook<PinBatch, boost::intrusive::list_member_hook<>,
                                              &PinBatch::hook>>;
  List open;  // batches with missing pages
};

}  // namespace kvmm
