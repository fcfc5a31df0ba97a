// SPDX-License-Identifier: Apache-2.0
//
// The host's MMUs for shareable frames: the memory of a range is a memfd, mapped twice.
//
//   engine range  |    |####|    |####|   HostShareMmu: a page is mapped by UFFDIO_CONTINUE (the
//        memfd    | .. |####|####|####|     kernel's page cache has it already), unmapped by
//   alias         |####|####|####|####|     MADV_DONTNEED; a touch of an unmapped page is a fault
//                                         HostPinMmu: by mprotect; a touch of an unmapped page is
//   I/O, copies and checksums go            SIGSEGV, and no userfaultfd is needed: engines that pin
//   through the alias, always
//
// Frames are fixed: the frame of the page at `va` is the memory at the same offset of the memfd,
// its address is `fixed_frame(va)`. `reserve` makes them all, without memory; a touch of the alias
// gives a frame memory (zeros), MmuOp::kFree takes it back. Mapping a frame without memory is
// kNotFound. UFFDIO_CONTINUE costs 7 us for 64 KiB and 124 us for 2 MiB; filling is slower than for
// movable frames, since the kernel allocates and zeroes.
//
// Each run of equal protection in a HostPinMmu costs a VMA: kLimit when vm.max_map_count is
// reached.
//
// Invariants: a granule that the book calls full is in the page cache and mapped. Thread safety: as
// MmuOps.
#pragma once

#include <memory>

#include "drivers/host/mmu_base.h"

namespace kvmm {

// What both have in common: ranges over a memfd, frames fixed to addresses.
class FixedFrameMmu : public HostMmu {
 public:
  ~FixedFrameMmu() override;

  // `page_size` is a hint that means nothing here. Errors: kInvalid, kNoMemory, kLimit (file
  // descriptors: one a range).
  Result<AddressRange> reserve(Bytes length, Bytes align, Bytes page_size) override;
  void release(AddressRange range) override;
  Result<FrameArea> create_frames(Bytes size, uint32_t count, NodeId node) override;
  void destroy_frames(const FrameArea& area) override;
  FrameAddr fixed_frame(VirtAddr va) const override;

 protected:
  FixedFrameMmu(const HostConfig& config, std::optional<Uffd>&& uffd, int engine_prot)
      : HostMmu(config, std::move(uffd)), engine_prot_(engine_prot) {}

  Outcome map(Region& range, MapEntry& e, Bytes size, Prot prot) override;
  Outcome unmap(Region& range, MapEntry& e, Bytes size) override;
  Outcome free(Region& range, MapEntry& e, Bytes size) override;
  // Makes [va, va + size) accessible, or not; all or nothing.
  virtual Outcome show(uint64_t va, uint64_t size, Prot prot) = 0;
  virtual Outcome hide(uint64_t va, uint64_t size) = 0;
  // Maps a page of its own pattern, compares, unmaps, frees. REQUIRES: nothing is reserved.
  Result<void> self_test();

 private:
  void destroy(const Region& region);

  const int engine_prot_;  // of a fresh engine range
};

class HostShareMmu final : public FixedFrameMmu {
 public:
  // Errors: kPermission, kNotSupported (both with what to do), kNoMemory, kLimit.
  static Result<std::unique_ptr<HostShareMmu>> create(const HostConfig& config);
  MmuInfo info() const override;
  // Besides maps again what the engine itself has unmapped of a mapped page (MADV_DONTNEED).
  void wake(AddressRange range) override;

 protected:
  Outcome show(uint64_t va, uint64_t size, Prot prot) override;
  Outcome hide(uint64_t va, uint64_t size) override;

 private:
  HostShareMmu(const HostConfig& config, Uffd uffd);
};

class HostPinMmu final : public FixedFrameMmu {
 public:
  // Errors: kNotSupported (no memfd), kNoMemory, kLimit.
  static Result<std::unique_ptr<HostPinMmu>> create(const HostConfig& config);
  MmuInfo info() const override;

 protected:
  Outcome show(uint64_t va, uint64_t size, Prot prot) override;
  Outcome hide(uint64_t va, uint64_t size) override;
  Outcome protect(Region& range, MapEntry& e, Bytes size, Prot prot) override;
  Outcome clear(Region& range, MapEntry& e, Bytes size) override;

 private:
  explicit HostPinMmu(const HostConfig& config);
};

}  // namespace kvmm
