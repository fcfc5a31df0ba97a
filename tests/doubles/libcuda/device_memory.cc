// SPDX-License-Identifier: Apache-2.0
#include "tests/doubles/libcuda/device_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <set>

namespace kvmm::cuda_double {

namespace {

void* at(uint64_t va) {
  return reinterpret_cast<void*>(va);
}

// Back to addresses without memory or rights.
bool clear_range(uint64_t va, uint64_t bytes) {
  return mmap(at(va), bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
              0) != MAP_FAILED;
}

}  // namespace

void fill_fresh(void* p, uint64_t bytes) {
  for (uint64_t at_byte = 0; at_byte < bytes; at_byte += 64 << 10) {
    std::memset(static_cast<char*>(p) + at_byte, 0xcd, std::min<uint64_t>(4096, bytes - at_byte));
  }
}

DeviceMemory::Allocation::~Allocation() {
  close(memfd);
  *used -= bytes;
}

DeviceMemory::~DeviceMemory() {
  for (const auto& [va, bytes] : reservations_) {
    munmap(at(va), bytes);
  }
}

CuResult DeviceMemory::check_prop(const CuAllocationProp* prop) const {
  if (prop == nullptr || prop->type != cuda::kAllocationPinned ||
      prop->location.type != cuda::kLocationDevice || prop->requested_handle_types != 0 ||
      prop->win32_handle_meta_data != nullptr || prop->alloc_flags.compression_type != 0 ||
      prop->alloc_flags.usage != 0) {
    return CuResult::kInvalidValue;
  }
  const int id = prop->location.id;
  return id >= 0 && id < devices_ ? CuResult::kSuccess : CuResult::kInvalidDevice;
}

CuResult DeviceMemory::create(uint64_t* handle, uint64_t bytes, const CuAllocationProp* prop) {
  if (const CuResult r = check_prop(prop); r != CuResult::kSuccess) {
    return r;
  }
  if (handle == nullptr || bytes == 0 || !aligned(bytes)) {
    return CuResult::kInvalidValue;
  }
  if (bytes > capacity_ - used_) {
    return CuResult::kOutOfMemory;
  }
  const int fd = memfd_create("double-hbm", MFD_CLOEXEC);
  if (fd < 0) {
    return CuResult::kOperatingSystem;
  }
  auto allocation = std::make_shared<Allocation>(fd, bytes, &used_);
  if (ftruncate(fd, static_cast<off_t>(bytes)) != 0) {
    return CuResult::kOutOfMemory;
  }
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (p == MAP_FAILED) {
    return CuResult::kOutOfMemory;
  }
  fill_fresh(p, bytes);
  munmap(p, bytes);
  *handle = next_handle_;
  next_handle_ += 0x10;
  handles_.emplace(*handle, std::move(allocation));
  return CuResult::kSuccess;
}

CuResult DeviceMemory::release(uint64_t handle) {
  return handles_.erase(handle) == 1 ? CuResult::kSuccess : CuResult::kInvalidValue;
}

CuResult DeviceMemory::reserve(uint64_t* va, uint64_t bytes, uint64_t alignment) {
  if (va == nullptr || bytes == 0 || !aligned(bytes) ||
      (alignment != 0 && !std::has_single_bit(alignment))) {
    return CuResult::kInvalidValue;
  }
  const uint64_t align = alignment < granularity_ ? granularity_ : alignment;
  void* p =
      mmap(nullptr, bytes + align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) {
    return CuResult::kOutOfMemory;
  }
  const uint64_t raw = reinterpret_cast<uint64_t>(p);
  const uint64_t start = (raw + align - 1) / align * align;
  if (start != raw) {
    munmap(p, start - raw);
  }
  if (const uint64_t tail = raw + align - start; tail != 0) {
    munmap(at(start + bytes), tail);
  }
  reservations_.emplace(start, bytes);
  *va = start;
  return CuResult::kSuccess;
}

CuResult DeviceMemory::free_range(uint64_t va, uint64_t bytes) {
  const auto it = reservations_.find(va);
  if (it == reservations_.end() || it->second != bytes) {
    return CuResult::kInvalidValue;
  }
  const auto mapped = mappings_.lower_bound(va);
  if (mapped != mappings_.end() && mapped->first < va + bytes) {
    return CuResult::kInvalidValue;
  }
  munmap(at(va), bytes);
  reservations_.erase(it);
  return CuResult::kSuccess;
}

CuResult DeviceMemory::map(uint64_t va, uint64_t bytes, uint64_t offset, uint64_t handle) {
  const auto found = handles_.find(handle);
  if (found == handles_.end() || !aligned(va) || bytes == 0 || !aligned(bytes) || offset != 0 ||
      bytes != found->second->bytes) {
    return CuResult::kInvalidValue;
  }
  auto r = reservations_.upper_bound(va);
  if (r == reservations_.begin()) {
    return CuResult::kInvalidValue;
  }
  --r;
  if (va - r->first >= r->second || bytes > r->second - (va - r->first)) {
    return CuResult::kInvalidValue;
  }
  auto next = mappings_.lower_bound(va);
  if (next != mappings_.end() && next->first < va + bytes) {
    return CuResult::kInvalidValue;
  }
  if (next != mappings_.begin()) {
    --next;
    if (next->first + next->second.bytes > va) {
      return CuResult::kInvalidValue;
    }
  }
  if (mmap(at(va), bytes, PROT_NONE, MAP_SHARED | MAP_FIXED, found->second->memfd, 0) ==
      MAP_FAILED) {
    return CuResult::kOperatingSystem;
  }
  mappings_.emplace(va, Mapping{bytes, found->second});
  return CuResult::kSuccess;
}

bool DeviceMemory::whole_mappings(uint64_t va, uint64_t bytes) const {
  const uint64_t end = va + bytes;
  if (bytes == 0 || end < va) {
    return false;
  }
  for (auto it = mappings_.find(va); it != mappings_.end() && it->first == va; ++it) {
    va += it->second.bytes;
    if (va >= end) {
      break;
    }
  }
  return va == end;
}

CuResult DeviceMemory::unmap(uint64_t va, uint64_t bytes) {
  if (!whole_mappings(va, bytes)) {
    return CuResult::kInvalidValue;
  }
  if (!clear_range(va, bytes)) {
    return CuResult::kOperatingSystem;
  }
  mappings_.erase(mappings_.find(va), mappings_.lower_bound(va + bytes));
  return CuResult::kSuccess;
}

CuResult DeviceMemory::set_access(uint64_t va, uint64_t bytes, const CuAccessDesc* desc,
                                  size_t count) {
  if (desc == nullptr || count != 1 || !whole_mappings(va, bytes)) {
    return CuResult::kInvalidValue;
  }
  if (desc->location.type != cuda::kLocationDevice || desc->location.id < 0 ||
      desc->location.id >= devices_) {
    return CuResult::kInvalidDevice;
  }
  int prot = PROT_NONE;
  if (desc->flags == cuda::kAccessReadWrite) {
    prot = PROT_READ | PROT_WRITE;
  } else if (desc->flags == cuda::kAccessRead) {
    if (!read_only_mappings_) {
      return CuResult::kNotSupported;
    }
    prot = PROT_READ;
  } else if (desc->flags != cuda::kAccessNone) {
    return CuResult::kInvalidValue;
  }
  if (mprotect(at(va), bytes, prot) != 0) {
    return CuResult::kOperatingSystem;
  }
  for (auto it = mappings_.find(va); it != mappings_.end() && it->first < va + bytes; ++it) {
    it->second.access = desc->flags;
  }
  return CuResult::kSuccess;
}

bool DeviceMemory::accessible(uint64_t va, uint64_t bytes, bool write) const {
  const uint64_t end = va + bytes;
  auto it = mappings_.upper_bound(va);
  if (it == mappings_.begin() || end < va) {
    return false;
  }
  --it;
  while (va < end) {
    if (it == mappings_.end() || it->first > va || it->first + it->second.bytes <= va) {
      return false;
    }
    const int need = write ? cuda::kAccessReadWrite : cuda::kAccessRead;
    if ((it->second.access & need) != need) {
      return false;
    }
    va = it->first + it->second.bytes;
    ++it;
  }
  return true;
}

bool DeviceMemory::in_reservation(uint64_t va) const {
  auto it = reservations_.upper_bound(va);
  return it != reservations_.begin() && va - (--it)->first < it->second;
}

uint64_t DeviceMemory::allocations() const {
  std::set<const Allocation*> alive;
  for (const auto& [handle, allocation] : handles_) {
    alive.insert(allocation.get());
  }
  for (const auto& [va, mapping] : mappings_) {
    alive.insert(mapping.allocation.get());
  }
  return alive.size();
}

}  // namespace kvmm::cuda_double
