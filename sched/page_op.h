// SPDX-License-Identifier: Apache-2.0
//
// One operation on one page that a device or a worker carries out: fill, map, unmap, check, write,
// migrate, read. All are taken from a pool made at start, so that the fault path allocates nothing.
//
//   read:  chunk 0 [ I/O ......][ checksum | checksum | ... ]    parts, side by side
//          chunk 1    [ I/O ......][ checksum | ... ]     which overlap the I/O of the next chunk
//          ...                        verify: one digest over the list and the identity
//
// Thread safety: guarded by the core lock; devices own the requests in flight (drivers/request.h).
#pragma once

#include <array>
#include <boost/intrusive/list.hpp>

#include "drivers/ops.h"
#include "tiers/pager.h"
#include "vmm/identity.h"
#include "vmm/page.h"
#include "vmm/vma.h"

namespace kvmm {

inline constexpr uint32_t kChunksMax = 8;
// Checksums and zeroing of a page are cut into as many requests as there are data workers to share
// them: up to kChunksMax, of this size at least.
inline constexpr Bytes kPartMin = kPieceSize;
inline constexpr uint32_t kEntriesMax = 8;

// What a request in the core's completion queue belongs to (Request::kind).
enum class RequestKind : uint32_t {
  kPageMmu,
  kPageIo,
  kPageData,
  kPoisonStray,
  kZeroAhead,
  kIndex,
  kFlush,
  kDiscard,
  kGrow
};

struct PageOp {
  struct Chunk {
    BlockRequest io;
    DataRequest sum;
    bool submitted = false;
  };

  boost::intrusive::list_member_hook<> hook;  // free list
  Page* page = nullptr;
  Tick started;
  PageEvent event = PageEvent::kFill;  // what began it
  uint8_t outstanding = 0;             // requests in flight
  uint8_t io_left = 0;                 // of these, reads of the device
  uint8_t chunks_used = 0;
  uint8_t entries_used = 0;
  uint8_t phase = 0;  // kMigrate: how far it is
  Errc error = Errc::kOk;
  int os_error = 0;
  SlotId slot{};            // kWrite: the new slot
  Frame* to = nullptr;      // kMigrate: the new frame
  uint64_t checksum = 0;    // kWrite, kMigrate: of the content on its way
  uint32_t generation = 0;  // kWrite
  MmuRequest mmu;
  std::array<MapEntry, kEntriesMax> entries;
  std::array<Vma*, kEntriesMax> vmas{};
  std::array<Chunk, kChunksMax> chunks;
  std::array<uint64_t, kMaxPieces> digests{};
};

using PageOpList = boost::intrusive::list<
    PageOp,
    boost::intrusive::member_hook<PageOp, boost::intrusive::list_member_hook<>, &PageOp::hook>>;

}  // namespace kvmm
