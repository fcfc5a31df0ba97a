// SPDX-License-Identifier: Apache-2.0
//
// What the host driver's tests share: devices to test, one-line requests, and facts from /proc.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "drivers/host/data.h"
#include "drivers/host/move_mmu.h"
#include "drivers/host/share_mmu.h"

namespace kvmm::test {

// One request with one entry, finished at once.
inline Errc run_one(MmuOps& mmu, MmuOp op, MapEntry& e, Bytes size) {
  CompletionQueue queue;
  MmuRequest r;
  r.queue = &queue;
  r.op = op;
  r.page_size = size;
  r.entries = std::span<MapEntry>(&e, 1);
  MmuRequest* const list[] = {&r};
  EXPECT_EQ(mmu.submit(list), 1U);
  EXPECT_EQ(queue.pop(), &r);
  EXPECT_EQ(r.result, e.result);
  return r.result;
}
inline Errc run_one(MmuOps& mmu, MmuOp op, VirtAddr va, FrameAddr frame, Bytes size) {
  MapEntry e{va, frame};
  return run_one(mmu, op, e, size);
}

template <class T>
T* at(VirtAddr a, uint64_t offset = 0) {
  return reinterpret_cast<T*>(a.value() + offset);
}
template <class T>
T* at(FrameAddr a, uint64_t offset = 0) {
  return reinterpret_cast<T*>(a.value() + offset);
}

// Whether the machine gives transparent huge pages to who asks for them.
bool machine_has_huge_pages();
// A number of /proc/self/smaps for the mapping that holds `address`, in KiB; -1: no such mapping.
long smaps_kib(uint64_t address, const std::string& key);
// Whether the flag (two letters) is among the VmFlags of that mapping.
bool smaps_flag(uint64_t address, const std::string& flag);

template <class Mmu>
std::unique_ptr<Mmu> make_mmu(const HostConfig& config = {}) {
  Result<std::unique_ptr<Mmu>> mmu = Mmu::create(config);
  EXPECT_TRUE(mmu.ok()) << mmu.error().message();
  return mmu.ok() ? std::move(*mmu) : nullptr;
}

}  // namespace kvmm::test
