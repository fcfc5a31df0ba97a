// SPDX-License-Identifier: Apache-2.0
#include "drivers/sim/sim_driver.h"

#include "drivers/options.h"
#include "drivers/sim/sim_data.h"

namespace kvmm {
namespace {

constexpr uint64_t kMaxMicros = 3'600'000'000;  // an hour
constexpr uint64_t kMaxDepth = 65536;
constexpr uint64_t kMaxRate = 1'000'000'000'000;  // bytes a second

class SimDiskDevice final : public Device {
 public:
  SimDiskDevice(DeviceInfo info, SimClock& clock, const SimDiskConfig& config)
      : Device(std::move(info)), disk_(clock, config) {}
  const char* driver_name() const override { return "sim"; }
  BlockOps* block() override { return &disk_; }
  SimDisk& disk() { return disk_; }

 private:
  SimDisk disk_;
};

class SimMemoryDevice final : public Device {
 public:
  SimMemoryDevice(DeviceInfo info, SimClock& clock, std::unique_ptr<SimMmu> mmu,
                  const SimTiming& copy, const SimTiming& data)
      : Device(std::move(info)),
        mmu_(std::move(mmu)),
        copy_(clock, copy, *mmu_),
        data_(clock, data, *mmu_) {}
  const char* driver_name() const override { return "sim"; }
  MmuOps* mmu() override { return mmu_.get(); }
  CopyOps* copy() override { return &copy_; }
  DataOps* data() override { return &data_; }
  SimMmu& sim_mmu() { return *mmu_; }

 private:
  std::unique_ptr<SimMmu> mmu_;
  SimCopy copy_;
  SimData data_;
};

// Reads options one after another and keeps the first error.
class Reader {
 public:
  explicit Reader(const Options& options) : options_(options) {}
  uint64_t number(std::string_view key, uint64_t fallback, uint64_t min, uint64_t max) {
    return keep(options_.number(key, fallback, min, max), fallback);
  }
  Bytes bytes(std::string_view key, Bytes fallback) {
    return keep(options_.bytes(key, fallback), fallback);
  }
  bool flag(std::string_view key, bool fallback) {
    return keep(options_.flag(key, fallback), fallback);
  }
  FrameKind kind(FrameKind fallback) {
    for (const std::string& text : options_.all("kind")) {
      bool known = false;
      for (FrameKind k : {FrameKind::kMovable, FrameKind::kShareable, FrameKind::kDma}) {
        if (text == frame_kind_name(k)) {
          fallback = k;
          known = true;
        }
      }
      if (!known && status_.ok()) {
        status_ = Error(Errc::kInvalid, "sim: kind=" + text + ": movable, shareable or dma");
      }
    }
    return fallback;
  }
  const Result<void>& status() const { return status_; }

 private:
  template <class T>
  T keep(Result<T> value, T fallback) {
    if (!value) {
      status_ = status_.ok() ? Result<void>(value.error()) : status_;
      return fallback;
    }
    return *value;
  }
  const Options& options_;
  Result<void> status_;
};

class SimDriver final : public Driver {
 public:
  explicit SimDriver(SimClock& clock) : clock_(clock) {}
  const char* name() const override { return "sim"; }
  const char* help() const override {
    return "simulated memory and disks of bus 'sim' on a virtual clock; options in sim_driver.h";
  }
  bool probe(const DeviceInfo& info) const override { return info.bus == "sim"; }
  Result<std::unique_ptr<Device>> bind(DeviceInfo info, std::unique_ptr<Device> below) override {
    if (below != nullptr) {
      return Error(Errc::kInvalid, "sim: stacks over nothing");
    }
    return info.cls == DeviceClass::kBlock ? bind_disk(std::move(info))
                                           : bind_memory(std::move(info));
  }

 private:
  Result<std::unique_ptr<Device>> bind_disk(DeviceInfo info) {
    auto options = Options::parse(
        name(), info.options,
        {"size", "alignment", "depth", "latency_us", "jitter_us", "bytes_per_s", "seed"});
    if (!options) {
      return options.error();
    }
    Reader in(*options);
    SimDiskConfig c;
    c.capacity = in.bytes("size", info.capacity);
    c.alignment = in.bytes("alignment", c.alignment);
    c.depth = static_cast<uint32_t>(in.number("depth", c.depth, 1, kMaxDepth));
    c.latency = micros(in.number("latency_us", c.latency.value() / 1000, 0, kMaxMicros));
    c.jitter = micros(in.number("jitter_us", 0, 0, kMaxMicros));
    c.bytes_per_s = in.number("bytes_per_s", c.bytes_per_s, 1, kMaxRate);
    c.seed = in.number("seed", 0, 0, UINT64_MAX);
    Result<void> status = in.status().ok() ? c.validate() : in.status();
    if (!status) {
      return status.error();
    }
    return std::unique_ptr<Device>(std::make_unique<SimDiskDevice>(std::move(info), clock_, c));
  }

  Result<std::unique_ptr<Device>> bind_memory(DeviceInfo info) {
    auto options = Options::parse(
        name(), info.options,
        {"size", "granule", "nodes", "kind", "fixed", "faults", "strict", "seed", "async",
         "data_async", "latency_us", "jitter_us", "copy_us", "bytes_per_s", "depth"});
    if (!options) {
      return options.error();
    }
    Reader in(*options);
    SimMmuConfig c;
    c.memory = in.bytes("size", info.capacity.value() != 0 ? info.capacity : c.memory);
    c.granule = in.bytes("granule", c.granule);
    c.nodes = static_cast<uint16_t>(in.number("nodes", 1, 1, UINT16_MAX));
    c.kind = in.kind(c.kind);
    c.fixed_frames = in.flag("fixed", false);
    c.faults = in.flag("faults", true);
    c.strict = in.flag("strict", true);
    c.seed = in.number("seed", 0, 0, UINT64_MAX);
    c.timing.asynchronous = in.flag("async", false);
    c.timing.latency = micros(in.number("latency_us", 0, 0, kMaxMicros));
    c.timing.depth = static_cast<uint32_t>(in.number("depth", c.timing.depth, 1, kMaxDepth));
    c.jitter = micros(in.number("jitter_us", 0, 0, kMaxMicros));
    SimTiming copy = c.timing;
    copy.latency = micros(in.number("copy_us", 0, 0, kMaxMicros));
    copy.bytes_per_s = in.number("bytes_per_s", 0, 0, kMaxRate);
    SimTiming data = copy;
    data.asynchronous = in.flag("data_async", false);
    if (!in.status()) {
      return in.status().error();
    }
    auto mmu = SimMmu::create(clock_, c);
    if (!mmu) {
      return mmu.error();
    }
    return std::unique_ptr<Device>(
        std::make_unique<SimMemoryDevice>(std::move(info), clock_, std::move(*mmu), copy, data));
  }

  SimClock& clock_;
};

}  // namespace

std::unique_ptr<Driver> make_sim_driver(SimClock& clock) {
  return std::make_unique<SimDriver>(clock);
}

SimDisk* find_sim_disk(Device& device) {
  auto* d = dynamic_cast<SimDiskDevice*>(&device);
  return d == nullptr ? nullptr : &d->disk();
}

SimMmu* find_sim_mmu(Device& device) {
  auto* d = dynamic_cast<SimMemoryDevice*>(&device);
  return d == nullptr ? nullptr : &d->sim_mmu();
}

}  // namespace kvmm
