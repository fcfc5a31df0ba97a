// SPDX-License-Identifier: Apache-2.0
//
// Swap areas of a few extents of 16 units of 512 bytes, so that tests can fill them.
#pragma once

#include <string>

#include "tiers/swap_area.h"

namespace kvmm {

inline constexpr Bytes kUnit = Bytes(512);
inline constexpr Bytes kExtent = kib(8);  // 16 units

inline SwapAreaConfig config_of(const std::string& name = "swap0", int32_t priority = 0) {
  SwapAreaConfig c;
  c.name = name;
  c.path = "/swap/" + name;
  c.priority = priority;
  c.unit = kUnit;
  c.extent = kExtent;
  c.index_buffers = 3;
  return c;
}

// Room for exactly `extents`: superblock and index take the first 8 KiB up to four extents' worth.
inline uint64_t capacity_for(uint64_t extents) {
  const uint64_t index = round_up(extents * 16 * 64, 4096);
  return round_up(4096 + index, kExtent.value()) + extents * kExtent.value();
}

}  // namespace kvmm
