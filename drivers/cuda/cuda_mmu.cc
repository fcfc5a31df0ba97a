// SPDX-License-Identifier: Apache-2.0
#include "drivers/cuda/cuda_mmu.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "runtime/base/check.h"

namespace kvmm::cuda {

CudaMmu::~CudaMmu() {
  while (waiting_ != nullptr) {
    MmuRequest& req = static_cast<MmuRequest&>(*waiting_);
    waiting_ = req.next;
    finish_all(req, Errc::kCancelled);
  }
  for (auto& [start, space] : spaces_) {
    release_space(start, space);
  }
  for (auto& [base, area] : areas_) {
    release_area(base, area);
  }
}

MmuInfo CudaMmu::info() const {
  MmuInfo info;
  info.name = "cuda";
  info.granule = gpu_.granule();
  info.page_size_max = kPageSizeMax;
  info.faults = false;
  info.asynchronous = true;
  info.protects = gpu_.read_only_mappings();
  info.poisons = false;
  info.kind = FrameKind::kDma;
  return info;
}

// ------------------------------------------------------------------------- reservations and frames

Result<AddressRange> CudaMmu::reserve(Bytes length, Bytes align, Bytes page_size) {
  if (!is_page_size(page_size) || !std::has_single_bit(align.value()) || align < gpu_.granule() ||
      length == Bytes(0) || length.value() % align.value() != 0) {
    return Error(Errc::kInvalid,
                 "a reservation is a multiple of its alignment, a power of two of "
                 "at least one granule");
  }
  Space space;
  space.length = length;
  Result<LazyArray<uint64_t>> slots = LazyArray<uint64_t>::create(length / gpu_.granule());
  if (!slots) {
    return slots.error();
  }
  space.slots = *std::move(slots);
  const ContextScope scope(gpu_);
  CuDevicePtr va = 0;
  CuResult r = scope.result();
  if (r == CuResult::kSuccess) {
    r = gpu_.api().mem_address_reserve(&va, length.value(), align.value(), 0, 0);
  }
  if (r != CuResult::kSuccess) {
    return gpu_.error("cuMemAddressReserve", r);
  }
  check(va % align.value() == 0, "the reservation is aligned", va, align);
  spaces_.emplace(va, std::move(space));
  gpu_.addresses().add(va, length.value(), AddressMap::Kind::kDevice);
  return AddressRange{VirtAddr(va), length};
}

void CudaMmu::release(AddressRange range) {
  const auto it = spaces_.find(range.start.value());
  check(it != spaces_.end(), "a reservation is released once");
  check(it->second.length == range.length, "the whole reservation", it->second.length,
        range.length);
  for (size_t i = 0; it->second.used != 0 && i < it->second.slots.size(); ++i) {
    const uint64_t slot = it->second.slots[i];
    check(slot == 0 || (slot & kFlags) != 0, "nothing is mapped in a released range", i, slot);
  }
  release_space(it->first, it->second);
  spaces_.erase(it);
}

// Also takes down what is still mapped.
void CudaMmu::release_space(uint64_t start, Space& space) {
  const ContextScope scope(gpu_);
  const uint64_t granule = gpu_.granule().value();
  for (size_t i = 0; i < space.slots.size() && space.used != 0; ++i) {
    const uint64_t slot = space.slots[i];
    if (slot != 0 && (slot & kTail) == 0) {
      const FrameRef frame = find_frame(FrameAddr(slot & ~kFlags));
      gpu_.torn_down(gpu_.api().mem_unmap(start + i * granule, frame.area->frame_size.value()));
      --frame.area->users[frame.index];
      --space.used;
    }
  }
  gpu_.torn_down(gpu_.api().mem_address_free(start, space.length.value()));
  gpu_.addresses().remove(start);
}

Result<FrameArea> CudaMmu::create_frames(Bytes size, uint32_t count, NodeId node) {
  static_cast<void>(node);
  const uint64_t bytes = size.value();
  if (!std::has_single_bit(bytes) || size < gpu_.granule() || size > kPageSizeMax || count == 0) {
    return Error(Errc::kInvalid, "frames of this GPU are powers of two from its granule to 2 MiB");
  }
  Area area;
  area.frame_size = size;
  const ContextScope scope(gpu_);
  if (scope.result() != CuResult::kSuccess) {
    return gpu_.error("cuCtxPushCurrent", scope.result());
  }
  const CudaApi& api = gpu_.api();
  CuDevicePtr base = 0;
  CuResult r = api.mem_address_reserve(&base, bytes * count, bytes, 0, 0);
  if (r != CuResult::kSuccess) {
    return gpu_.error("cuMemAddressReserve", r);
  }
  area.reserved = size * count;
  const char* call = "cuMemCreate";
  const CuAllocationProp prop = gpu_.allocation_prop();
  area.handles.reserve(count);
  while (r == CuResult::kSuccess && area.handles.size() < count) {
    CuAllocation handle = 0;
    r = api.mem_create(&handle, bytes, &prop, 0);
    if (r == CuResult::kSuccess) {
      area.handles.push_back(handle);
    }
  }
  if (r == CuResult::kSuccess) {
    call = "cuMemMap";
  }
  while (r == CuResult::kSuccess && area.mapped < count) {
    r = api.mem_map(base + area.mapped * bytes, bytes, 0, area.handles[area.mapped], 0);
    area.mapped += r == CuResult::kSuccess ? 1 : 0;
  }
  if (r == CuResult::kSuccess) {
    call = "cuMemSetAccess";
    const CuAccessDesc rights = gpu_.access(kAccessReadWrite);
    r = api.mem_set_access(base, bytes * count, &rights, 1);
  }
  gpu_.addresses().add(base, area.reserved.value(), AddressMap::Kind::kDevice);
  if (r != CuResult::kSuccess) {
    release_area(base, area);
    return gpu_.error(call, r);
  }
  area.users.assign(count, 0);
  areas_.emplace(base, std::move(area));
  return FrameArea{FrameAddr(base), size, count, FrameKind::kDma, base};
}

void CudaMmu::destroy_frames(const FrameArea& area) {
  const auto it = areas_.find(area.base.value());
  check(it != areas_.end(), "an area is destroyed once");
  check(std::ranges::all_of(it->second.users, [](uint32_t n) { return n == 0; }),
        "no frame of a destroyed area is mapped");
  release_area(it->first, it->second);
  areas_.erase(it);
}

// Takes back as much of the area as was made, in reverse order.
void CudaMmu::release_area(uint64_t base, Area& area) {
  const ContextScope scope(gpu_);
  const CudaApi& api = gpu_.api();
  while (area.mapped > 0) {
    --area.mapped;
    gpu_.torn_down(
        api.mem_unmap(base + area.mapped * area.frame_size.value(), area.frame_size.value()));
  }
  while (!area.handles.empty()) {
    gpu_.torn_down(api.mem_release(area.handles.back()));
    area.handles.pop_back();
  }
  gpu_.torn_down(api.mem_address_free(base, area.reserved.value()));
  gpu_.addresses().remove(base);
}

CudaMmu::Slot CudaMmu::find_slot(VirtAddr va, Bytes page_size) {
  const uint64_t granule = gpu_.granule().value();
  if (page_size < gpu_.granule() || !is_page_size(page_size) ||
      va.value() % page_size.value() != 0) {
    return {};
  }
  Slot slot;
  slot.error = Errc::kRange;
  auto it = spaces_.upper_bound(va.value());
  if (it == spaces_.begin()) {
    return slot;
  }
  --it;
  const uint64_t offset = va.value() - it->first;
  const uint64_t length = it->second.length.value();
  if (offset >= length || page_size.value() > length - offset) {
    return slot;
  }
  return {&it->second, &it->second.slots[offset / granule], Errc::kOk};
}

CudaMmu::FrameRef CudaMmu::find_frame(FrameAddr frame) {
  auto it = areas_.upper_bound(frame.value());
  if (it == areas_.begin()) {
    return {nullptr, 0};
  }
  --it;
  const uint64_t offset = frame.value() - it->first;
  const uint64_t size = it->second.frame_size.value();
  if (offset >= it->second.reserved.value() || offset % size != 0) {
    return {nullptr, 0};
  }
  return {&it->second, offset / size};
}

void CudaMmu::fill_slots(uint64_t* first, uint64_t n, uint64_t value) {
  for (uint64_t i = 0; i < n; ++i) {
    first[i] = i == 0 || value == 0 ? value : value | kTail;
  }
}

// ---------------------------------------------------------------------------------------- requests

size_t CudaMmu::submit(std::span<MmuRequest* const> requests) {
  const ContextScope scope(gpu_);
  for (MmuRequest* req : requests) {
    if (scope.result() == CuResult::kSuccess) {
      start(*req);
    } else {
      finish_all(*req, to_errc(scope.result()));
    }
  }
  return requests.size();
}

void CudaMmu::poll() {
  if (waiting_ == nullptr) {
    return;
  }
  const ContextScope scope(gpu_);
  Request** link = &waiting_;
  while (*link != nullptr) {
    MmuRequest& req = static_cast<MmuRequest&>(**link);
    const Errc answer =
        scope.result() == CuResult::kSuccess ? ask(req.fence) : to_errc(scope.result());
    if (answer == Errc::kAgain) {
      link = &req.next;
      continue;
    }
    *link = req.next;
    if (answer == Errc::kOk) {
      execute(req);
    } else {
      finish_all(req, answer);
    }
  }
  waiting_end_ = link;
}

Errc CudaMmu::ask(const Fence& fence) const {
  switch (fence.kind) {
    case Fence::Kind::kNone:
      return Errc::kOk;
    case Fence::Kind::kCallback:
      if (fence.done == nullptr) {
        return Errc::kInvalid;
      }
      return fence.done(fence.handle) ? Errc::kOk : Errc::kAgain;
    case Fence::Kind::kEvent:
      if (fence.handle == nullptr) {
        return Errc::kInvalid;
      }
      return to_errc(gpu_.api().event_query(static_cast<CuEvent>(fence.handle)));
  }
  return Errc::kInvalid;
}

void CudaMmu::start(MmuRequest& req) {
  if (req.op == MmuOp::kMap || req.op == MmuOp::kProtect) {
    execute(req);
    return;
  }
  const Errc answer = ask(req.fence);
  if (answer == Errc::kOk) {
    execute(req);
  } else if (answer != Errc::kAgain) {
    finish_all(req, answer);
  } else {
    req.next = nullptr;
    *waiting_end_ = &req;
    waiting_end_ = &req.next;
  }
}

void CudaMmu::finish_all(MmuRequest& req, Errc result) {
  for (MapEntry& e : req.entries) {
    e.result = result;
  }
  req.result = result;
  req.queue->push(req);
}

void CudaMmu::finish(MmuRequest& req) {
  req.result = Errc::kOk;
  for (const MapEntry& e : req.entries) {
    if (e.result != Errc::kOk) {
      req.result = e.result;
      break;
    }
  }
  req.queue->push(req);
}

}  // namespace kvmm::cuda
