// SPDX-License-Identifier: Apache-2.0
//
// The host's MMU for movable frames: a page is mapped by moving its frame to the engine's address.
//
//   frame area   |####|    |####|####|        kMap: UFFDIO_MOVE frame -> va, kUnmap: va -> frame.
//                        \                    No copy, no zeroing, atomic against the engine's
//   engine range |    |####|    |    |        threads; the memory is in exactly one of the places.
//
// Huge pages. A 2 MiB move takes 1 us if the frame is one huge page and the target has no page
// table; else it takes 500 us and splits the frame for good. So both sides of a 2 MiB page are
// cleared by MADV_DONTNEED first (0.5 us; the driver's own book says that nothing is there), a move
// that would fail is refused by that book, and after each way back the frame is looked at: one that
// was split is counted and reported (`MapEntry::split`), and `rebuild` heals it. Kernels before
// 6.14 keep an empty page table through MADV_DONTNEED: there a 2 MiB page that follows small pages
// at one address does cost its frame. Ranges for 2 MiB pages are MADV_HUGEPAGE, because a fault in
// any other range leaves a page table behind; the price is 30-40 us more for a write fault.
//
// Small frames are cut from huge ones, and a kernel that takes a huge page apart (the first small
// move does) maps its zero pages to the shared zero page and frees their memory; the next write
// then gets other memory, page by page: scattered, and outside the frame. So `carve` writes a word
// to each 4 KiB first and takes the huge page apart itself. Reads of 64 KiB into frames that stayed
// whole take half the time of reads into scattered ones (docs/measurements/cpu.md).
//
// Trouble. EAGAIN and EBUSY are retried a bounded number of times, then everything is moved back
// and the entry says kBusy. EEXIST with nothing present is a marker: cleared, retried once. A page
// is never left in two halves; if even the way back fails, the entry says kIo and the book is
// exact.
//
// An engine that gives memory of a mapped page back itself (MADV_DONTNEED) expects zeros, as of any
// memory: the holes get fresh zero pages when they are touched or when the page is unmapped.
//
// Invariants
//   1. Every page of ours is in a frame area or in a range, never in both, never in none.
//   2. Nothing touches the address of an empty frame: it would wait for ever.
// Thread safety: as MmuOps; `rebuild` from any thread, for a frame that nobody else uses.
#pragma once

#include <memory>

#include "drivers/host/mmu_base.h"
#include "drivers/host/pagemap.h"
#include "runtime/base/lock.h"

namespace kvmm {

class HostMoveMmu final : public HostMmu {
 public:
  // Opens userfaultfd, checks the features, moves a page out and in and compares it.
  // Errors: kPermission, kNotSupported (both with what to do), kNoMemory, kLimit, kInvalid (node).
  static Result<std::unique_ptr<HostMoveMmu>> create(const HostConfig& config);
  ~HostMoveMmu() override;

  MmuInfo info() const override;
  Result<AddressRange> reserve(Bytes length, Bytes align, Bytes page_size) override;
  void release(AddressRange range) override;
  // Bound to `node`, which may be any of the machine. Frames of 2 MiB are huge where the system
  // gives such pages.
  Result<FrameArea> create_frames(Bytes size, uint32_t count, NodeId node) override;
  void destroy_frames(const FrameArea& area) override;
  void wake(AddressRange range) override;
  bool carve(FrameAddr frame) override;

  // BLOCKING. Replaces the memory of the 2 MiB frame at `frame` by one fresh huge page of zeros.
  // REQUIRES: the frame is unmapped and nobody else uses it. Errors: kInvalid (no whole huge frame
  // of ours), kNoMemory (the system has no huge page now; the frame is as it was), kIo.
  Result<void> rebuild(FrameAddr frame);

 protected:
  Outcome map(Region& range, MapEntry& e, Bytes size, Prot prot) override;
  Outcome unmap(Region& range, MapEntry& e, Bytes size) override;

 private:
  HostMoveMmu(const HostConfig& config, Uffd uffd, Pagemap pagemap)
      : HostMmu(config, std::move(uffd)), pagemap_(std::move(pagemap)) {}

  struct Side {
    Region& region;
    uint64_t address;
  };
  // Moves one whole page or nothing.
  Outcome move_page(Side to, Side from, uint64_t size, bool wake);
  // Moves until done or stuck; returns how far it came and why it stopped.
  UffdStep move_bytes(uint64_t dst, uint64_t src, uint64_t length, bool wake, uint32_t retries);
  // 0 or errno: ENOMEM, ENOENT (no mapping any more).
  int fill_holes(uint64_t start, uint64_t length);
  void look_at_frame(Region& frames, uint64_t frame, MapEntry& e);
  Result<void> self_test();

  const Pagemap pagemap_;
  VirtAddr aside_;  // constant after create: 4 KiB where `carve` puts a page for a moment
  Mutex frames_mutex_{LockRank::kDevice};  // held to change frames_, and by `rebuild` to search it;
                                           // never during a system call
  RegionMap frames_;                       // searched by serialised callers without the mutex
};

}  // namespace kvmm
