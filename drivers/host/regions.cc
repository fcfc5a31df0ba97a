// SPDX-License-Identifier: Apache-2.0
#include "drivers/host/regions.h"

#include <algorithm>
#include <utility>

#include "runtime/base/check.h"

namespace kvmm {

Result<std::unique_ptr<Region>> Region::create(uint64_t start, uint64_t length) {
  Result<LazyArray<uint8_t>> granules =
      LazyArray<uint8_t>::create(round_up(length, kPageSizeMin.value()) / kPageSizeMin.value());
  if (!granules) {
    return granules.error();
  }
  Result<LazyArray<uint8_t>> split =
      LazyArray<uint8_t>::create(round_up(length, kPageSizeMax.value()) / kPageSizeMax.value());
  if (!split) {
    return split.error();
  }
  return std::unique_ptr<Region>(
      new Region(start, length, std::move(*granules), std::move(*split)));
}

bool Region::all(uint64_t start, uint64_t length, Granule state) const {
  check(contains(start, length), "the page is inside its region", start, length);
  const uint8_t* first = &granules_[index(start)];
  return std::all_of(first, first + length / kPageSizeMin.value(),
                     [state](uint8_t g) { return g == static_cast<uint8_t>(state); });
}

bool Region::any(uint64_t start, uint64_t length, Granule state) const {
  check(contains(start, length), "the page is inside its region", start, length);
  const uint8_t* first = &granules_[index(start)];
  return std::any_of(first, first + length / kPageSizeMin.value(),
                     [state](uint8_t g) { return g == static_cast<uint8_t>(state); });
}

void Region::set(uint64_t start, uint64_t length, Granule state) {
  check(contains(start, length), "the page is inside its region", start, length);
  uint8_t* first = &granules_[index(start)];
  uint8_t* last = first + length / kPageSizeMin.value();
  const auto full = static_cast<uint8_t>(Granule::kFull);
  full_ -= static_cast<uint64_t>(std::count(first, last, full));
  std::fill(first, last, static_cast<uint8_t>(state));
  full_ += state == Granule::kFull ? static_cast<uint64_t>(last - first) : 0;
}

Region* RegionMap::add(std::unique_ptr<Region> region) {
  const auto at =
      std::lower_bound(regions_.begin(), regions_.end(), region->start(),
                       [](const auto& r, uint64_t start) { return r->start() < start; });
  check(at == regions_.end() || region->end() <= (*at)->start(), "regions do not overlap");
  check(at == regions_.begin() || (*std::prev(at))->end() <= region->start(),
        "regions do not overlap");
  return regions_.insert(at, std::move(region))->get();
}

std::unique_ptr<Region> RegionMap::remove(uint64_t start) {
  const auto at = std::lower_bound(regions_.begin(), regions_.end(), start,
                                   [](const auto& r, uint64_t s) { return r->start() < s; });
  if (at == regions_.end() || (*at)->start() != start) {
    return nullptr;
  }
  std::unique_ptr<Region> region = std::move(*at);
  regions_.erase(at);
  return region;
}

Region* RegionMap::find(uint64_t start, uint64_t length) const {
  auto at = std::upper_bound(regions_.begin(), regions_.end(), start,
                             [](uint64_t s, const auto& r) { return s < r->start(); });
  if (at == regions_.begin()) {
    return nullptr;
  }
  Region* region = std::prev(at)->get();
  return region->contains(start, length) ? region : nullptr;
}

}  // namespace kvmm
