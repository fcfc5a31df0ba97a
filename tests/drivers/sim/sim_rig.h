// SPDX-License-Identifier: Apache-2.0
//
// A simulated memory device and disk on one clock, and how tests step them.
//
// Thread safety: one thread.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "drivers/sim/sim_driver.h"

namespace kvmm {

inline DeviceInfo sim_info(DeviceClass cls, const std::string& options) {
  DeviceInfo i;
  i.name = "sim0";
  i.cls = cls;
  i.bus = "sim";
  i.options = options;
  return i;
}

inline std::unique_ptr<Device> bind_sim(SimClock& clock, DeviceClass cls,
                                        const std::string& options) {
  auto device = make_sim_driver(clock)->bind(sim_info(cls, options), nullptr);
  if (!device) {
    ADD_FAILURE() << device.error().message();
    return nullptr;
  }
  return std::move(*device);
}

using TestBytes = std::vector<std::byte>;

// `n` bytes that depend on `seed` only.
inline TestBytes bytes_of(size_t n, uint64_t seed) {
  Random random(seed);
  TestBytes out(n);
  for (std::byte& b : out) {
    b = static_cast<std::byte>(random());
  }
  return out;
}

}  // namespace kvmm
