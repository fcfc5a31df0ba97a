// SPDX-License-Identifier: Apache-2.0
#include "drivers/host/move_mmu.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "drivers/host/uapi.h"
#include "runtime/base/check.h"

namespace kvmm {
namespace {

constexpr uint64_t kHuge = kPageSizeMax.value();
constexpr int kAnonymous = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
// The way back of a failed move may try this much harder than the way there.
constexpr uint32_t kUndoFactor = 64;
constexpr unsigned char kZeros[kPageSizeMin.value()] = {};

}  // namespace

Result<std::unique_ptr<HostMoveMmu>> HostMoveMmu::create(const HostConfig& config) {
  Result<Uffd> uffd =
      Uffd::open(*config.calls, uapi::kFeatureMove | uapi::kFeaturePoison, uapi::kFeatureThreadId);
  if (!uffd) {
    return std::move(uffd).error();
  }
  Result<Pagemap> pagemap = Pagemap::open(*config.calls);
  if (!pagemap) {
    return std::move(pagemap).error();
  }
  std::unique_ptr<HostMoveMmu> mmu(new HostMoveMmu(config, std::move(*uffd), std::move(*pagemap)));
  if (Result<void> tested = mmu->self_test(); !tested) {
    return std::move(tested).error();
  }
  const Result<AddressRange> aside = mmu->reserve(kPageSizeMin, kPageSizeMin, kPageSizeMin);
  if (!aside) {
    return aside.error();
  }
  mmu->aside_ = aside->start;
  mmu->stats_ = {};
  return mmu;
}

HostMoveMmu::~HostMoveMmu() {
  for (const RegionMap* map : {&ranges_, &frames_}) {
    for (const auto& region : map->regions()) {
      unmap_memory(region->start(), region->length());
    }
  }
}

MmuInfo HostMoveMmu::info() const {
  MmuInfo i;
  i.name = "host-move";
  i.granule = kPageSizeMin;
  i.page_size_max = kPageSizeMax;
  i.faults = true;
  i.poisons = true;
  i.kind = FrameKind::kMovable;
  i.frames_zeroed = true;
  return i;
}

Result<AddressRange> HostMoveMmu::reserve(Bytes length, Bytes align, Bytes page_size) {
  if (!valid_reservation(length, align, page_size)) {
    return Error(Errc::kInvalid, "length, alignment or page size of a range");
  }
  const Result<uint64_t> start =
      map_aligned(length.value(), align.value(), {PROT_READ | PROT_WRITE, kAnonymous});
  if (!start) {
    return start.error();
  }
  const AddressRange range{VirtAddr(*start), length};
  auto fail = [&](Error error) -> Result<AddressRange> {
    unmap_memory(*start, length.value());
    return error;
  };
  const int huge = page_size == kPageSizeMax ? MADV_HUGEPAGE : MADV_NOHUGEPAGE;
  if (const int os = advise(*start, length.value(), huge); os != 0 && os != EINVAL) {
    return fail(Error(errc_of_errno(os), "huge page advice", os));  // EINVAL: kernel without them
  }
  if (Result<void> r = hide_from_children(*start, length.value()); !r) {
    return fail(std::move(r).error());
  }
  if (Result<void> r = bind_to_node(*start, length.value(), config_.node); !r) {
    return fail(std::move(r).error());
  }
  Result<std::unique_ptr<Region>> region = Region::create(*start, length.value());
  if (!region) {
    return fail(std::move(region).error());
  }
  if (Result<void> r = uffd_->register_range(range, UFFDIO_REGISTER_MODE_MISSING); !r) {
    return fail(std::move(r).error());
  }
  ranges_.add(std::move(*region));
  return range;
}

void HostMoveMmu::release(AddressRange range) {
  const std::unique_ptr<Region> region = ranges_.remove(range.start.value());
  check(region != nullptr && region->length() == range.length.value(), "a reserved range",
        range.start, range.length);
  check(region->full() == 0, "nothing is mapped in a released range", region->full(), range.start);
  unmap_memory(region->start(), region->length());
}

Result<FrameArea> HostMoveMmu::create_frames(Bytes size, uint32_t count, NodeId node) {
  if (!is_page_size(size) || count == 0) {
    return Error(Errc::kInvalid, "size or number of frames");
  }
  const bool huge = size == kPageSizeMax;
  const uint64_t length = size.value() * count;
  const Result<uint64_t> start =
      map_aligned(length, kPageSizeMax.value(), {PROT_READ | PROT_WRITE, kAnonymous});
  if (!start) {
    return start.error();
  }
  auto fail = [&](Error error) -> Result<FrameArea> {
    unmap_memory(*start, length);
    return error;
  };
  const int advice = huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE;
  if (const int os = advise(*start, length, advice); os != 0 && os != EINVAL) {
    return fail(Error(errc_of_errno(os), "huge page advice", os));
  }
  if (Result<void> r = hide_from_children(*start, length); !r) {
    return fail(std::move(r).error());
  }
  if (Result<void> r = bind_to_node(*start, length, node); !r) {
    return fail(std::move(r).error());
  }
  // Before registering: afterwards the populating fault would wait for a handler.
  if (const int os = advise(*start, length, MADV_POPULATE_WRITE); os != 0) {
    return fail(Error(errc_of_errno(os),
                      "populating " + std::to_string(length) + " bytes of page frames", os));
  }
  Result<std::unique_ptr<Region>> region = Region::create(*start, length);
  if (!region) {
    return fail(std::move(region).error());
  }
  if (Result<void> r =
          uffd_->register_range({VirtAddr(*start), Bytes(length)}, UFFDIO_REGISTER_MODE_MISSING);
      !r) {
    return fail(std::move(r).error());
  }
  (*region)->set(*start, length, Granule::kFull);
  (*region)->set_node(node);
  for (uint64_t f = *start; huge && f < *start + length; f += kHuge) {
    (*region)->set_split(f, !pagemap_.is_huge(f));  // never was huge: reported, not counted
  }
  const MutexLock lock(frames_mutex_);
  frames_.add(std::move(*region));
  return FrameArea{FrameAddr(*start), size, count, FrameKind::kMovable, *start};
}

void HostMoveMmu::destroy_frames(const FrameArea& area) {
  std::unique_ptr<Region> region;
  {
    const MutexLock lock(frames_mutex_);
    region = frames_.remove(area.base.value());
  }
  check(region != nullptr && region->length() == area.frame_size.value() * area.count,
        "an area of frames", area.base, area.count);
  check(region->full() * kPageSizeMin.value() == region->length(), "no frame of the area is mapped",
        region->full(), area.base);
  unmap_memory(region->start(), region->length());
}

HostMmu::Outcome HostMoveMmu::map(Region& range, MapEntry& e, Bytes size, Prot) {
  const uint64_t va = e.va.value(), frame = e.frame.value(), n = size.value();
  Region* frames = frames_.find(frame, n);
  if (frames == nullptr) {
    return {Errc::kRange};
  }
  if (frame % n != 0) {
    return {Errc::kInvalid};
  }
  if (range.any(va, n, Granule::kFull)) {
    return {Errc::kExists};
  }
  if (!frames->all(frame, n, Granule::kFull)) {
    return {Errc::kNotFound};
  }
  if (n == kHuge || range.any(va, n, Granule::kPoison)) {
    if (const int os = advise(va, n, MADV_DONTNEED); os != 0) {
      return Outcome::of_errno(os);
    }
    range.set(va, n, Granule::kEmpty);
  }
  const Outcome o = move_page({range, va}, {*frames, frame}, n, true);
  if (!o.ok() && n == kHuge) {
    look_at_frame(*frames, frame, e);
  }
  return o;
}

HostMmu::Outcome HostMoveMmu::unmap(Region& range, MapEntry& e, Bytes size) {
  const uint64_t va = e.va.value(), frame = e.frame.value(), n = size.value();
  Region* frames = frames_.find(frame, n);
  if (frames == nullptr) {
    return {Errc::kRange};
  }
  if (frame % n != 0) {
    return {Errc::kInvalid};
  }
  if (!range.all(va, n, Granule::kFull)) {
    return {Errc::kNotFound};
  }
  if (!frames->all(frame, n, Granule::kEmpty)) {
    return {Errc::kExists};
  }
  if (n == kHuge) {  // small pages may have left this frame before
    if (const int os = advise(frame, n, MADV_DONTNEED); os != 0) {
      return Outcome::of_errno(os);
    }
  }
  Outcome o = move_page({*frames, frame}, {range, va}, n, false);
  if (o.code == Errc::kNotFound) {
    const int os = fill_holes(va, n);
    if (os == ENOMEM || os == EAGAIN) {
      return {Errc::kBusy, os};
    }
    if (os == 0) {
      o = move_page({*frames, frame}, {range, va}, n, false);
    }
  }
  if (o.ok() && n == kHuge) {
    look_at_frame(*frames, frame, e);
  }
  return o;
}

bool HostMoveMmu::carve(FrameAddr frame) {
  const uint64_t start = frame.value(), page = kPageSizeMin.value();
  Region* area = frames_.find(start, kHuge);
  check(area != nullptr && start % kHuge == 0 && area->all(start, kHuge, Granule::kFull),
        "a free frame of 2 MiB is carved", frame, kHuge);
  if (area->split(start)) {
    return true;  // small pages already, whole as they are
  }
  for (uint64_t at = start; at < start + kHuge; at += page) {
    *static_cast<volatile uint64_t*>(reinterpret_cast<void*>(at)) = 1;
  }
  Region& aside = *ranges_.find(aside_.value(), page);
  if (move_page({aside, aside_.value()}, {*area, start}, page, false).ok()) {
    Outcome back{Errc::kBusy};
    for (uint32_t tries = 0; back.code == Errc::kBusy && tries < kUndoFactor; ++tries) {
      back = move_page({*area, start}, {aside, aside_.value()}, page, false);
    }
    check(back.ok(), "a page that was put aside comes back", back.code, back.os_error);
  }  // else the first small move takes it apart
  area->set_split(start, true);
  return false;
}

int HostMoveMmu::fill_holes(uint64_t start, uint64_t length) {
  const uint64_t end = start + length;
  uint32_t tries = 0;
  for (uint64_t at = pagemap_.first_absent(start, length); at < end;) {
    const UffdStep step = uffd_->copy(at, kZeros, sizeof kZeros);
    if (step.os_error == EAGAIN && ++tries <= config_.busy_retries) {
      continue;
    }
    if (step.os_error != 0 && step.os_error != EEXIST) {
      return step.os_error;
    }
    at += sizeof kZeros;
  }
  return 0;
}

// A thread waits although its page is mapped: another one was quicker, or it has dropped the page.
void HostMoveMmu::wake(AddressRange range) {
  const Region* region = ranges_.find(range.start.value(), range.length.value());
  if (region != nullptr && range.length <= kPageSizeMax &&
      region->all(range.start.value(), range.length.value(), Granule::kFull)) {
    fill_holes(range.start.value(), range.length.value());
  }
  HostMmu::wake(range);
}

UffdStep HostMoveMmu::move_bytes(uint64_t dst, uint64_t src, uint64_t length, bool wake,
                                 uint32_t retries) {
  uint64_t done = 0;
  bool cleared = false;
  for (uint32_t tries = 0; done < length;) {
    const UffdStep step = uffd_->move(dst + done, src + done, length - done, wake);
    done += step.done;
    if (step.done != 0) {
      tries = 0;
      continue;  // a short move: go on where it stopped
    }
    if (step.os_error == EAGAIN || step.os_error == EBUSY || step.os_error == EINTR) {
      ++stats_.busy_retries;
      if (++tries <= retries) {
        continue;
      }
    } else if (step.os_error == EEXIST && !cleared &&
               !pagemap_.any_present(dst + done, length - done)) {
      cleared = true;  // a marker stands there; the book says that no page of ours does
      if (advise(dst + done, length - done, MADV_DONTNEED) == 0) {
        continue;
      }
    }
    return {done, step.os_error};
  }
  return {done, 0};
}

HostMmu::Outcome HostMoveMmu::move_page(Side to, Side from, uint64_t size, bool wake) {
  const UffdStep there = move_bytes(to.address, from.address, size, wake, config_.busy_retries);
  if (there.os_error == 0) {
    to.region.set(to.address, size, Granule::kFull);
    from.region.set(from.address, size, Granule::kEmpty);
    return {};
  }
  if (there.done != 0) {
    const UffdStep back =
        move_bytes(from.address, to.address, there.done, !wake, config_.busy_retries * kUndoFactor);
    if (back.os_error != 0) {
      // [done of the way back, done of the way there) is stuck over there: say so, and know it.
      const uint64_t stuck = there.done - back.done;
      to.region.set(to.address + back.done, stuck, Granule::kFull);
      from.region.set(from.address + back.done, stuck, Granule::kEmpty);
      return {Errc::kIo, back.os_error};
    }
  }
  return Outcome::of_errno(there.os_error);
}

void HostMoveMmu::look_at_frame(Region& frames, uint64_t frame, MapEntry& e) {
  const bool split = !pagemap_.is_huge(frame);
  if (split && !frames.split(frame)) {
    ++stats_.frames_split;
  }
  frames.set_split(frame, split);
  e.split = split;
}

Result<void> HostMoveMmu::rebuild(FrameAddr frame) {
  NodeId node;
  {
    const MutexLock lock(frames_mutex_);
    const Region* area = frames_.find(frame.value(), kHuge);
    if (frame.value() % kHuge != 0 || area == nullptr) {
      return Error(Errc::kInvalid, "not a 2 MiB frame of this device");
    }
    node = area->node();
  }
  // The fresh page is made elsewhere and moved in: the frame is given up only when that page is
  // there, and its area stays one registered mapping.
  const Result<uint64_t> fresh = map_aligned(kHuge, kHuge, {PROT_READ | PROT_WRITE, kAnonymous});
  if (!fresh) {
    return fresh.error();
  }
  Result<void> result;
  if (const int os = advise(*fresh, kHuge, MADV_HUGEPAGE); os != 0) {
    result = Error(os == EINVAL ? Errc::kNotSupported : errc_of_errno(os), os);
  } else if (Result<void> hidden = hide_from_children(*fresh, kHuge); !hidden) {
    result = std::move(hidden);
  } else if (Result<void> bound = bind_to_node(*fresh, kHuge, node); !bound) {
    result = std::move(bound);
  } else if (advise(*fresh, kHuge, MADV_POPULATE_WRITE) != 0 || !pagemap_.is_huge(*fresh)) {
    result = Errc::kNoMemory;
  } else if (const int dropped = advise(frame.value(), kHuge, MADV_DONTNEED); dropped != 0) {
    result = Error(errc_of_errno(dropped), dropped);
  } else {
    UffdStep step;
    for (uint32_t tries = 0; tries <= config_.busy_retries * kUndoFactor; ++tries) {
      step = uffd_->move(frame.value(), *fresh, kHuge, false);
      if (step.os_error != EAGAIN && step.os_error != EBUSY) {
        break;
      }
    }
    if (step.os_error != 0) {
      result = Error(Errc::kIo, step.os_error);
    }
  }
  unmap_memory(*fresh, kHuge);
  return result;
}

Result<void> HostMoveMmu::self_test() {
  constexpr Bytes kSize = kib(64);
  auto failed = [](const char* what, int os = 0) {
    return Error(Errc::kNotSupported,
                 std::string("moving a page out and in did not work here (") + what +
                     "); shareable frames may: frames=shareable",
                 os);
  };
  const Result<AddressRange> range = reserve(kSize, kSize, kSize);
  if (!range) {
    return range.error();
  }
  const Result<FrameArea> area = create_frames(kSize, 1, config_.node);
  if (!area) {
    release(*range);
    return area.error();
  }
  auto* frame = static_cast<unsigned char*>(reinterpret_cast<void*>(area->base.value()));
  const auto* page = static_cast<unsigned char*>(reinterpret_cast<void*>(range->start.value()));
  const auto pattern = [](uint64_t i) { return static_cast<unsigned char>(i * 31 + (i >> 8)); };
  const auto matches = [&](const unsigned char* p) {
    for (uint64_t i = 0; i < kSize.value(); ++i) {
      if (p[i] != pattern(i)) {
        return false;
      }
    }
    return true;
  };
  for (uint64_t i = 0; i < kSize.value(); ++i) {
    frame[i] = pattern(i);
  }
  Region& region = *ranges_.find(range->start.value(), kSize.value());
  MapEntry e{range->start, area->base};
  Result<void> result;
  const Outcome mapped = map(region, e, kSize, Prot::kReadWrite);
  if (!mapped.ok()) {
    result = failed("move in", mapped.os_error);
  } else {
    const bool good = matches(page);
    const Outcome unmapped = unmap(region, e, kSize);
    if (!unmapped.ok()) {
      return failed("move out", unmapped.os_error);  // the destructor gives the memory back
    }
    if (!good || !matches(frame)) {
      result = failed("the bytes changed");
    }
  }
  if (region.full() == 0) {
    destroy_frames(*area);
    release(*range);
  }
  return result;
}

}  // namespace kvmm
