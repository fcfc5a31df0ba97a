// SPDX-License-Identifier: Apache-2.0
//
// What a runtime stands on: threads or none, a clock, a seed, drivers. The same `Runtime` runs on
// real threads and real devices, or on one virtual thread and simulated ones.
//
//   real_platform()      worker threads, CLOCK_MONOTONIC, host + uring + null + cuda
//   a simulator's        no thread, a virtual clock, sim devices: tests/unit/runtime
//
// Thread safety: a Platform is filled by one thread and then constant.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "drivers/driver.h"
#include "runtime/base/clock.h"

namespace kvmm {

// Data work on the side. The thread that steps the core may help with it between two steps.
class DataWorkers : public DataOps {
 public:
  // The calling thread is the one that helps, from now on or no more.
  virtual void helper_started() noexcept {}
  virtual void helper_stopped() noexcept {}
  // Whether anything is queued that a worker has not taken yet.
  virtual bool help_wanted() const noexcept { return false; }
  // Runs the oldest request if it is a short one. False: there is none.
  virtual bool help() { return false; }
};

// Who steps the core, and where work on page bytes runs.
class Executor {
 public:
  virtual ~Executor() = default;
  // True: `Core` starts a thread of its own, and waiting is sleeping.
  virtual bool threaded() const = 0;
  // Data work of `inline_ops` on up to `workers` threads.
  virtual std::unique_ptr<DataWorkers> workers(DataOps& inline_ops, uint32_t workers) = 0;
  // Not threaded: lets virtual time pass until something may have happened. False: nothing ever
  // will.
  virtual bool pass_time() { return false; }
};

struct Platform {
  Executor* executor = nullptr;
  Clock* clock = nullptr;
  uint64_t seed = 0;
  // Registers the drivers, in order of preference.
  std::function<Result<void>(DriverRegistry&)> add_drivers;
  // BLOCKING. What the machine has. Its NUMA nodes become tiers: with CPUs `dram`, without `slow`.
  // The memory driver is bound once, to the first node with CPUs, and makes frames on all of them;
  // its options are completed by the runtime.
  std::function<Result<std::vector<DeviceInfo>>()> enumerate;
  // Driver for swap areas: "uring", or a simulated one.
  std::string swap_driver = "uring";
};

// The platform of this machine. Errors: none; what is missing is found when it is bound.
Platform real_platform();

}  // namespace kvmm
