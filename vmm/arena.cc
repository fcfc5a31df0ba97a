// SPDX-License-Identifier: Apache-2.0
#include "vmm/arena.h"

#include <algorithm>

namespace kvmm {

Bytes page_size_for(Bytes lane_stride, VirtAddr base) {
  uint64_t size = kPageSizeMax.value();
  while (size > kPageSizeMin.value() &&
         (lane_stride.value() % size != 0 || base.value() % size != 0)) {
    size /= 2;
  }
  return Bytes(size);
}

LanePages lane_pages(const PlaneSpec& plane, uint32_t lane) {
  const uint64_t p = plane.page_size.value();
  const uint64_t from = plane.base.value() + plane.lane_stride.value() * lane;
  const uint64_t to = from + plane.lane_stride.value();
  // The first page of lane 0 may begin before the plane: nobody else can own it.
  const uint64_t start = lane == 0 ? round_down(from, p) : round_up(from, p);
  const uint64_t end = round_up(to, p);
  return {VirtAddr(start), end > start ? static_cast<uint32_t>((end - start) / p) : 0};
}

Result<std::unique_ptr<Arena>> Arena::create(ArenaSpec spec, MmuOps& mmu) {
  if (spec.lanes == 0 || spec.lanes > 65536) {
    return Error(Errc::kInvalid, "an arena has 1 to 65536 lanes");
  }
  auto a = std::make_unique<Arena>();
  a->identity.model = model_digest(spec.model_id);
  a->identity.layout = text_fingerprint(spec.layout);
  a->lanes.resize(spec.lanes, nullptr);
  a->mmu = &mmu;
  a->spec = std::move(spec);
  return a;
}

const AddressRange* Arena::range_of(VirtAddr a) const {
  for (const AddressRange& r : ranges) {
    if (r.contains(a)) {
      return &r;
    }
  }
  return nullptr;
}

bool Arena::whole_lanes(const PlaneSpec& plane) const {
  const uint64_t p = plane.page_size.value();
  return spec.placement == Placement::kContiguous ||
         (plane.lane_stride.value() % p == 0 && plane.base.value() % p == 0);
}

Result<void> Arena::check_structured(const PlaneSpec& plane) const {
  if (plane.token_stride.value() == 0) {
    return Error(Errc::kInvalid, "plane '" + plane.name +
                                     "': structured sessions need its token_stride; without one "
                                     "use raw sessions");
  }
  if (!whole_lanes(plane)) {
    return Error(Errc::kInvalid, "plane '" + plane.name +
                                     "': structured sessions need a lane_stride and a base that "
                                     "are multiples of page_size; else use raw sessions");
  }
  return {};
}

Result<void> Arena::check_plane(const PlaneSpec& plane) const {
  if (plane.lane_stride.value() == 0 || plane.page_size.value() == 0) {
    return Error(Errc::kInvalid, "plane '" + plane.name + "': lane_stride is 0");
  }
  if (plane.token_stride > plane.lane_stride) {
    return Error(Errc::kInvalid, "plane '" + plane.name + "': a token is larger than a lane");
  }
  if (spec.engine == EngineKind::kPinning && !whole_lanes(plane)) {
    return Error(Errc::kInvalid, "plane '" + plane.name +
                                     "': an engine that pins needs a lane_stride and a base that "
                                     "are multiples of page_size");
  }
  if (spec.placement == Placement::kContiguous) {
    return {};
  }
  const AddressRange* r = range_of(plane.base);
  const uint64_t all = plane.lane_stride.value() * spec.lanes;
  if (all / spec.lanes != plane.lane_stride.value() || r == nullptr ||
      all > (r->end() - plane.base).value()) {
    return Error(Errc::kRange, "plane '" + plane.name + "' is not inside a reserved range");
  }
  const LanePages first = lane_pages(plane, 0);
  const LanePages last = lane_pages(plane, spec.lanes - 1);
  const VirtAddr end = last.start + plane.page_size * last.pages;
  for (const PlaneSpec& p : planes) {
    const VirtAddr p_start = lane_pages(p, 0).start;
    const LanePages p_last = lane_pages(p, spec.lanes - 1);
    if (first.start < p_last.start + p.page_size * p_last.pages && p_start < end) {
      return Error(Errc::kExists, "plane '" + plane.name + "' overlaps plane '" + p.name + "'");
    }
  }
  return {};
}

}  // namespace kvmm
