// SPDX-License-Identifier: Apache-2.0
//
// The suite that every MMU passes, over the cuda driver and the libcuda double.
#include "tests/drivers/cuda/rig.h"
#include "tests/drivers/mmu_suite/mmu_suite.h"

namespace kvmm::test {
namespace {

class CudaSuiteRig final : public MmuRig {
 public:
  explicit CudaSuiteRig(const KvmmDoubleConfig& config) : rig_(&config) {}
  MmuOps& mmu() override { return rig_.mmu(); }
  DataOps& data() override { return rig_.data(); }
  void settle() override { rig_.controls.step(1); }

 private:
  cuda::Rig rig_;
};

MmuCase cuda_case(const char* name, uint64_t granule, int read_only, std::vector<Bytes> sizes) {
  const KvmmDoubleConfig config{granule, 128 << 20, 1, 1, read_only};
  return {name, std::move(sizes), [config] { return std::make_unique<CudaSuiteRig>(config); }};
}

INSTANTIATE_TEST_SUITE_P(Cuda, MmuSuite,
                         testing::ValuesIn(mmu_params(cuda_case("cuda", 2 << 20, 1, {mib(2)}))),
                         mmu_name);
// What a driver with a finer granule, and without read-only mappings, would give.
INSTANTIATE_TEST_SUITE_P(
    CudaFine, MmuSuite,
    testing::ValuesIn(mmu_params(cuda_case("fine", 64 << 10, 0, {kib(64), mib(2)}))), mmu_name);

}  // namespace
}  // namespace kvmm::test
