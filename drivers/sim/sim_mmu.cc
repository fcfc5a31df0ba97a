// SPDX-License-Identifier: Apache-2.0
#include "drivers/sim/sim_mmu.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "drivers/sim/range_map.h"
#include "runtime/base/check.h"

namespace kvmm {
namespace {

constexpr int kFreshByte = 0xdb;

bool fenced(MmuOp op) {
  return op == MmuOp::kUnmap || op == MmuOp::kPoison || op == MmuOp::kClear;
}

bool fence_done(const MmuRequest& r) {
  if (!fenced(r.op)) {
    return true;
  }
  switch (r.fence.kind) {
    case Fence::Kind::kNone:
      return true;
    case Fence::Kind::kCallback:
      return r.fence.done(r.fence.handle);
    case Fence::Kind::kEvent:
      return static_cast<const SimEvent*>(r.fence.handle)->done;
  }
  return true;
}

constexpr auto kEndBySize = [](const auto& entry) { return entry.first + entry.second.size; };

}  // namespace

Result<void> SimMmuConfig::validate() const {
  const bool sizes = std::has_single_bit(granule.value()) && granule >= Bytes(256) &&
                     std::has_single_bit(page_size_max.value()) && page_size_max >= granule;
  if (!sizes) {
    return Error(Errc::kInvalid,
                 "sim: granule and page_size_max must be powers of two from 256 on");
  }
  if (memory.value() == 0 || memory.value() % granule.value() != 0) {
    return Error(Errc::kInvalid, "sim: size must be a multiple of the granule above 0");
  }
  if (timing.depth == 0) {
    return Error(Errc::kInvalid, "sim: depth must be above 0");
  }
  if (fixed_frames && (kind != FrameKind::kShareable || granule < kPageSizeMin)) {
    return Error(Errc::kInvalid, "sim: fixed frames are shareable, with pages from 4096 bytes on");
  }
  return {};
}

Result<std::unique_ptr<SimMmu>> SimMmu::create(SimClock& clock, const SimMmuConfig& config) {
  if (Result<void> r = config.validate(); !r) {
    return r.error();
  }
  std::unique_ptr<SimMmu> mmu(new SimMmu(clock, config));
  if (!config.fixed_frames) {
    auto memory =
        LazyArray<std::byte>::create(config.memory.value() + config.page_size_max.value());
    if (!memory) {
      return memory.error();
    }
    mmu->memory_ = std::move(*memory);
    mmu->memory_base_ =
        round_up(reinterpret_cast<uint64_t>(mmu->memory_.data()), config.page_size_max.value());
  }
  return mmu;
}

SimMmu::SimMmu(SimClock& clock, const SimMmuConfig& config)
    : clock_(clock), config_(config), random_(config.seed) {}

SimMmu::~SimMmu() {
  check(pending_.empty(), "nothing is in flight at the end", pending_.size(), size_t{0});
}

MmuInfo SimMmu::info() const {
  MmuInfo i;
  i.name = "sim";
  i.granule = config_.granule;
  i.page_size_max = config_.page_size_max;
  i.faults = config_.faults;
  i.asynchronous = config_.timing.asynchronous;
  i.protects = config_.protects;
  i.poisons = config_.poisons;
  i.kind = config_.kind;
  i.fixed_frames = config_.fixed_frames;
  return i;
}

bool SimMmu::page_size_ok(Bytes size) const {
  return std::has_single_bit(size.value()) && size >= config_.granule &&
         size <= config_.page_size_max;
}

// ------------------------------------------------------------------------------- ranges, frames

Result<AddressRange> SimMmu::reserve(Bytes length, Bytes align, Bytes page_size) {
  if (length.value() == 0 || !std::has_single_bit(align.value()) || align < config_.granule ||
      length.value() % align.value() != 0 || !page_size_ok(page_size)) {
    return Error(Errc::kInvalid, "sim: length, alignment or page size of a range");
  }
  const uint64_t start = round_up(next_va_, align.value());
  if (start < next_va_ || length.value() > (uint64_t{1} << 47) ||
      start + length.value() > (uint64_t{1} << 56)) {
    return Error(Errc::kNoMemory, "sim: no addresses are left");
  }
  Range range;
  range.length = length;
  if (config_.fixed_frames) {
    auto bytes = LazyArray<std::byte>::create(length.value() +
                                              std::max(align, config_.page_size_max).value());
    if (!bytes) {
      return bytes.error();
    }
    range.bytes = std::move(*bytes);
    range.frames =
        round_up(reinterpret_cast<uint64_t>(range.bytes.data()), config_.page_size_max.value());
  }
  ranges_.emplace(start, std::move(range));
  next_va_ = start + length.value() + config_.page_size_max.value();  // a gap: overruns are seen
  return AddressRange{VirtAddr(start), length};
}

void SimMmu::release(AddressRange range) {
  const auto it = ranges_.find(range.start.value());
  check(it != ranges_.end() && it->second.length == range.length, "a reserved range", range.start,
        range.length);
  const uint64_t end = range.end().value();
  check(mapping_in(range.start.value(), end) == pages_.end(), "nothing is mapped in it",
        range.start, range.length);
  clear_poison(range.start.value(), end);
  ranges_.erase(it);
}

const SimMmu::Range* SimMmu::range_of(uint64_t va, uint64_t length, uint64_t* start) const {
  const auto it = overlapping(ranges_, va, va + length, [](const auto& entry) {
    return entry.first + entry.second.length.value();
  });
  if (it == ranges_.end() || va < it->first ||
      va + length > it->first + it->second.length.value()) {
    return nullptr;
  }
  if (start != nullptr) {
    *start = it->first;
  }
  return &it->second;
}

Result<FrameArea> SimMmu::create_frames(Bytes size, uint32_t count, NodeId node) {
  if (config_.fixed_frames) {
    return Error(Errc::kNotSupported, "sim: frames are fixed to addresses here: see fixed_frame");
  }
  if (!page_size_ok(size) || count == 0 || node.value() >= config_.nodes) {
    return Error(Errc::kInvalid, "sim: size, number or node of frames");
  }
  const uint64_t length = size.value() * count;
  uint64_t base = memory_base_;  // first fit
  for (const auto& [start, area] : areas_) {
    if (base + length <= start) {
      break;
    }
    base = round_up(start + area.frame_size.value() * area.count, size.value());
  }
  if (length > config_.memory.value() || base + length > memory_base_ + config_.memory.value()) {
    return Error(Errc::kNoMemory, "sim: size= is smaller than the frames asked for");
  }
  std::memset(bytes_at(base), kFreshByte, length);
  const FrameArea area{FrameAddr(base), size, count, config_.kind, base};
  areas_.emplace(base, area);
  return area;
}

void SimMmu::destroy_frames(const FrameArea& area) {
  const auto it = areas_.find(area.base.value());
  check(it != areas_.end() && it->second.count == area.count, "an area of frames", area.base,
        area.count);
  const uint64_t end = area.base.value() + area.frame_size.value() * area.count;
  check(mapped_frame_in(area.base.value(), end) == mapped_frames_.end(),
        "no frame of the area is mapped", area.base, area.count);
  areas_.erase(it);
}

bool SimMmu::frame_exists(uint64_t frame, uint64_t size) const {
  auto it = areas_.upper_bound(frame);
  if (it == areas_.begin()) {
    return false;
  }
  --it;
  return frame + size <= it->first + it->second.frame_size.value() * it->second.count;
}

FrameAddr SimMmu::fixed_frame(VirtAddr va) const {
  uint64_t start = 0;
  const Range* range = range_of(va.value(), 1, &start);
  return range == nullptr || !config_.fixed_frames
             ? FrameAddr(0)
             : FrameAddr(range->frames + (va.value() - start));
}

// ------------------------------------------------------------------------------------- requests

size_t SimMmu::submit(std::span<MmuRequest* const> requests) {
  size_t taken = 0;
  for (MmuRequest* r : requests) {
    if (!config_.timing.asynchronous && fence_done(*r)) {
      perform(*r);
      ++taken;
      continue;
    }
    if (pending_.size() == config_.timing.depth) {
      break;
    }
    Tick due = clock_.now();
    if (config_.timing.asynchronous) {
      due += config_.timing.latency;
      due += config_.jitter.value() == 0 ? Tick(0) : Tick(random_.below(config_.jitter.value()));
    }
    const auto place = std::upper_bound(pending_.begin(), pending_.end(), due,
                                        [](Tick t, const Pending& p) { return t < p.due; });
    pending_.insert(place, {due, r});
    clock_.alarm(due);
    ++taken;
  }
  return taken;
}

void SimMmu::poll() {
  for (size_t i = 0; i < pending_.size() && pending_[i].due <= clock_.now();) {
    MmuRequest& r = *pending_[i].request;
    if (!fence_done(r)) {
      ++i;  // its turn comes when the engine is done; others do not wait for it
      continue;
    }
    pending_.erase(pending_.begin() + static_cast<ptrdiff_t>(i));
    perform(r);
  }
}

void SimMmu::perform(MmuRequest& r) {
  Errc result = Errc::kOk;
  for (MapEntry& e : r.entries) {
    e.split = false;
    e.result = perform(r, e);
    result = result == Errc::kOk ? e.result : result;
  }
  check(r.queue != nullptr, "a request names the queue that it returns to");
  r.result = result;
  r.os_error = 0;
  r.queue->push(r);
}

std::optional<Errc> SimMmu::injected(const MmuRequest& r, const MapEntry& e) {
  if (r.op == MmuOp::kMap || r.op == MmuOp::kUnmap) {
    if (const auto it = busy_.find(e.frame.value()); it != busy_.end()) {
      ++stats_.busy_retries;
      if (it->second-- <= 1) {
        busy_.erase(it);
      }
      return Errc::kBusy;
    }
  }
  for (auto it = failures_.begin(); it != failures_.end(); ++it) {
    if (it->op == r.op && --it->countdown == 0) {
      const Errc result = it->result;
      failures_.erase(it);
      return result;
    }
  }
  return std::nullopt;
}

Errc SimMmu::perform(const MmuRequest& r, MapEntry& e) {
  const uint64_t va = e.va.value(), n = r.page_size.value();
  if (!page_size_ok(r.page_size) || va % n != 0) {
    return Errc::kInvalid;
  }
  if (range_of(va, n) == nullptr) {
    return Errc::kRange;
  }
  if (const std::optional<Errc> failure = injected(r, e); failure) {
    return *failure;
  }
  switch (r.op) {
    case MmuOp::kMap:
      return map(r, e);
    case MmuOp::kUnmap:
      return unmap(r, e);
    case MmuOp::kProtect:
      return protect(r, e);
    case MmuOp::kPoison:
      if (!config_.poisons) {
        return Errc::kNotSupported;
      }
      if (mapping_in(va, va + n) != pages_.end()) {
        return Errc::kExists;
      }
      set_poison(va, va + n);
      ++stats_.poisons;
      wake({e.va, r.page_size});
      return Errc::kOk;
    case MmuOp::kClear:
      if (mapping_in(va, va + n) != pages_.end()) {
        return Errc::kExists;  // its content would be lost
      }
      clear_poison(va, va + n);
      ++stats_.clears;
      return Errc::kOk;
    case MmuOp::kFree:
      return free_fixed(r, e);
  }
  return Errc::kInvalid;
}

Errc SimMmu::map(const MmuRequest& r, MapEntry& e) {
  const uint64_t va = e.va.value(), n = r.page_size.value(), frame = e.frame.value();
  if (config_.fixed_frames) {
    if (e.frame != fixed_frame(e.va)) {
      return Errc::kInvalid;
    }
  } else if (!frame_exists(frame, n)) {
    return Errc::kRange;
  }
  if (frame % n != 0) {
    return Errc::kInvalid;
  }
  if (mapping_in(va, va + n) != pages_.end()) {
    return Errc::kExists;
  }
  const auto mapped = mapped_frame_in(frame, frame + n);
  if (mapped != mapped_frames_.end()) {
    if (config_.kind == FrameKind::kMovable) {
      return Errc::kNotFound;  // its bytes are elsewhere: mapped
    }
    if (mapped->first != frame || mapped->second.size != n) {
      return Errc::kInvalid;
    }
  }
  clear_poison(va, va + n);
  const Prot prot = config_.protects ? r.prot : Prot::kReadWrite;
  pages_[va] = {frame, n, prot};
  MappedFrame& f = mapped_frames_[frame];
  f.size = n;
  ++f.mappings;
  f.writable += prot == Prot::kReadWrite ? 1 : 0;
  ++stats_.maps;
  wake({e.va, r.page_size});
  return Errc::kOk;
}

Errc SimMmu::unmap(const MmuRequest& r, MapEntry& e) {
  const uint64_t va = e.va.value(), n = r.page_size.value(), frame = e.frame.value();
  const auto page = pages_.find(va);
  if (!config_.fixed_frames && !frame_exists(frame, n)) {
    return Errc::kRange;
  }
  if (page == pages_.end() || page->second.size != n) {
    return mapping_in(va, va + n) == pages_.end() ? Errc::kNotFound : Errc::kInvalid;
  }
  if (page->second.frame != frame) {
    return Errc::kExists;  // the frame named has bytes of its own
  }
  const auto f = mapped_frames_.find(frame);
  check(f != mapped_frames_.end(), "a mapped page's frame is mapped", va, frame);
  f->second.writable -= page->second.prot == Prot::kReadWrite ? 1 : 0;
  if (--f->second.mappings == 0) {
    mapped_frames_.erase(f);
  }
  pages_.erase(page);
  ++stats_.unmaps;
  return Errc::kOk;
}

Errc SimMmu::protect(const MmuRequest& r, MapEntry& e) {
  if (!config_.protects) {
    return Errc::kNotSupported;
  }
  const auto page = pages_.find(e.va.value());
  if (page == pages_.end() || page->second.size != r.page_size.value()) {
    return Errc::kNotFound;
  }
  MappedFrame& f = mapped_frames_.at(page->second.frame);
  f.writable -= page->second.prot == Prot::kReadWrite ? 1 : 0;
  f.writable += r.prot == Prot::kReadWrite ? 1 : 0;
  page->second.prot = r.prot;
  return Errc::kOk;
}

Errc SimMmu::free_fixed(const MmuRequest& r, MapEntry& e) {
  if (!config_.fixed_frames) {
    return Errc::kNotSupported;
  }
  const uint64_t va = e.va.value(), n = r.page_size.value();
  if (mapping_in(va, va + n) != pages_.end()) {
    return Errc::kBusy;
  }
  const int rc = ::madvise(bytes_at(fixed_frame(e.va).value()), n, MADV_DONTNEED);
  check(rc == 0, "memory of a fixed frame is given back", va, n);
  return Errc::kOk;
}

std::map<uint64_t, SimMmu::Mapping>::iterator SimMmu::mapping_in(uint64_t start, uint64_t end) {
  return overlapping(pages_, start, end, kEndBySize);
}
std::map<uint64_t, SimMmu::Mapping>::const_iterator SimMmu::mapping_in(uint64_t start,
                                                                       uint64_t end) const {
  return overlapping(pages_, start, end, kEndBySize);
}
std::map<uint64_t, SimMmu::MappedFrame>::const_iterator SimMmu::mapped_frame_in(
    uint64_t start, uint64_t end) const {
  return overlapping(mapped_frames_, start, end, kEndBySize);
}

// --------------------------------------------------------------------------------------- poison

bool SimMmu::poisoned(uint64_t start, uint64_t end) const {
  return overlapping(poison_, start, end, [](const auto& p) { return p.second; }) != poison_.end();
}

void SimMmu::set_poison(uint64_t start, uint64_t end) {
  clear_poison(start, end);
  poison_[start] = end;
}

void SimMmu::clear_poison(uint64_t start, uint64_t end) {
  for (;;) {
    const auto it = overlapping(poison_, start, end, [](const auto& p) { return p.second; });
    if (it == poison_.end()) {
      return;
    }
    const auto [from, to] = *it;
    poison_.erase(it);
    if (from < start) {
      poison_[from] = start;
    }
    if (to > end) {
      poison_[end] = to;
    }
  }
}

}  // namespace kvmm
