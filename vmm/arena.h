// SPDX-License-Identifier: Apache-2.0
//
// An arena: the address ranges of one model in one engine, laid out as its kernels want them.
//
//   strided:     plane k_l0  [ lane 0 | lane 1 | lane 2 | ... ]   one range a plane, lane_stride
//   apart
//                plane v_l0  [ lane 0 | lane 1 | lane 2 | ... ]
//   contiguous:  session 7   [ k_l0 | v_l0 | k_l1 | ... ]         one range a session
//
// A lane's pages: a page belongs to the lane that its first byte lies in, so that strides which are
// no multiple of the page size work too: for raw sessions of faulting engines, whose touches ask
// for a page whosever it is. No page belongs to two sessions.
//
// Thread safety: guarded by the core lock.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "drivers/ops.h"
#include "runtime/base/result.h"
#include "vmm/identity.h"

namespace kvmm {

class AddressSpace;

enum class Placement : uint8_t { kStrided, kContiguous };
enum class EngineKind : uint8_t { kFaulting, kPinning };

struct PlaneSpec {
  std::string name;
  VirtAddr base;  // strided: of lane 0. contiguous: offset in the session's range
  Bytes lane_stride;
  Bytes token_stride;  // 0: unknown (raw)
  uint32_t layers = 1;
  uint32_t window = 0;  // tokens; 0: full attention
  Bytes page_size;      // 0: by page_size_for()
};

struct ArenaSpec {
  uint64_t id = 0;
  std::string name;
  ModelId model_id{};
  bool model_is_random = false;
  std::string layout;
  uint32_t lanes = 1;
  uint64_t lane_tokens = 0;
  Placement placement = Placement::kStrided;
  EngineKind engine = EngineKind::kFaulting;
};

// The largest power of two from 4 KiB to 2 MiB that divides the stride (and the base's alignment);
// 4 KiB if none does.
Bytes page_size_for(Bytes lane_stride, VirtAddr base);

// The pages of one lane of one plane.
struct LanePages {
  VirtAddr start;
  uint32_t pages = 0;
};
LanePages lane_pages(const PlaneSpec& plane, uint32_t lane);

struct Arena {
  ArenaSpec spec;
  MmuOps* mmu = nullptr;
  PageIdentity identity;  // model and layout
  std::vector<PlaneSpec> planes;
  std::vector<AddressRange> ranges;  // reserved with the MMU; given back by the owner
  std::vector<AddressSpace*> lanes;  // null: free
  uint32_t open_spaces = 0;

  static Result<std::unique_ptr<Arena>> create(ArenaSpec spec, MmuOps& mmu);

  // Checks a plane against the arena: kInvalid (sizes, alignment), kRange (outside a reserved
  // range), kExists (overlap).
  Result<void> check_plane(const PlaneSpec& plane) const;
  // Whether every lane of the plane begins and ends where a page does.
  bool whole_lanes(const PlaneSpec& plane) const;
  // kInvalid: structured sessions cannot tell which of the plane's pages are written.
  Result<void> check_structured(const PlaneSpec& plane) const;
  const AddressRange* range_of(VirtAddr a) const;
};

}  // namespace kvmm
