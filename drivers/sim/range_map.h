// SPDX-License-Identifier: Apache-2.0
//
// Look-ups in ordered maps of ranges that do not overlap: address ranges, pages, mapped frames.
//
// Thread safety: functions without state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>

namespace kvmm {

// The first entry of `map` that overlaps [start, end), or map.end(). An entry begins at its key and
// ends at `end_of(entry)`.
template <class Map, class End>
auto overlapping(Map& map, uint64_t start, uint64_t end, End end_of) {
  auto it = map.upper_bound(start);
  if (it != map.begin()) {
    const auto before = std::prev(it);
    if (end_of(*before) > start) {
      return before;
    }
  }
  return it != map.end() && it->first < end ? it : map.end();
}

inline std::byte* bytes_at(uint64_t address) {
  return reinterpret_cast<std::byte*>(address);
}

}  // namespace kvmm
