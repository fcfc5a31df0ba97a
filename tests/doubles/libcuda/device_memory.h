// SPDX-License-Identifier: Apache-2.0
//
// The double's device memory: address reservations, physical allocations, mappings, rights.
//
//   allocation = a memfd          mapping = mmap(MAP_SHARED) of it, so that aliases really alias
//   reservation = PROT_NONE       rights  = mprotect, so that a touch without access dies
//
// Semantics follow the CUDA driver API reference 13.0, section "Virtual Memory Management", in its
// strictest reading: whole allocations only, an unmap or a change of rights covers whole mappings
// without gaps, a fresh mapping has no access, memory lives until its last mapping and handle are
// gone. New memory is never zeros by luck (fill_fresh).
//
// Thread safety: guarded by the caller's lock.
#pragma once

#include <cstdint>
#include <map>
#include <memory>

#include "drivers/cuda/cuda_api.h"

namespace kvmm::cuda_double {

using cuda::CuAccessDesc;
using cuda::CuAllocationProp;
using cuda::CuResult;

// The start of every 64 KiB piece becomes 0xcd: enough to spoil each digest of a page that was
// thought to be zeros, and cheap.
void fill_fresh(void* p, uint64_t bytes);

class DeviceMemory {
 public:
  DeviceMemory(uint64_t granularity, uint64_t capacity, int devices, bool read_only_mappings)
      : granularity_(granularity),
        capacity_(capacity),
        devices_(devices),
        read_only_mappings_(read_only_mappings) {}
  ~DeviceMemory();

  uint64_t granularity() const { return granularity_; }
  CuResult check_prop(const CuAllocationProp* prop) const;
  CuResult create(uint64_t* handle, uint64_t bytes, const CuAllocationProp* prop);
  CuResult release(uint64_t handle);
  CuResult reserve(uint64_t* va, uint64_t bytes, uint64_t alignment);
  CuResult free_range(uint64_t va, uint64_t bytes);
  CuResult map(uint64_t va, uint64_t bytes, uint64_t offset, uint64_t handle);
  CuResult unmap(uint64_t va, uint64_t bytes);
  CuResult set_access(uint64_t va, uint64_t bytes, const CuAccessDesc* desc, size_t count);

  // Whether the GPU may read (or write) every byte of the range now.
  bool accessible(uint64_t va, uint64_t bytes, bool write) const;
  bool in_reservation(uint64_t va) const;

  uint64_t allocations() const;
  uint64_t mappings() const { return mappings_.size(); }
  uint64_t reservations() const { return reservations_.size(); }

 private:
  struct Allocation {
    Allocation(int fd, uint64_t n, uint64_t* total) : memfd(fd), bytes(n), used(total) {
      *used += n;
    }
    ~Allocation();
    int memfd;
    uint64_t bytes;
    uint64_t* used;
  };
  struct Mapping {
    uint64_t bytes;
    std::shared_ptr<Allocation> allocation;
    int access = 0;  // kAccessNone, kAccessRead, kAccessReadWrite
  };
  // True if [va, va + bytes) consists of whole mappings without a gap.
  bool whole_mappings(uint64_t va, uint64_t bytes) const;
  bool aligned(uint64_t v) const { return v % granularity_ == 0; }

  const uint64_t granularity_;
  const uint64_t capacity_;
  const int devices_;
  const bool read_only_mappings_;
  uint64_t used_ = 0;
  uint64_t next_handle_ = 0x7000000001;                      // opaque and never used twice
  std::map<uint64_t, uint64_t> reservations_;                // start -> bytes
  std::map<uint64_t, Mapping> mappings_;                     // start -> mapping
  std::map<uint64_t, std::shared_ptr<Allocation>> handles_;  // not released
};

}  // namespace kvmm::cuda_double
