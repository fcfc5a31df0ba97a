// SPDX-License-Identifier: Apache-2.0
#include "drivers/driver.h"

namespace kvmm {

const char* memory_kind_name(MemoryKind kind) noexcept {
  switch (kind) {
    case MemoryKind::kDram:
      return "dram";
    case MemoryKind::kHbm:
      return "hbm";
    case MemoryKind::kCxl:
      return "cxl";
    case MemoryKind::kPersistent:
      return "persistent";
    case MemoryKind::kOther:
      return "other";
  }
  return "?";
}

const char* frame_kind_name(FrameKind kind) noexcept {
  switch (kind) {
    case FrameKind::kMovable:
      return "movable";
    case FrameKind::kShareable:
      return "shareable";
    case FrameKind::kDma:
      return "dma";
  }
  return "?";
}

const char* urgency_name(Urgency u) noexcept {
  switch (u) {
    case Urgency::kFault:
      return "fault";
    case Urgency::kPrefetch:
      return "prefetch";
    case Urgency::kWriteback:
      return "writeback";
    case Urgency::kBackground:
      return "background";
  }
  return "?";
}

Result<void> DriverRegistry::add(std::unique_ptr<Driver> driver) {
  if (find(driver->name()) != nullptr) {
    return Error(Errc::kExists, std::string("a driver '") + driver->name() + "' is registered");
  }
  drivers_.push_back(std::move(driver));
  return {};
}

Driver* DriverRegistry::find(std::string_view name) const {
  for (const auto& d : drivers_) {
    if (name == d->name()) {
      return d.get();
    }
  }
  return nullptr;
}

Result<std::unique_ptr<Device>> DriverRegistry::bind(DeviceInfo info,
                                                     std::unique_ptr<Device> below) const {
  if (!info.driver.empty()) {
    Driver* named = find(info.driver);
    if (named == nullptr) {
      std::string known;
      for (const auto& d : drivers_) {
        known += known.empty() ? d->name() : std::string(", ") + d->name();
      }
      return Error(Errc::kNotFound,
                   "no driver '" + info.driver + "' for " + info.name + "; there are: " + known);
    }
    return named->bind(std::move(info), std::move(below));
  }
  for (const auto& d : drivers_) {
    if (d->probe(info)) {
      info.driver = d->name();
      return d->bind(std::move(info), std::move(below));
    }
  }
  return Error(Errc::kNotFound, "no driver wants device '" + info.name + "'");
}

}  // namespace kvmm
