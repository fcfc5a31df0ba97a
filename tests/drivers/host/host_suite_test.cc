// SPDX-License-Identifier: Apache-2.0
//
// The shared MMU suite over the host's three MMUs, on the real kernel.
#include "tests/drivers/host/host_rig.h"
#include "tests/drivers/mmu_suite/mmu_suite.h"

namespace kvmm::test {
namespace {

template <class Mmu>
class HostRig final : public MmuRig {
 public:
  explicit HostRig(std::unique_ptr<Mmu> mmu, HostMoveMmu* rebuilder)
      : mmu_(std::move(mmu)), data_(rebuilder) {}
  MmuOps& mmu() override { return *mmu_; }
  DataOps& data() override { return data_; }

 private:
  std::unique_ptr<Mmu> mmu_;
  HostData data_;
};

template <class Mmu>
MmuCase host_case(const char* name) {
  return {name, {kib(4), kib(64), mib(2)}, []() -> std::unique_ptr<MmuRig> {
            std::unique_ptr<Mmu> mmu = make_mmu<Mmu>();
            if (mmu == nullptr) {
              return nullptr;
            }
            HostMoveMmu* rebuilder = nullptr;
            if constexpr (std::is_same_v<Mmu, HostMoveMmu>) {
              rebuilder = mmu.get();
            }
            return std::make_unique<HostRig<Mmu>>(std::move(mmu), rebuilder);
          }};
}

INSTANTIATE_TEST_SUITE_P(HostMove, MmuSuite,
                         testing::ValuesIn(mmu_params(host_case<HostMoveMmu>("move"))), mmu_name);
INSTANTIATE_TEST_SUITE_P(HostShare, MmuSuite,
                         testing::ValuesIn(mmu_params(host_case<HostShareMmu>("share"))), mmu_name);
INSTANTIATE_TEST_SUITE_P(HostPin, MmuSuite,
                         testing::ValuesIn(mmu_params(host_case<HostPinMmu>("pin"))), mmu_name);

}  // namespace
}  // namespace kvmm::test
