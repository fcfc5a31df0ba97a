// SPDX-License-Identifier: Apache-2.0
#include <time.h>

#include "drivers/cuda/cuda_driver.h"
#include "drivers/host/host_driver.h"
#include "drivers/null/null_driver.h"
#include "drivers/topology.h"
#include "drivers/uring/uring_driver.h"
#include "runtime/platform.h"
#include "runtime/worker_data.h"

namespace kvmm {
namespace {

class MonotonicClock final : public Clock {
 public:
  Tick now() noexcept override {
    timespec t{};
    clock_gettime(CLOCK_MONOTONIC, &t);
    return Tick(static_cast<uint64_t>(t.tv_sec) * 1'000'000'000u +
                static_cast<uint64_t>(t.tv_nsec));
  }
};

class ThreadExecutor final : public Executor {
 public:
  bool threaded() const override { return true; }
  std::unique_ptr<DataWorkers> workers(DataOps& inline_ops, uint32_t workers) override {
    return std::make_unique<WorkerData>(inline_ops, workers);
  }
};

}  // namespace

Platform real_platform() {
  // Both live as long as the process, also while it exits.
  // NOLINTBEGIN(cppcoreguidelines-avoid-non-const-global-variables): they have no state
  static MonotonicClock* const clock = new MonotonicClock;
  static ThreadExecutor* const executor = new ThreadExecutor;
  // NOLINTEND(cppcoreguidelines-avoid-non-const-global-variables)
  Platform p;
  p.executor = executor;
  p.clock = clock;
  timespec t{};
  clock_gettime(CLOCK_REALTIME, &t);
  p.seed = static_cast<uint64_t>(t.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(t.tv_nsec);
  p.enumerate = [] { return enumerate_devices(); };
  p.add_drivers = [](DriverRegistry& r) -> Result<void> {
    for (auto make : {+[] { return make_host_driver(); }, +[] { return make_uring_driver(); },
                      +[] { return make_null_driver(); }, +[] { return make_cuda_driver(); }}) {
      if (auto ok = r.add(make()); !ok) {
        return ok;
      }
    }
    return {};
  };
  return p;
}

}  // namespace kvmm
