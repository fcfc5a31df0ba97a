// SPDX-License-Identifier: Apache-2.0
#include "drivers/host/share_mmu.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>

#include <cerrno>
#include <string>

#include "drivers/host/uapi.h"
#include "runtime/base/check.h"

namespace kvmm {
namespace {

int prot_bits(Prot p) {
  switch (p) {
    case Prot::kNone:
      return PROT_NONE;
    case Prot::kRead:
      return PROT_READ;
    case Prot::kReadWrite:
      return PROT_READ | PROT_WRITE;
  }
  return PROT_NONE;
}

}  // namespace

FixedFrameMmu::~FixedFrameMmu() {
  for (const auto& region : ranges_.regions()) {
    destroy(*region);
  }
}

Result<AddressRange> FixedFrameMmu::reserve(Bytes length, Bytes align, Bytes page_size) {
  if (!valid_reservation(length, align, page_size)) {
    return Error(Errc::kInvalid, "length, alignment or page size of a range");
  }
  const int fd = calls_.memfd_create("kvmm", MFD_CLOEXEC);
  if (fd < 0) {
    return Error(errc_of_errno(errno), "memfd_create", errno);
  }
  uint64_t engine = 0, alias = 0;
  auto fail = [&](Error error) -> Result<AddressRange> {
    for (const uint64_t start : {engine, alias}) {
      if (start != 0) {
        unmap_memory(start, length.value());
      }
    }
    calls_.close(fd);
    return error;
  };
  if (calls_.ftruncate(fd, static_cast<off_t>(length.value())) != 0) {
    return fail(Error(errc_of_errno(errno), "ftruncate of a memfd", errno));
  }
  for (uint64_t* start : {&engine, &alias}) {
    const int prot = start == &engine ? engine_prot_ : PROT_READ | PROT_WRITE;
    const Result<uint64_t> mapped =
        map_aligned(length.value(), align.value(), {prot, MAP_SHARED | MAP_NORESERVE, fd});
    if (!mapped) {
      return fail(mapped.error());
    }
    *start = *mapped;
    if (Result<void> r = hide_from_children(*start, length.value()); !r) {
      return fail(std::move(r).error());
    }
  }
  if (Result<void> r = bind_to_node(alias, length.value(), config_.node); !r) {
    return fail(std::move(r).error());
  }
  Result<std::unique_ptr<Region>> made = Region::create(engine, length.value());
  if (!made) {
    return fail(std::move(made).error());
  }
  const AddressRange range{VirtAddr(engine), length};
  if (uffd_) {
    constexpr uint64_t kMode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR;
    if (Result<void> r = uffd_->register_range(range, kMode); !r) {
      return fail(std::move(r).error());
    }
  }
  (*made)->memfd = fd;
  (*made)->alias = alias;
  ranges_.add(std::move(*made));
  return range;
}

void FixedFrameMmu::release(AddressRange range) {
  const std::unique_ptr<Region> region = ranges_.remove(range.start.value());
  check(region != nullptr && region->length() == range.length.value(), "a reserved range",
        range.start, range.length);
  check(region->full() == 0, "nothing is mapped in a released range", region->full(), range.start);
  destroy(*region);
}

void FixedFrameMmu::destroy(const Region& region) {
  unmap_memory(region.start(), region.length());
  unmap_memory(region.alias, region.length());
  calls_.close(region.memfd);
}

Result<FrameArea> FixedFrameMmu::create_frames(Bytes, uint32_t, NodeId) {
  return Error(Errc::kNotSupported, "frames are fixed to addresses here: see fixed_frame");
}

void FixedFrameMmu::destroy_frames(const FrameArea& area) {
  check(false, "an area of frames; there are none here", area.base, area.count);
}

FrameAddr FixedFrameMmu::fixed_frame(VirtAddr va) const {
  const Region* r = ranges_.find(va.value(), 1);
  return FrameAddr(r == nullptr ? 0 : r->alias + (va.value() - r->start()));
}

HostMmu::Outcome FixedFrameMmu::map(Region& range, MapEntry& e, Bytes size, Prot prot) {
  const uint64_t va = e.va.value(), n = size.value();
  if (e.frame != FrameAddr(range.alias + (va - range.start()))) {
    return {Errc::kInvalid};
  }
  if (range.any(va, n, Granule::kFull)) {
    return {Errc::kExists};
  }
  if (range.any(va, n, Granule::kPoison)) {
    if (const int os = advise(va, n, MADV_DONTNEED); os != 0) {
      return Outcome::of_errno(os);
    }
    range.set(va, n, Granule::kEmpty);
  }
  const Outcome o = show(va, n, prot);
  if (o.ok()) {
    range.set(va, n, Granule::kFull);
  }
  return o;
}

HostMmu::Outcome FixedFrameMmu::unmap(Region& range, MapEntry& e, Bytes size) {
  const uint64_t va = e.va.value(), n = size.value();
  if (e.frame != FrameAddr(range.alias + (va - range.start()))) {
    return {Errc::kInvalid};
  }
  if (!range.all(va, n, Granule::kFull)) {
    return {Errc::kNotFound};
  }
  const Outcome o = hide(va, n);
  if (o.ok()) {
    range.set(va, n, Granule::kEmpty);
  }
  return o;
}

HostMmu::Outcome FixedFrameMmu::free(Region& range, MapEntry& e, Bytes size) {
  const uint64_t va = e.va.value(), n = size.value();
  if (range.any(va, n, Granule::kFull)) {
    return {Errc::kBusy};
  }
  const auto offset = static_cast<off_t>(va - range.start());
  if (calls_.fallocate(range.memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset,
                       static_cast<off_t>(n)) != 0) {
    return Outcome::of_errno(errno);
  }
  return {};
}

Result<void> FixedFrameMmu::self_test() {
  constexpr Bytes kSize = kib(64);
  const Result<AddressRange> range = reserve(kSize, kSize, kSize);
  if (!range) {
    return range.error();
  }
  const uint64_t va = range->start.value();
  Region& region = *ranges_.find(va, kSize.value());
  auto* frame = static_cast<unsigned char*>(reinterpret_cast<void*>(region.alias));
  const auto* page = static_cast<unsigned char*>(reinterpret_cast<void*>(va));
  for (uint64_t i = 0; i < kSize.value(); ++i) {
    frame[i] = static_cast<unsigned char>(i * 31 + (i >> 8));
  }
  MapEntry e{range->start, FrameAddr(region.alias)};
  bool same = true;
  Outcome o = map(region, e, kSize, Prot::kReadWrite);
  if (o.ok()) {
    for (uint64_t i = 0; i < kSize.value(); ++i) {
      same = same && page[i] == frame[i];
    }
    o = unmap(region, e, kSize);
  }
  if (o.ok()) {
    o = free(region, e, kSize);
    same = same && frame[1] == 0;
  }
  if (region.full() == 0) {
    release(*range);
  }
  if (!o.ok() || !same) {
    return Error(Errc::kNotSupported,
                 std::string("mapping a page of shared memory and taking it back did not work "
                             "here (") +
                     (o.ok() ? "the bytes changed" : errc_name(o.code)) + ")",
                 o.os_error);
  }
  return {};
}

// ----------------------------------------------------------------------------------- HostShareMmu

HostShareMmu::HostShareMmu(const HostConfig& config, Uffd uffd)
    : FixedFrameMmu(config, std::move(uffd), PROT_READ | PROT_WRITE) {}

Result<std::unique_ptr<HostShareMmu>> HostShareMmu::create(const HostConfig& config) {
  Result<Uffd> uffd = Uffd::open(
      *config.calls, uapi::kFeatureMissingShmem | uapi::kFeatureMinorShmem | uapi::kFeaturePoison,
      uapi::kFeatureThreadId);
  if (!uffd) {
    return std::move(uffd).error();
  }
  std::unique_ptr<HostShareMmu> mmu(new HostShareMmu(config, std::move(*uffd)));
  if (Result<void> tested = mmu->self_test(); !tested) {
    return std::move(tested).error();
  }
  return mmu;
}

MmuInfo HostShareMmu::info() const {
  MmuInfo i;
  i.name = "host-share";
  i.granule = kPageSizeMin;
  i.page_size_max = kPageSizeMax;
  i.faults = true;
  i.poisons = true;
  i.kind = FrameKind::kShareable;
  i.fixed_frames = true;
  return i;
}

void HostShareMmu::wake(AddressRange range) {
  const Region* region = ranges_.find(range.start.value(), range.length.value());
  if (region != nullptr && range.length <= kPageSizeMax &&
      region->all(range.start.value(), range.length.value(), Granule::kFull)) {
    for (uint64_t at = range.start.value(); at < range.end().value(); at += kPageSizeMin.value()) {
      uffd_->continue_range(at, kPageSizeMin.value());  // EEXIST: it is there
    }
  }
  HostMmu::wake(range);
}

HostMmu::Outcome HostShareMmu::show(uint64_t va, uint64_t size, Prot) {
  bool cleared = false;
  uint64_t done = 0;
  for (uint32_t tries = 0; done < size;) {
    const UffdStep step = uffd_->continue_range(va + done, size - done);
    done += step.done;
    if (step.done != 0) {
      tries = 0;
      continue;
    }
    if (step.os_error == EAGAIN && ++tries <= config_.busy_retries) {
      ++stats_.busy_retries;
      continue;
    }
    // Something that is not in the book; a mapping of shared memory can be dropped without loss.
    if (step.os_error == EEXIST && !cleared) {
      cleared = true;
      if (advise(va, size, MADV_DONTNEED) == 0) {
        done = 0;
        continue;
      }
    }
    advise(va, size, MADV_DONTNEED);                                   // all or nothing
    return step.os_error == EFAULT ? Outcome{Errc::kNotFound, EFAULT}  // a hole: no memory yet
                                   : Outcome::of_errno(step.os_error);
  }
  return {};
}

HostMmu::Outcome HostShareMmu::hide(uint64_t va, uint64_t size) {
  return Outcome::of_errno(advise(va, size, MADV_DONTNEED));
}

// ------------------------------------------------------------------------------------- HostPinMmu

HostPinMmu::HostPinMmu(const HostConfig& config) : FixedFrameMmu(config, std::nullopt, PROT_NONE) {}

Result<std::unique_ptr<HostPinMmu>> HostPinMmu::create(const HostConfig& config) {
  std::unique_ptr<HostPinMmu> mmu(new HostPinMmu(config));
  if (Result<void> tested = mmu->self_test(); !tested) {
    return std::move(tested).error();
  }
  return mmu;
}

MmuInfo HostPinMmu::info() const {
  MmuInfo i;
  i.name = "host-pin";
  i.granule = kPageSizeMin;
  i.page_size_max = kPageSizeMax;
  i.protects = true;
  i.kind = FrameKind::kShareable;
  i.fixed_frames = true;
  return i;
}

HostMmu::Outcome HostPinMmu::show(uint64_t va, uint64_t size, Prot prot) {
  if (calls_.mprotect(reinterpret_cast<void*>(va), size, prot_bits(prot)) != 0) {
    const int os_error = errno;
    return {os_error == ENOMEM ? Errc::kLimit : errc_of_errno(os_error), os_error};
  }
  return {};
}

HostMmu::Outcome HostPinMmu::hide(uint64_t va, uint64_t size) {
  return show(va, size, Prot::kNone);
}

HostMmu::Outcome HostPinMmu::protect(Region& range, MapEntry& e, Bytes size, Prot prot) {
  if (!range.all(e.va.value(), size.value(), Granule::kFull)) {
    return {Errc::kNotFound};
  }
  return show(e.va.value(), size.value(), prot);
}

HostMmu::Outcome HostPinMmu::clear(Region& range, MapEntry& e, Bytes size) {
  return range.any(e.va.value(), size.value(), Granule::kFull) ? Outcome{Errc::kExists} : Outcome{};
}

}  // namespace kvmm
