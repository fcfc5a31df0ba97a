// SPDX-License-Identifier: Apache-2.0
//
// The driver model: drivers register, devices are enumerated, drivers probe and bind.
//
//   DriverRegistry                    DeviceList (hwloc: NUMA nodes, GPUs; configured: swap paths)
//     host   kMemory   ----probe----    node0
//     cuda   kMemory   ----probe----    gpu0
//     uring  kBlock    ----probe----    /var/lib/kvmm/swap0
//     error  kBlock    ----stack----    (over another block device)
//
// A driver is a table of what it can bind to. `probe` answers quickly whether it wants a device;
// `bind` builds the `Device`, which owns its op tables. The first driver in order of registration
// whose probe says yes gets the device, unless the device names its driver.
//
// Thread safety: registration happens at set-up, one thread. Swap devices are bound while the
// runtime runs: `bind` of one driver may be called by several threads at once.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "drivers/ops.h"

namespace kvmm {

enum class DeviceClass : uint8_t {
  kMemory,  // has MmuOps, and usually CopyOps and DataOps
  kBlock,   // has BlockOps
};

// What memory is made of, as far as the system says.
enum class MemoryKind : uint8_t {
  kDram,
  kHbm,         // on the processor's package: wide
  kCxl,         // behind a link: further away than any socket
  kPersistent,  // slower to write than to read
  kOther,       // a node without CPUs of which nothing more is known
};
const char* memory_kind_name(MemoryKind kind) noexcept;

// What is there to be bound. Filled by the enumeration (drivers/topology.h) or from configuration.
struct DeviceInfo {
  std::string name;  // unique: "node0", "gpu0", "swap0"
  DeviceClass cls = DeviceClass::kMemory;
  std::string bus;      // "numa", "cuda", "file", "sim"
  std::string driver;   // "" or the driver it must be bound to
  NodeId node;          // NUMA node of the memory, or nearest to the device
  Bytes capacity;       // of the device as the system reports it; 0: unknown
  std::string path;     // block: file or device node
  std::string options;  // driver's own, "key=value,key=value"
  // Memory: some CPU is local to it. A node without any (CXL memory) makes a slower tier.
  bool has_cpus = true;
  // NUMA nodes, as hwloc knows them.
  MemoryKind memory = MemoryKind::kDram;
  uint64_t bandwidth = 0;      // MiB/s from the CPUs that reach it best; 0: unknown
  uint64_t latency = 0;        // ns from the CPUs that reach it soonest; 0: unknown
  std::vector<uint32_t> cpus;  // numbers of the CPUs of this node
  // From these CPUs to the memory of nodes: 10 is local, 20 takes twice as long.
  struct Distance {
    NodeId to;
    uint32_t value = 0;
  };
  std::vector<Distance> distances;  // none: unknown
};

// A bound device. Pointers it hands out live as long as it does.
class Device {
 public:
  virtual ~Device() = default;
  const DeviceInfo& info() const { return info_; }
  virtual const char* driver_name() const = 0;
  virtual MmuOps* mmu() { return nullptr; }
  virtual CopyOps* copy() { return nullptr; }
  virtual BlockOps* block() { return nullptr; }
  virtual DataOps* data() { return nullptr; }

 protected:
  explicit Device(DeviceInfo info) : info_(std::move(info)) {}

 private:
  DeviceInfo info_;
};

class Driver {
 public:
  virtual ~Driver() = default;
  virtual const char* name() const = 0;
  virtual const char* help() const = 0;  // one line: what it binds to and its options
  // REQUIRED, NON-BLOCKING: is this device mine?
  virtual bool probe(const DeviceInfo& info) const = 0;
  // REQUIRED, BLOCKING. `below`: the device it stacks on (error, delay), else null.
  // Errors: kNotSupported, kPermission (both with a text that says what to do), kIo, kInvalid,
  // kNoMemory.
  virtual Result<std::unique_ptr<Device>> bind(DeviceInfo info, std::unique_ptr<Device> below) = 0;
};

class DriverRegistry {
 public:
  // Errors: kExists (a driver of that name).
  Result<void> add(std::unique_ptr<Driver> driver);
  Driver* find(std::string_view name) const;
  // The driver for `info`: the one it names, else the first whose probe says yes.
  // Errors: kNotFound (no driver of that name, or none wants it).
  Result<std::unique_ptr<Device>> bind(DeviceInfo info,
                                       std::unique_ptr<Device> below = nullptr) const;
  const std::vector<std::unique_ptr<Driver>>& drivers() const { return drivers_; }

 private:
  std::vector<std::unique_ptr<Driver>> drivers_;
};

}  // namespace kvmm
