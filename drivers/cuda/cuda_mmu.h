// SPDX-License-Identifier: Apache-2.0
//
// MmuOps of a GPU: the driver API's virtual memory management.
//
//   frame 7 (a physical handle of >= 2 MiB, created ahead)
//      |                                    |
//      +-- direct map, always, read-write   +-- va of a session, while mapped
//          FrameArea.base + 7 * size            any number of them (dma: many users)
//
// Alias semantics: `kMap` adds a mapping of the frame and moves no bytes; the frame keeps its
// address in the direct map, through which copies reach it, mapped or not. `kUnmap` takes the
// mapping at va away; its entry must name the frame that is mapped there.
//
//   state of a page of a reservation   kMap         kUnmap       kProtect     kClear
//   empty                              -> mapped    kNotFound    kNotFound    kOk
//   mapped                             kExists      -> empty     kOk          kExists
//   stuck                              -> mapped *  kNotFound    kNotFound    -> empty *
//   * if the driver now unmaps it, else kBusy. A page is stuck, without access, when the undo of
//     a failed kMap failed too.
//
// Costs (A100/H100, 2 MiB): create 193 us, map 1.5, set access 36-50, unmap 26-30. So one
// `cuMemSetAccess` is issued for each run of entries whose addresses follow one another: give
// entries in address order. Unmapping is one call a page: the API documents no more than that.
//
// Invariants
//   1. Nothing is unmapped before its fence is done; a fence that cannot be asked means "no".
//   2. An entry that failed leaves the page as it was, or stuck; other entries are not touched.
//   3. The table of a reservation, not the driver, says what is mapped; nothing but the table's
//      lazily committed memory grows on submit.
//
// Thread safety: serialised by the caller. Fences' `done` is called from submit and poll and must
// not call back. Destruction REQUIRES that no request is in flight; what waits for a fence all the
// same is finished as kCancelled.
#pragma once

#include <map>
#include <vector>

#include "drivers/cuda/gpu.h"
#include "drivers/ops.h"
#include "runtime/base/lazy_array.h"

namespace kvmm::cuda {

class CudaMmu final : public MmuOps {
 public:
  explicit CudaMmu(Gpu& gpu) : gpu_(gpu) {}
  ~CudaMmu() override;
  CudaMmu(const CudaMmu&) = delete;
  CudaMmu& operator=(const CudaMmu&) = delete;

  MmuInfo info() const override;
  MmuStats stats() const override { return stats_; }
  Result<AddressRange> reserve(Bytes length, Bytes align, Bytes page_size) override;
  void release(AddressRange range) override;
  // `size` is a multiple of the granule and a power of two; `node` is ignored: the memory is the
  // GPU's. Also kDeviceGone, kIo.
  Result<FrameArea> create_frames(Bytes size, uint32_t count, NodeId node) override;
  void destroy_frames(const FrameArea& area) override;
  // Takes all. Also answers per entry: kInvalid (alignment, no such frame, a frame of another size,
  // kUnmap of another frame), kRange (va is in no reservation), kNotSupported (kPoison, kFree, and
  // kProtect where info().protects is false).
  size_t submit(std::span<MmuRequest* const> requests) override;
  void poll() override;

 private:
  // One reservation. A slot a granule: 0, or the frame's address with flags in its low bits.
  struct Space {
    Bytes length;
    LazyArray<uint64_t> slots;
    uint64_t used = 0;  // pages mapped or stuck
  };
  // Frames and their direct map.
  struct Area {
    Bytes frame_size;
    Bytes reserved;
    std::vector<CuAllocation> handles;
    std::vector<uint32_t> users;  // mappings of each frame besides the direct map
    uint64_t mapped = 0;          // of the direct map
  };
  struct FrameRef {
    Area* area;
    size_t index;
  };
  // Flags in the low bits of a slot: a frame's address is a multiple of the granule.
  static constexpr uint64_t kTail = 1;   // not the first granule of its page
  static constexpr uint64_t kStuck = 2;  // mapped at the driver, without access, for nobody
  static constexpr uint64_t kFlags = kTail | kStuck;
  struct Slot {
    Space* space = nullptr;
    uint64_t* first = nullptr;  // of page_size / granule slots; null: `error` says why
    Errc error = Errc::kInvalid;
  };

  Slot find_slot(VirtAddr va, Bytes page_size);
  FrameRef find_frame(FrameAddr frame);
  static void fill_slots(uint64_t* first, uint64_t n, uint64_t value);

  // kOk: done. kAgain: not yet. Else the fence cannot be asked.
  Errc ask(const Fence& fence) const;
  void start(MmuRequest& req);
  void execute(MmuRequest& req);
  void execute_map(MmuRequest& req);
  void execute_protect(MmuRequest& req);
  Errc map_page(const MapEntry& e, Bytes page_size);
  Errc unmap_page(const MapEntry& e, Bytes page_size);
  Errc clear_page(const MapEntry& e, Bytes page_size);
  Errc free_stuck(const Slot& slot, VirtAddr va, Bytes page_size);
  void undo_map(MapEntry& e, Bytes page_size, Errc why);
  CuResult set_access(std::span<const MapEntry> run, Bytes page_size, Prot prot);
  void finish_all(MmuRequest& req, Errc result);
  static void finish(MmuRequest& req);
  void release_space(uint64_t start, Space& space);
  void release_area(uint64_t base, Area& area);

  Gpu& gpu_;
  std::map<uint64_t, Space> spaces_;
  std::map<uint64_t, Area> areas_;
  Request* waiting_ = nullptr;         // for a fence, in order of submission, by Request::next
  Request** waiting_end_ = &waiting_;  // where the next one goes
  MmuStats stats_;
};

}  // namespace kvmm::cuda
