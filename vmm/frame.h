// SPDX-License-Identifier: Apache-2.0
//
// A page frame: memory of one tier that can hold one page. `struct page` of an operating system is
// split here: `Frame` is the memory, `Page` (vmm/page.h) is the content.
//
//   state      page     who may touch the bytes
//   free       null     zeroing and rebuilding workers
//   in use     set      the engine while mapped; I/O and checksums while unmapped
//
// Thread safety: guarded by the core lock. Ownership: the frame table of a pool
// (tiers/frame_pool.h).
#pragma once

#include <boost/intrusive/list.hpp>
#include <cstdint>

#include "runtime/base/units.h"

namespace kvmm {

struct Page;

// Lists of pages are by tier, so their number is bounded.
inline constexpr uint32_t kTiersMax = 16;

struct Frame {
  boost::intrusive::list_member_hook<> free_hook;  // in a free list of its pool
  Page* page = nullptr;                            // null: free
  FrameAddr addr;
  uint32_t block = 0;   // which 2 MiB block of the pool it was carved from
  uint32_t tenant = 0;  // whose bytes may still be in it (0: nobody's)
  TierId tier;
  uint8_t size_shift = 0;  // log2 of its size
  bool zeroed = false;     // free and known to be all zeros
  bool working = false;    // free, but a worker zeroes or rebuilds it
  Bytes size() const { return Bytes(uint64_t{1} << size_shift); }
};

}  // namespace kvmm
