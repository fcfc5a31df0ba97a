// SPDX-License-Identifier: Apache-2.0
//
// The contract of MmuOps over the simulated device: movable, dma and fixed frames, at once and
// asynchronous. Its addresses are none of this process, so faults have tests of their own
// (sim_mmu_test.cc).
#include <cstring>

#include "tests/drivers/mmu_suite/mmu_suite.h"
#include "tests/drivers/sim/sim_rig.h"

namespace kvmm::test {
namespace {

class SimRig final : public MmuRig {
 public:
  explicit SimRig(const std::string& options)
      : device_(bind_sim(clock_, DeviceClass::kMemory, "faults=0," + options)),
        sim_(find_sim_mmu(*device_)) {}
  MmuOps& mmu() override { return *sim_; }
  DataOps& data() override { return *device_->data(); }
  void settle() override {
    clock_.advance_to_alarm();
    sim_->check_invariants();
  }
  void read_page(VirtAddr va, std::vector<std::byte>& out) override {
    EXPECT_EQ(sim_->read(va, out), SimAccess::kDone);
  }
  void write_page(VirtAddr va, const std::vector<std::byte>& in) override {
    EXPECT_EQ(sim_->write(va, in), SimAccess::kDone);
  }

 private:
  SimClock clock_;
  std::unique_ptr<Device> device_;
  SimMmu* sim_;
};

MmuCase make_case(const std::string& name, const std::string& options) {
  return {name, {kib(4), kib(64), mib(2)}, [options] { return std::make_unique<SimRig>(options); }};
}

INSTANTIATE_TEST_SUITE_P(SimMovable, MmuSuite,
                         testing::ValuesIn(mmu_params(make_case("movable", "size=16M"))), mmu_name);
INSTANTIATE_TEST_SUITE_P(
    SimDma, MmuSuite,
    testing::ValuesIn(mmu_params(make_case(
        "dma_async", "size=16M,kind=dma,async=1,data_async=1,latency_us=30,jitter_us=50,seed=1"))),
    mmu_name);
INSTANTIATE_TEST_SUITE_P(
    SimFixed, MmuSuite,
    testing::ValuesIn(mmu_params(make_case("fixed", "size=4K,kind=shareable,fixed=1"))), mmu_name);

}  // namespace
}  // namespace kvmm::test
