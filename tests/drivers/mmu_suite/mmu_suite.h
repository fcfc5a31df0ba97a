// SPDX-License-Identifier: Apache-2.0
//
// The contract of MmuOps and DataOps as tests: one suite, run over every driver that has an MMU.
//
//   tests/drivers/host/host_suite_test.cc:
//     INSTANTIATE_TEST_SUITE_P(HostMove, MmuSuite, testing::ValuesIn(mmu_params({...})), mmu_name);
//
// A driver's test lists mmu_suite.cc among its sources and gives a factory of rigs. A rig is one
// fresh device, and how test code reaches its bytes: by plain memory access unless it overrides
// the four `read_`/`write_` functions.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "drivers/ops.h"

namespace kvmm::test {

class MmuRig {
 public:
  virtual ~MmuRig() = default;
  virtual MmuOps& mmu() = 0;
  virtual DataOps& data() = 0;
  // Lets an asynchronous device get on with its work: one step of its stream or clock.
  virtual void settle() {}
  // The engine's view of a mapped page, and everybody's view of an unmapped frame.
  virtual void read_page(VirtAddr va, std::vector<std::byte>& out);
  virtual void write_page(VirtAddr va, const std::vector<std::byte>& in);
  virtual void read_frame(FrameAddr frame, std::vector<std::byte>& out);
  virtual void write_frame(FrameAddr frame, const std::vector<std::byte>& in);
};

struct MmuCase {
  std::string name;
  std::vector<Bytes> page_sizes;
  std::function<std::unique_ptr<MmuRig>()> make;  // null: the machine lacks it, a failure
};
struct MmuParam {
  MmuCase device;
  Bytes page_size;
};
std::vector<MmuParam> mmu_params(const MmuCase& device);
std::string mmu_name(const testing::TestParamInfo<MmuParam>& info);

// `n` bytes that differ from page to page and from seed to seed.
std::vector<std::byte> pattern(Bytes n, uint64_t seed);

// `n` pages of one range with a frame each, whatever kind of frame the device has. Gives everything
// back when it ends; pages still mapped then are unmapped.
class MmuSuite : public testing::TestWithParam<MmuParam> {
 protected:
  static constexpr uint32_t kPages = 4;

  void SetUp() override;
  void TearDown() override;

  MmuOps& mmu() { return rig_->mmu(); }
  Bytes size() const { return GetParam().page_size; }
  VirtAddr va(uint32_t i) const { return range_.start + size() * i; }
  // The frame for page i; movable frames may be taken in any order, so `turn` rotates them.
  FrameAddr frame(uint32_t i, uint32_t turn = 0) const;
  MapEntry entry(uint32_t i, uint32_t turn = 0) const { return {va(i), frame(i, turn)}; }

  // Submits, steps until it is finished, returns the result. Entries get theirs.
  Errc run(MmuOp op, std::span<MapEntry> entries, Bytes page_size = Bytes(0));
  Errc run(MmuOp op, MapEntry e) { return run(op, std::span<MapEntry>(&e, 1)); }
  Errc run(DataRequest& r);
  // Steps the device until `queue` has something or it is clear that nothing comes.
  Request* wait(CompletionQueue& queue);
  void fill(uint32_t i, uint64_t seed, uint32_t turn = 0);
  bool page_has(uint32_t i, uint64_t seed);
  bool frame_has(uint32_t i, uint64_t seed, uint32_t turn = 0);

  std::unique_ptr<MmuRig> rig_;
  AddressRange range_;
  FrameArea area_;  // movable frames
};

}  // namespace kvmm::test
