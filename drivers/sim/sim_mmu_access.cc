// SPDX-License-Identifier: Apache-2.0
//
// The engine's side of SimMmu (accesses and faults) and its checker.
#include <algorithm>
#include <cstring>

#include "drivers/sim/range_map.h"
#include "drivers/sim/sim_mmu.h"
#include "runtime/base/check.h"

namespace kvmm {

// ------------------------------------------------------------------------------------ the engine

SimAccess SimMmu::read(VirtAddr va, std::span<std::byte> out, uint32_t thread) {
  return access(va, out.data(), nullptr, out.size(), thread);
}

SimAccess SimMmu::write(VirtAddr va, std::span<const std::byte> in, uint32_t thread) {
  return access(va, nullptr, in.data(), in.size(), thread);
}

SimAccess SimMmu::access(VirtAddr start, std::byte* out, const std::byte* in, size_t length,
                         uint32_t thread) {
  const bool writes = in != nullptr;
  for (size_t done = 0; done < length;) {
    const uint64_t va = start.value() + done;
    if (range_of(va, 1) == nullptr) {
      return SimAccess::kRange;
    }
    if (poisoned(va, va + 1)) {
      waiting_.erase(thread);
      return SimAccess::kPoisoned;
    }
    const auto page = mapping_in(va, va + 1);
    if (page == pages_.end()) {
      fault(va, writes, thread);
      return SimAccess::kFault;
    }
    const Mapping& m = page->second;
    if (m.prot == Prot::kNone || (writes && m.prot == Prot::kRead)) {
      return SimAccess::kDenied;
    }
    const uint64_t inside = va - page->first;
    const size_t n = std::min<size_t>(length - done, m.size - inside);
    if (writes) {
      std::memcpy(bytes_at(m.frame + inside), in + done, n);
    } else {
      std::memcpy(out + done, bytes_at(m.frame + inside), n);
    }
    done += n;
  }
  waiting_.erase(thread);
  return SimAccess::kDone;
}

void SimMmu::fault(uint64_t va, bool write, uint32_t thread) {
  if (!config_.faults) {
    return;
  }
  const uint64_t page = round_down(va, std::min(config_.granule, kPageSizeMin).value());
  const auto it = waiting_.find(thread);
  if (it != waiting_.end() && it->second.page == page && it->second.write == write) {
    return;
  }
  waiting_[thread] = {page, write};
  faults_.push_back({VirtAddr(page), write, thread});
}

size_t SimMmu::read_faults(std::span<FaultEvent> out) {
  size_t n = 0;
  while (n < out.size() && !faults_.empty()) {
    out[n++] = faults_.front();
    faults_.pop_front();
  }
  return n;
}

void SimMmu::wake(AddressRange range) {
  std::erase_if(waiting_,
                [&range](const auto& w) { return range.contains(VirtAddr(w.second.page)); });
}

// ----------------------------------------------------------------------------------- the checker

bool SimMmu::frame_is_mapped(FrameAddr frame) const {
  return mapped_frame_in(frame.value(), frame.value() + 1) != mapped_frames_.end();
}

bool SimMmu::page_is_mapped(VirtAddr va) const {
  return mapping_in(va.value(), va.value() + 1) != pages_.end();
}

void SimMmu::on_device_access(const std::byte* data, Bytes length, bool writes, const char* who) {
  const auto start = reinterpret_cast<uint64_t>(data);
  const uint64_t end = start + length.value();
  auto it = mapped_frame_in(start, end);
  for (; it != mapped_frames_.end() && it->first < end; ++it) {
    if (config_.kind == FrameKind::kMovable || writes || it->second.writable != 0) {
      ++violations_;
      check(!config_.strict, who, it->first, start);
    }
  }
}

void SimMmu::check_invariants() const {
  uint64_t last_end = 0;
  std::map<uint64_t, MappedFrame> expected;
  for (const auto& [va, m] : pages_) {
    check(va >= last_end, "pages do not overlap", va, last_end);
    check(range_of(va, m.size) != nullptr, "a page lies in a reserved range", va, m.size);
    check(!poisoned(va, va + m.size), "a mapped page is not poisoned", va, m.size);
    last_end = va + m.size;
    MappedFrame& f = expected[m.frame];
    f.size = m.size;
    ++f.mappings;
    f.writable += m.prot == Prot::kReadWrite ? 1 : 0;
  }
  check(expected.size() == mapped_frames_.size(), "mapped frames are the pages' frames",
        expected.size(), mapped_frames_.size());
  last_end = 0;
  for (const auto& [frame, f] : mapped_frames_) {
    const MappedFrame& e = expected[frame];
    check(e.size == f.size && e.mappings == f.mappings && e.writable == f.writable,
          "a frame's mappings are counted", frame, f.mappings);
    check(config_.kind != FrameKind::kMovable || f.mappings == 1, "one mapping a movable frame",
          frame, f.mappings);
    check(frame >= last_end, "mapped frames do not overlap", frame, last_end);
    last_end = frame + f.size;
  }
}

}  // namespace kvmm
