// SPDX-License-Identifier: Apache-2.0
//
// One simulated MMU with one range and one area of frames, and how tests ask it for one page.
//
// Thread safety: one thread.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "drivers/sim/sim_mmu.h"
#include "tests/drivers/sim/sim_rig.h"

namespace kvmm {

class SimMmuTest : public testing::Test {
 protected:
  void build(const std::string& options, Bytes page = kib(4), uint32_t count = 4) {
    page_ = page;
    device_ = bind_sim(clock_, DeviceClass::kMemory, options);
    ASSERT_NE(device_, nullptr);
    mmu_ = find_sim_mmu(*device_);
    auto range = mmu_->reserve(page * count, page, page);
    ASSERT_TRUE(range.ok()) << range.error().message();
    range_ = *range;
    auto area = mmu_->create_frames(page, count, NodeId(0));
    ASSERT_TRUE(area.ok()) << area.error().message();
    area_ = *area;
  }
  VirtAddr va(uint32_t i) const { return range_.start + page_ * i; }
  FrameAddr frame(uint32_t i) const { return area_.frame(i); }
  std::byte* bytes(uint32_t i) const { return reinterpret_cast<std::byte*>(frame(i).value()); }

  void prepare(MmuRequest& r, MmuOp op, std::span<MapEntry> entries, Prot prot = Prot::kReadWrite) {
    r.queue = &queue_;
    r.op = op;
    r.prot = prot;
    r.page_size = page_;
    r.entries = entries;
  }
  Errc run(MmuOp op, uint32_t page, uint32_t frame_number, Prot prot = Prot::kReadWrite) {
    MapEntry e{va(page), frame(frame_number)};
    MmuRequest r;
    prepare(r, op, {&e, 1}, prot);
    MmuRequest* one = &r;
    EXPECT_EQ(mmu_->submit({&one, 1}), 1u);
    mmu_->poll();
    while (queue_.empty() && clock_.advance_to_alarm()) {
      mmu_->poll();
    }
    EXPECT_EQ(queue_.pop(), &r);
    mmu_->check_invariants();
    return r.result;
  }
  SimAccess touch(uint32_t page, bool write = false, uint32_t thread = 0) {
    std::byte b{};
    return write ? mmu_->write(va(page), {&b, 1}, thread) : mmu_->read(va(page), {&b, 1}, thread);
  }
  std::vector<FaultEvent> faults() {
    std::array<FaultEvent, 8> out;
    const size_t n = mmu_->read_faults(out);
    return {out.begin(), out.begin() + static_cast<ptrdiff_t>(n)};
  }

  SimClock clock_;
  CompletionQueue queue_;
  std::unique_ptr<Device> device_;
  SimMmu* mmu_ = nullptr;
  Bytes page_;
  AddressRange range_;
  FrameArea area_;
};

}  // namespace kvmm
