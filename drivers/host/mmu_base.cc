// SPDX-License-Identifier: Apache-2.0
#include "drivers/host/mmu_base.h"

#include <sys/mman.h>

#include <bit>
#include <cerrno>

#include "drivers/host/uapi.h"
#include "runtime/base/check.h"

namespace kvmm {
namespace {

void* pointer(uint64_t address) {
  return reinterpret_cast<void*>(address);
}

bool fence_done(const Fence& f) {
  return f.kind == Fence::Kind::kNone || f.done(f.handle);
}

}  // namespace

bool valid_reservation(Bytes length, Bytes align, Bytes page_size) {
  return is_page_size(page_size) && std::has_single_bit(align.value()) && align >= kPageSizeMin &&
         length.value() != 0 && length.value() % align.value() == 0 &&
         length.value() < (uint64_t{1} << 56) && align.value() <= kGiB * 512;
}

size_t HostMmu::submit(std::span<MmuRequest* const> requests) {
  for (MmuRequest* r : requests) {
    const bool callback = r->fence.kind == Fence::Kind::kCallback;
    if (r->fence.kind == Fence::Kind::kEvent || (callback && r->fence.done == nullptr)) {
      for (MapEntry& e : r->entries) {
        e.result = Errc::kInvalid;  // no event of the host's exists
      }
      r->result = Errc::kInvalid;
      r->queue->push(*r);
    } else if (fence_done(r->fence)) {
      run(*r);
    } else {
      r->next = nullptr;
      *waiting_tail_ = r;
      waiting_tail_ = &r->next;
    }
  }
  return requests.size();
}

void HostMmu::poll() {
  Request** at = &waiting_;
  while (*at != nullptr) {
    auto* r = static_cast<MmuRequest*>(*at);
    if (!fence_done(r->fence)) {
      at = &r->next;
      continue;
    }
    *at = r->next;
    run(*r);
  }
  waiting_tail_ = at;
}

void HostMmu::run(MmuRequest& r) {
  r.result = Errc::kOk;
  r.os_error = 0;
  for (MapEntry& e : r.entries) {
    const Outcome o = apply(r, e);
    e.result = o.code;
    if (!o.ok() && r.result == Errc::kOk) {
      r.result = o.code;
      r.os_error = o.os_error;
    }
  }
  r.queue->push(r);
}

HostMmu::Outcome HostMmu::apply(const MmuRequest& r, MapEntry& e) {
  const Bytes size = r.page_size;
  e.split = false;
  if (!is_page_size(size) || e.va.value() % size.value() != 0) {
    return {Errc::kInvalid};
  }
  Region* range = ranges_.find(e.va.value(), size.value());
  if (range == nullptr) {
    return {Errc::kRange};
  }
  Outcome o;
  uint64_t* counter = nullptr;
  switch (r.op) {
    case MmuOp::kMap:
      o = map(*range, e, size, r.prot);
      counter = &stats_.maps;
      break;
    case MmuOp::kUnmap:
      o = unmap(*range, e, size);
      counter = &stats_.unmaps;
      break;
    case MmuOp::kProtect:
      return protect(*range, e, size, r.prot);
    case MmuOp::kPoison:
      o = poison(*range, e, size);
      counter = &stats_.poisons;
      break;
    case MmuOp::kClear:
      o = clear(*range, e, size);
      counter = &stats_.clears;
      break;
    case MmuOp::kFree:
      return free(*range, e, size);
  }
  check(counter != nullptr, "a known MMU operation", r.op, size);
  *counter += o.ok() ? 1 : 0;
  return o;
}

HostMmu::Outcome HostMmu::protect(Region&, MapEntry&, Bytes, Prot) {
  return {Errc::kNotSupported};
}

HostMmu::Outcome HostMmu::free(Region&, MapEntry&, Bytes) {
  return {Errc::kNotSupported};
}

HostMmu::Outcome HostMmu::poison(Region& range, MapEntry& e, Bytes size) {
  const uint64_t va = e.va.value();
  if (!uffd_) {
    return {Errc::kNotSupported};
  }
  if (range.any(va, size.value(), Granule::kFull)) {
    return {Errc::kExists};
  }
  // What stands in the way can only be a marker: nothing of ours is mapped. Without this the kernel
  // would say EEXIST for a page that is poisoned already.
  if (const int os = advise(va, size.value(), MADV_DONTNEED); os != 0) {
    return Outcome::of_errno(os);
  }
  range.set(va, size.value(), Granule::kEmpty);
  uint64_t done = 0;
  for (uint32_t tries = 0; done < size.value();) {
    const UffdStep step = uffd_->poison(va + done, size.value() - done);
    done += step.done;
    if (step.done == 0) {
      if (step.os_error != EAGAIN || ++tries > config_.busy_retries) {
        advise(va, size.value(), MADV_DONTNEED);  // all or nothing
        return Outcome::of_errno(step.os_error);
      }
      ++stats_.busy_retries;
    }
  }
  range.set(va, size.value(), Granule::kPoison);
  return {};
}

HostMmu::Outcome HostMmu::clear(Region& range, MapEntry& e, Bytes size) {
  const uint64_t va = e.va.value();
  if (range.any(va, size.value(), Granule::kFull)) {
    return {Errc::kExists};  // a mapped page is unmapped, never cleared away
  }
  if (const int os = advise(va, size.value(), MADV_DONTNEED); os != 0) {
    return Outcome::of_errno(os);
  }
  range.set(va, size.value(), Granule::kEmpty);
  return {};
}

size_t HostMmu::read_faults(std::span<FaultEvent> out) {
  return uffd_ ? uffd_->read_faults(out) : 0;
}

void HostMmu::wake(AddressRange range) {
  if (uffd_) {
    uffd_->wake(range);
  }
}

Result<uint64_t> HostMmu::map_aligned(uint64_t length, uint64_t align, Mapping m) const {
  // With a file the offset must be that of the final start: reserve first, then map over it.
  const uint64_t slack = align > kPageSizeMin.value() ? align : 0;
  void* p = calls_.mmap(nullptr, length + slack, m.fd < 0 ? m.prot : PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) {
    return Error(Errc::kNoMemory,
                 "mapping " + std::to_string(length) +
                     " bytes; look at vm.max_map_count, vm.overcommit_memory and `ulimit -v`",
                 errno);
  }
  const auto raw = reinterpret_cast<uint64_t>(p);
  const uint64_t start = round_up(raw, align);
  if (start != raw) {
    unmap_memory(raw, start - raw);
  }
  if (const uint64_t tail = raw + length + slack - (start + length); tail != 0) {
    unmap_memory(start + length, tail);
  }
  if (m.fd >= 0 &&
      calls_.mmap(pointer(start), length, m.prot, m.flags | MAP_FIXED, m.fd, 0) == MAP_FAILED) {
    const int os_error = errno;
    unmap_memory(start, length);
    return Error(errc_of_errno(os_error), "mapping a memfd", os_error);
  }
  return start;
}

Result<void> HostMmu::hide_from_children(uint64_t start, uint64_t length) const {
  for (const int advice : {MADV_DONTFORK, MADV_DONTDUMP}) {
    if (const int os = advise(start, length, advice); os != 0) {
      return Error(errc_of_errno(os), "MADV_DONTFORK or MADV_DONTDUMP", os);
    }
  }
  return {};
}

Result<void> HostMmu::bind_to_node(uint64_t start, uint64_t length, NodeId node) const {
  if (config_.numa_nodes <= 1) {
    return {};
  }
  if (calls_.bind_node(pointer(start), length, node.value()) != 0) {
    const int os_error = errno;
    if (os_error == ENOSYS || os_error == EPERM) {
      return {};  // a kernel or container without NUMA policies: the memory is where it is
    }
    return Error(errc_of_errno(os_error),
                 "binding memory to NUMA node " + std::to_string(node.value()), os_error);
  }
  return {};
}

int HostMmu::advise(uint64_t start, uint64_t length, int advice) const {
  return calls_.madvise(pointer(start), length, advice) == 0 ? 0 : errno;
}

void HostMmu::unmap_memory(uint64_t start, uint64_t length) const {
  // Fails only for want of a VMA when it would cut one in two; then the addresses stay taken.
  calls_.munmap(pointer(start), length);
}

}  // namespace kvmm
