// SPDX-License-Identifier: Apache-2.0
//
// What each op of a request does to its pages, and how a half done one is taken back.
#include <algorithm>

#include "drivers/cuda/cuda_mmu.h"
#include "runtime/base/check.h"

namespace kvmm::cuda {

namespace {

constexpr int access_flags(Prot prot, bool read_only_mappings) {
  switch (prot) {
    case Prot::kNone:
      return kAccessNone;
    case Prot::kRead:
      return read_only_mappings ? kAccessRead : kAccessReadWrite;
    case Prot::kReadWrite:
      return kAccessReadWrite;
  }
  return kAccessNone;
}

}  // namespace

void CudaMmu::execute(MmuRequest& req) {
  switch (req.op) {
    case MmuOp::kMap:
      execute_map(req);
      break;
    case MmuOp::kUnmap:
      for (MapEntry& e : req.entries) {
        e.result = unmap_page(e, req.page_size);
      }
      break;
    case MmuOp::kProtect:
      execute_protect(req);
      break;
    case MmuOp::kClear:
      for (MapEntry& e : req.entries) {
        e.result = clear_page(e, req.page_size);
      }
      break;
    case MmuOp::kPoison:
    case MmuOp::kFree:
      finish_all(req, Errc::kNotSupported);
      return;
  }
  finish(req);
}

void CudaMmu::execute_map(MmuRequest& req) {
  for (MapEntry& e : req.entries) {
    e.result = map_page(e, req.page_size);
  }
  // A new mapping has no access at all: kNone needs no call.
  size_t i = 0;
  while (i < req.entries.size() && req.prot != Prot::kNone) {
    size_t end = i + 1;
    while (end < req.entries.size() && req.entries[i].result == Errc::kOk &&
           req.entries[end].result == Errc::kOk &&
           req.entries[end].va == req.entries[end - 1].va + req.page_size) {
      ++end;
    }
    if (req.entries[i].result == Errc::kOk) {
      const CuResult r = set_access(req.entries.subspan(i, end - i), req.page_size, req.prot);
      for (size_t k = end; r != CuResult::kSuccess && k > i; --k) {
        undo_map(req.entries[k - 1], req.page_size, to_errc(r));
      }
    }
    i = end;
  }
  for (const MapEntry& e : req.entries) {
    stats_.maps += e.result == Errc::kOk ? 1 : 0;
  }
}

void CudaMmu::execute_protect(MmuRequest& req) {
  if (!gpu_.read_only_mappings()) {
    for (MapEntry& e : req.entries) {
      e.result = Errc::kNotSupported;
    }
    return;
  }
  // One call a page: a run of pages would change some and not others if it failed half way.
  for (MapEntry& e : req.entries) {
    const Slot slot = find_slot(e.va, req.page_size);
    if (slot.first == nullptr) {
      e.result = slot.error;
    } else if (*slot.first == 0 || (*slot.first & kFlags) != 0) {
      e.result = Errc::kNotFound;
    } else {
      e.result = to_errc(set_access({&e, 1}, req.page_size, req.prot));
    }
  }
}

CuResult CudaMmu::set_access(std::span<const MapEntry> run, Bytes page_size, Prot prot) {
  const CuAccessDesc rights = gpu_.access(access_flags(prot, gpu_.read_only_mappings()));
  return gpu_.api().mem_set_access(run.front().va.value(), page_size.value() * run.size(), &rights,
                                   1);
}

Errc CudaMmu::map_page(const MapEntry& e, Bytes page_size) {
  const Slot slot = find_slot(e.va, page_size);
  const FrameRef frame = find_frame(e.frame);
  if (slot.first == nullptr) {
    return slot.error;
  }
  if (frame.area == nullptr || frame.area->frame_size != page_size) {
    return Errc::kInvalid;
  }
  if (const Errc r = free_stuck(slot, e.va, page_size); r != Errc::kOk) {
    return r;
  }
  const uint64_t n = page_size / gpu_.granule();
  if (std::any_of(slot.first, slot.first + n, [](uint64_t s) { return s != 0; })) {
    return Errc::kExists;
  }
  const CuResult r =
      gpu_.api().mem_map(e.va.value(), page_size.value(), 0, frame.area->handles[frame.index], 0);
  if (r != CuResult::kSuccess) {
    return to_errc(r);
  }
  fill_slots(slot.first, n, e.frame.value());
  ++slot.space->used;
  ++frame.area->users[frame.index];
  return Errc::kOk;
}

// The page was mapped but got no access.
void CudaMmu::undo_map(MapEntry& e, Bytes page_size, Errc why) {
  if (unmap_page(e, page_size) == Errc::kOk) {
    --stats_.unmaps;  // the caller never saw it mapped
  } else {
    const Slot slot = find_slot(e.va, page_size);
    fill_slots(slot.first, page_size / gpu_.granule(), e.frame.value() | kStuck);
  }
  e.result = why;
}

Errc CudaMmu::unmap_page(const MapEntry& e, Bytes page_size) {
  const Slot slot = find_slot(e.va, page_size);
  if (slot.first == nullptr) {
    return slot.error;
  }
  if (*slot.first == 0 || (*slot.first & kFlags) != 0) {
    return Errc::kNotFound;
  }
  const FrameRef frame = find_frame(e.frame);
  if (*slot.first != e.frame.value() || frame.area->frame_size != page_size) {
    return Errc::kInvalid;
  }
  const CuResult r = gpu_.api().mem_unmap(e.va.value(), page_size.value());
  if (r != CuResult::kSuccess) {
    return to_errc(r);
  }
  fill_slots(slot.first, page_size / gpu_.granule(), 0);
  --slot.space->used;
  --frame.area->users[frame.index];
  ++stats_.unmaps;
  return Errc::kOk;
}

Errc CudaMmu::clear_page(const MapEntry& e, Bytes page_size) {
  const Slot slot = find_slot(e.va, page_size);
  if (slot.first == nullptr) {
    return slot.error;
  }
  if (const Errc r = free_stuck(slot, e.va, page_size); r != Errc::kOk) {
    return r;
  }
  if (*slot.first != 0) {
    return Errc::kExists;
  }
  ++stats_.clears;
  return Errc::kOk;
}

Errc CudaMmu::free_stuck(const Slot& slot, VirtAddr va, Bytes page_size) {
  if ((*slot.first & kFlags) != kStuck) {
    return Errc::kOk;
  }
  const FrameRef frame = find_frame(FrameAddr(*slot.first & ~kFlags));
  ++stats_.busy_retries;
  if (frame.area->frame_size != page_size ||
      gpu_.api().mem_unmap(va.value(), page_size.value()) != CuResult::kSuccess) {
    return Errc::kBusy;
  }
  fill_slots(slot.first, page_size / gpu_.granule(), 0);
  --slot.space->used;
  --frame.area->users[frame.index];
  return Errc::kOk;
}

}  // namespace kvmm::cuda
