// SPDX-License-Identifier: Apache-2.0
#include "drivers/host/host_driver.h"

#include <numa.h>

#include <string>
#include <utility>

#include "drivers/host/data.h"
#include "drivers/host/move_mmu.h"
#include "drivers/host/share_mmu.h"
#include "drivers/options.h"

namespace kvmm {
namespace {

enum class Frames : uint8_t { kMovable, kShareable, kPinOnly };

constexpr uint64_t kBusyRetriesMax = 1000000;

struct HostOptions {
  Frames frames = Frames::kMovable;
  uint32_t busy_retries = HostConfig{}.busy_retries;
};

Result<HostOptions> parse_options(const std::string& text) {
  const Result<Options> given = Options::parse("host", text, {"frames", "busy_retries"});
  if (!given) {
    return given.error();
  }
  HostOptions out;
  for (const std::string& value : given->all("frames")) {
    if (value == "movable") {
      out.frames = Frames::kMovable;
    } else if (value == "shareable") {
      out.frames = Frames::kShareable;
    } else if (value == "pinonly") {
      out.frames = Frames::kPinOnly;
    } else {
      return Error(Errc::kInvalid,
                   "host: frames=" + value + ": must be movable, shareable or pinonly");
    }
  }
  const Result<uint64_t> retries =
      given->number("busy_retries", out.busy_retries, 0, kBusyRetriesMax);
  if (!retries) {
    return retries.error();
  }
  out.busy_retries = static_cast<uint32_t>(*retries);
  return out;
}

uint32_t count_numa_nodes() {
  if (numa_available() < 0) {
    return 1;
  }
  const int n = numa_num_configured_nodes();
  return n < 1 ? 1 : static_cast<uint32_t>(n);
}

class HostDevice final : public Device {
 public:
  HostDevice(DeviceInfo info, std::unique_ptr<HostMmu> mmu, HostMoveMmu* rebuilder)
      : Device(std::move(info)), mmu_(std::move(mmu)), data_(rebuilder) {}
  const char* driver_name() const override { return "host"; }
  MmuOps* mmu() override { return mmu_.get(); }
  CopyOps* copy() override { return &copy_; }
  DataOps* data() override { return &data_; }

 private:
  const std::unique_ptr<HostMmu> mmu_;
  HostData data_;
  HostCopy copy_;
};

class HostDriver final : public Driver {
 public:
  HostDriver(const SystemCalls& calls, uint32_t numa_nodes)
      : calls_(calls), numa_nodes_(numa_nodes) {}

  const char* name() const override { return "host"; }
  const char* help() const override {
    return "memory of a NUMA node; options: frames=movable|shareable|pinonly, busy_retries=N";
  }
  bool probe(const DeviceInfo& info) const override {
    return info.cls == DeviceClass::kMemory && info.bus == "numa";
  }

  Result<std::unique_ptr<Device>> bind(DeviceInfo info, std::unique_ptr<Device> below) override {
    if (below != nullptr || !probe(info)) {
      return Error(Errc::kInvalid, "host: '" + info.name + "' is no NUMA node's memory");
    }
    const Result<HostOptions> options = parse_options(info.options);
    if (!options) {
      return options.error();
    }
    HostConfig config;
    config.calls = &calls_;
    config.node = info.node;
    config.numa_nodes = numa_nodes_ != 0 ? numa_nodes_ : count_numa_nodes();
    config.busy_retries = options->busy_retries;
    switch (options->frames) {
      case Frames::kMovable: {
        Result<std::unique_ptr<HostMoveMmu>> mmu = HostMoveMmu::create(config);
        HostMoveMmu* rebuilder = mmu ? mmu->get() : nullptr;
        return device(std::move(info), std::move(mmu), rebuilder);
      }
      case Frames::kShareable:
        return device(std::move(info), HostShareMmu::create(config), nullptr);
      case Frames::kPinOnly:
        return device(std::move(info), HostPinMmu::create(config), nullptr);
    }
    return Errc::kInvalid;
  }

 private:
  template <class Mmu>
  static Result<std::unique_ptr<Device>> device(DeviceInfo info, Result<std::unique_ptr<Mmu>> mmu,
                                                HostMoveMmu* rebuilder) {
    if (!mmu) {
      return std::move(mmu).error();
    }
    return std::unique_ptr<Device>(
        std::make_unique<HostDevice>(std::move(info), std::move(*mmu), rebuilder));
  }

  const SystemCalls& calls_;
  const uint32_t numa_nodes_;
};

}  // namespace

std::unique_ptr<Driver> make_host_driver(const SystemCalls& calls, uint32_t numa_nodes) {
  return std::make_unique<HostDriver>(calls, numa_nodes);
}

}  // namespace kvmm
