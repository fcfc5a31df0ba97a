// SPDX-License-Identifier: Apache-2.0
#include "tests/drivers/mmu_suite/mmu_suite.h"

#include <poll.h>
#include <xxhash.h>

#include <array>
#include <atomic>
#include <cstring>
#include <random>
#include <thread>

namespace kvmm::test {
namespace {

void* at(uint64_t address) {
  return reinterpret_cast<void*>(address);
}

}  // namespace

void MmuRig::read_page(VirtAddr va, std::vector<std::byte>& out) {
  memcpy(out.data(), at(va.value()), out.size());
}
void MmuRig::write_page(VirtAddr va, const std::vector<std::byte>& in) {
  memcpy(at(va.value()), in.data(), in.size());
}
void MmuRig::read_frame(FrameAddr frame, std::vector<std::byte>& out) {
  memcpy(out.data(), at(frame.value()), out.size());
}
void MmuRig::write_frame(FrameAddr frame, const std::vector<std::byte>& in) {
  memcpy(at(frame.value()), in.data(), in.size());
}

std::vector<MmuParam> mmu_params(const MmuCase& device) {
  std::vector<MmuParam> out;
  for (const Bytes b : device.page_sizes) {
    out.push_back({device, b});
  }
  return out;
}

std::string mmu_name(const testing::TestParamInfo<MmuParam>& info) {
  return info.param.device.name + "_" + std::to_string(info.param.page_size.value() / kKiB) + "KiB";
}

std::vector<std::byte> pattern(Bytes n, uint64_t seed) {
  std::vector<std::byte> out(n.value());
  std::mt19937_64 random(seed);
  for (size_t i = 0; i + 8 <= out.size(); i += 8) {
    const uint64_t word = random();
    memcpy(out.data() + i, &word, sizeof(word));
  }
  return out;
}

void MmuSuite::SetUp() {
  rig_ = GetParam().device.make();
  ASSERT_NE(rig_, nullptr) << "the device cannot be made on this machine";
  const Result<AddressRange> range = mmu().reserve(size() * kPages, size(), size());
  ASSERT_TRUE(range.ok()) << range.error().message();
  range_ = *range;
  if (!mmu().info().fixed_frames) {
    const Result<FrameArea> area = mmu().create_frames(size(), kPages, NodeId(0));
    ASSERT_TRUE(area.ok()) << area.error().message();
    area_ = *area;
  }
}

void MmuSuite::TearDown() {
  if (rig_ == nullptr || range_.length == Bytes(0)) {
    return;
  }
  for (uint32_t i = 0; i < kPages; ++i) {
    for (uint32_t turn = 0; turn < kPages; ++turn) {
      if (run(MmuOp::kUnmap, entry(i, turn)) != Errc::kExists) {
        break;  // unmapped, or was not mapped
      }
    }
  }
  if (area_.count != 0) {
    mmu().destroy_frames(area_);
  }
  mmu().release(range_);
}

FrameAddr MmuSuite::frame(uint32_t i, uint32_t turn) const {
  if (area_.count != 0) {
    return area_.frame((i + turn) % kPages);
  }
  return rig_->mmu().fixed_frame(va(i));
}

Request* MmuSuite::wait(CompletionQueue& queue) {
  for (int step = 0; step < 10000; ++step) {
    if (Request* r = queue.pop(); r != nullptr) {
      return r;
    }
    rig_->settle();
    mmu().poll();
    rig_->data().poll();
  }
  return nullptr;
}

Errc MmuSuite::run(MmuOp op, std::span<MapEntry> entries, Bytes page_size) {
  CompletionQueue queue;
  MmuRequest r;
  r.queue = &queue;
  r.op = op;
  r.page_size = page_size == Bytes(0) ? size() : page_size;
  r.entries = entries;
  MmuRequest* const list[] = {&r};
  while (mmu().submit(list) == 0) {
    rig_->settle();
    mmu().poll();
  }
  EXPECT_EQ(wait(queue), &r) << "a taken request is finished";
  EXPECT_EQ(queue.pop(), nullptr) << "a request is finished once";
  return r.result;
}

Errc MmuSuite::run(DataRequest& r) {
  CompletionQueue queue;
  r.queue = &queue;
  DataRequest* const list[] = {&r};
  while (rig_->data().submit(list) == 0) {
    rig_->settle();
    rig_->data().poll();
  }
  EXPECT_EQ(wait(queue), &r);
  return r.result;
}

void MmuSuite::fill(uint32_t i, uint64_t seed, uint32_t turn) {
  rig_->write_frame(frame(i, turn), pattern(size(), seed));
}
bool MmuSuite::page_has(uint32_t i, uint64_t seed) {
  std::vector<std::byte> got(size().value());
  rig_->read_page(va(i), got);
  return got == pattern(size(), seed);
}
bool MmuSuite::frame_has(uint32_t i, uint64_t seed, uint32_t turn) {
  std::vector<std::byte> got(size().value());
  rig_->read_frame(frame(i, turn), got);
  return got == pattern(size(), seed);
}

TEST_P(MmuSuite, ContentGoesInAndComesOutChanged) {
  for (uint32_t i = 0; i < kPages; ++i) {
    fill(i, 100 + i);
  }
  std::array<MapEntry, kPages> batch;
  for (uint32_t i = 0; i < kPages; ++i) {
    batch[i] = entry((i * 3 + 1) % kPages);  // not in the order of addresses
  }
  ASSERT_EQ(run(MmuOp::kMap, batch), Errc::kOk);
  for (uint32_t i = 0; i < kPages; ++i) {
    EXPECT_EQ(batch[i].result, Errc::kOk);
    EXPECT_TRUE(page_has(i, 100 + i)) << "page " << i;
  }
  for (uint32_t i = 0; i < kPages; ++i) {
    rig_->write_page(va(i), pattern(size(), 200 + i));
  }
  ASSERT_EQ(run(MmuOp::kUnmap, batch), Errc::kOk);
  for (uint32_t i = 0; i < kPages; ++i) {
    EXPECT_TRUE(frame_has(i, 200 + i)) << "frame " << i;
  }
  const MmuStats stats = mmu().stats();
  EXPECT_EQ(stats.maps, kPages);
  EXPECT_EQ(stats.unmaps, kPages);
  EXPECT_EQ(stats.frames_split, 0U);
}

TEST_P(MmuSuite, SecondMapIsRefusedAndHarmsNothing) {
  fill(0, 1);
  fill(1, 2);
  ASSERT_EQ(run(MmuOp::kMap, entry(0)), Errc::kOk);
  if (!mmu().info().fixed_frames) {
    EXPECT_EQ(run(MmuOp::kMap, MapEntry{va(0), frame(1)}), Errc::kExists) << "another frame";
  } else {
    EXPECT_EQ(run(MmuOp::kMap, entry(0)), Errc::kExists);
    EXPECT_EQ(run(MmuOp::kMap, MapEntry{va(2), frame(1)}), Errc::kInvalid) << "a foreign frame";
  }
  EXPECT_TRUE(page_has(0, 1));
  EXPECT_TRUE(frame_has(1, 2)) << "the refused frame is as it was";
  EXPECT_EQ(run(MmuOp::kUnmap, entry(0)), Errc::kOk);
  EXPECT_TRUE(frame_has(0, 1));
}

TEST_P(MmuSuite, UnmapOfNothingIsNotFound) {
  EXPECT_EQ(run(MmuOp::kUnmap, entry(0)), Errc::kNotFound);
  fill(0, 5);
  ASSERT_EQ(run(MmuOp::kMap, entry(0)), Errc::kOk);
  ASSERT_EQ(run(MmuOp::kUnmap, entry(0)), Errc::kOk);
  EXPECT_EQ(run(MmuOp::kUnmap, entry(0)), Errc::kNotFound) << "it was unmapped before";
  EXPECT_TRUE(frame_has(0, 5));
}

TEST_P(MmuSuite, BatchHalfSucceeds) {
  for (uint32_t i = 0; i < kPages; ++i) {
    fill(i, 300 + i);
  }
  ASSERT_EQ(run(MmuOp::kMap, entry(1)), Errc::kOk);
  std::array<MapEntry, kPages> batch;
  for (uint32_t i = 0; i < kPages; ++i) {
    batch[i] = entry(i);
  }
  batch[2].va = range_.end();
  EXPECT_EQ(run(MmuOp::kMap, batch), Errc::kExists) << "the first entry that failed";
  EXPECT_EQ(batch[0].result, Errc::kOk);
  EXPECT_EQ(batch[1].result, Errc::kExists);
  EXPECT_EQ(batch[2].result, Errc::kRange);
  EXPECT_EQ(batch[3].result, Errc::kOk);
  for (const uint32_t i : {0U, 1U, 3U}) {
    EXPECT_TRUE(page_has(i, 300 + i)) << "page " << i;
  }
  EXPECT_TRUE(frame_has(2, 302));
}

TEST_P(MmuSuite, AddressesStayWhileFramesChange) {
  constexpr uint64_t kSeed = 20240607;
  std::mt19937_64 random(kSeed);
  const uint32_t turns = mmu().info().fixed_frames ? 1 : kPages;
  std::vector<std::byte> content = pattern(size(), 0);
  rig_->write_frame(frame(0), content);
  uint32_t turn = 0;
  for (int round = 0; round < 24; ++round) {
    ASSERT_EQ(run(MmuOp::kMap, entry(0, turn)), Errc::kOk) << "round " << round;
    std::vector<std::byte> got(content.size());
    rig_->read_page(va(0), got);
    ASSERT_EQ(got, content) << "round " << round << " seed " << kSeed;
    content[random() % content.size()] = static_cast<std::byte>(random());
    rig_->write_page(va(0), content);
    // Back to where it came from, then by a copy to the frame it goes in from next.
    ASSERT_EQ(run(MmuOp::kUnmap, entry(0, turn)), Errc::kOk);
    const auto next = static_cast<uint32_t>(random() % turns);
    if (next != turn) {
      DataRequest copy;
      copy.op = DataOp::kCopy;
      copy.from = frame(0, turn);
      copy.addr = frame(0, next);
      copy.length = size();
      ASSERT_EQ(run(copy), Errc::kOk);
    }
    turn = next;
  }
}

TEST_P(MmuSuite, PoisonStandsUntilClearedOrMapped) {
  if (!mmu().info().poisons) {
    EXPECT_EQ(run(MmuOp::kPoison, entry(0)), Errc::kNotSupported);
    return;
  }
  fill(0, 7);
  EXPECT_EQ(run(MmuOp::kPoison, entry(0)), Errc::kOk);
  EXPECT_EQ(run(MmuOp::kPoison, entry(0)), Errc::kOk) << "twice is once";
  EXPECT_EQ(run(MmuOp::kUnmap, entry(0)), Errc::kNotFound) << "poison is no page";
  EXPECT_EQ(run(MmuOp::kClear, entry(0)), Errc::kOk);
  EXPECT_EQ(run(MmuOp::kMap, entry(0)), Errc::kOk);
  EXPECT_TRUE(page_has(0, 7));
  EXPECT_EQ(run(MmuOp::kPoison, entry(0)), Errc::kExists) << "a mapped page is not poisoned away";
  EXPECT_TRUE(page_has(0, 7));
  ASSERT_EQ(run(MmuOp::kUnmap, entry(0)), Errc::kOk);
  EXPECT_EQ(run(MmuOp::kPoison, entry(0)), Errc::kOk);
  EXPECT_EQ(run(MmuOp::kMap, entry(0)), Errc::kOk) << "content replaces poison";
  EXPECT_TRUE(page_has(0, 7));
  EXPECT_EQ(mmu().stats().frames_split, 0U) << "poison left nothing that splits a huge page";
}

TEST_P(MmuSuite, ClearLeavesMappedPagesAlone) {
  EXPECT_EQ(run(MmuOp::kClear, entry(0)), Errc::kOk) << "of nothing";
  fill(0, 8);
  ASSERT_EQ(run(MmuOp::kMap, entry(0)), Errc::kOk);
  EXPECT_EQ(run(MmuOp::kClear, entry(0)), Errc::kExists);
  EXPECT_TRUE(page_has(0, 8));
}

TEST_P(MmuSuite, ProtectAnswersAsTheInfoSays) {
  fill(0, 9);
  ASSERT_EQ(run(MmuOp::kMap, entry(0)), Errc::kOk);
  EXPECT_EQ(run(MmuOp::kProtect, entry(0)),
            mmu().info().protects ? Errc::kOk : Errc::kNotSupported);
  EXPECT_TRUE(page_has(0, 9));
}

TEST_P(MmuSuite, BadRequestsAreRefused) {
  MapEntry crooked{VirtAddr(va(0).value() + size().value() / 2), frame(0)};
  EXPECT_EQ(run(MmuOp::kMap, crooked), Errc::kInvalid);
  EXPECT_EQ(run(MmuOp::kMap, MapEntry{range_.end(), frame(0)}), Errc::kRange);
  EXPECT_EQ(run(MmuOp::kUnmap, MapEntry{range_.end(), frame(0)}), Errc::kRange);
  MapEntry odd = entry(0);
  EXPECT_EQ(run(MmuOp::kMap, std::span<MapEntry>(&odd, 1), Bytes(3000)), Errc::kInvalid);
  EXPECT_EQ(mmu().reserve(Bytes(0), size(), size()).code(), Errc::kInvalid);
  EXPECT_EQ(mmu().reserve(size(), Bytes(size().value() + 4096), size()).code(), Errc::kInvalid);
  EXPECT_EQ(mmu().reserve(size(), size(), Bytes(5000)).code(), Errc::kInvalid);
  if (mmu().info().fixed_frames) {
    EXPECT_EQ(mmu().create_frames(size(), 1, NodeId(0)).code(), Errc::kNotSupported);
    EXPECT_EQ(mmu().fixed_frame(range_.end()), FrameAddr(0));
  } else {
    EXPECT_EQ(mmu().create_frames(Bytes(5000), 1, NodeId(0)).code(), Errc::kInvalid);
    EXPECT_EQ(mmu().create_frames(size(), 0, NodeId(0)).code(), Errc::kInvalid);
    EXPECT_EQ(run(MmuOp::kFree, entry(0)), Errc::kNotSupported);
  }
}

TEST_P(MmuSuite, FreedFixedFramesAreZeros) {
  if (!mmu().info().fixed_frames) {
    EXPECT_EQ(mmu().fixed_frame(va(0)), FrameAddr(0)) << "frames are the pool's to choose";
    return;
  }
  fill(0, 11);
  fill(1, 12);
  ASSERT_EQ(run(MmuOp::kMap, entry(0)), Errc::kOk);
  EXPECT_EQ(run(MmuOp::kFree, entry(0)), Errc::kBusy) << "it is mapped";
  EXPECT_TRUE(page_has(0, 11));
  ASSERT_EQ(run(MmuOp::kUnmap, entry(0)), Errc::kOk);
  EXPECT_EQ(run(MmuOp::kFree, entry(0)), Errc::kOk);
  EXPECT_TRUE(frame_has(1, 12)) << "its neighbour is untouched";
  std::vector<std::byte> got(size().value(), std::byte{1});
  rig_->read_frame(frame(0), got);
  EXPECT_EQ(got, std::vector<std::byte>(size().value()));
}

TEST_P(MmuSuite, UnmapWaitsForItsFence) {
  fill(0, 13);
  ASSERT_EQ(run(MmuOp::kMap, entry(0)), Errc::kOk);
  bool done = false;
  CompletionQueue queue;
  MapEntry e = entry(0);
  MmuRequest r;
  r.queue = &queue;
  r.op = MmuOp::kUnmap;
  r.page_size = size();
  r.entries = std::span<MapEntry>(&e, 1);
  r.fence = {Fence::Kind::kCallback, &done, [](void* h) { return *static_cast<bool*>(h) ? 1 : 0; }};
  MmuRequest* const list[] = {&r};
  ASSERT_EQ(mmu().submit(list), 1U);
  for (int i = 0; i < 3; ++i) {
    rig_->settle();
    mmu().poll();
  }
  EXPECT_EQ(queue.pop(), nullptr) << "the engine still works on it";
  EXPECT_TRUE(page_has(0, 13));
  done = true;
  EXPECT_EQ(wait(queue), &r);
  EXPECT_EQ(r.result, Errc::kOk);
  EXPECT_TRUE(frame_has(0, 13));
}

TEST_P(MmuSuite, FaultsAreReportedAndAnswered) {
  if (!mmu().info().faults) {
    EXPECT_EQ(mmu().fault_fd(), -1);
    return;
  }
  fill(2, 14);
  std::array<FaultEvent, 8> faults;
  EXPECT_EQ(mmu().read_faults(faults), 0U) << "none waits yet";
  for (const bool write : {false, true}) {
    std::atomic<uint32_t> thread{0};
    std::thread engine([&] {
      thread = static_cast<uint32_t>(gettid());
      auto* p = reinterpret_cast<volatile uint8_t*>(va(2).value() + size().value() - 1);
      if (write) {
        *p = 77;
      } else {
        EXPECT_EQ(*p, static_cast<uint8_t>(pattern(size(), 14).back()));
      }
    });
    pollfd p{mmu().fault_fd(), POLLIN, 0};
    EXPECT_EQ(::poll(&p, 1, 20000), 1);
    const size_t n = mmu().read_faults(faults);
    EXPECT_EQ(n, 1U);
    EXPECT_EQ(faults[0].va, VirtAddr(va(3).value() - 4096));
    EXPECT_EQ(faults[0].write, write);
    EXPECT_EQ(faults[0].thread, thread.load());
    EXPECT_EQ(run(MmuOp::kMap, entry(2)), Errc::kOk);
    engine.join();
    EXPECT_EQ(run(MmuOp::kUnmap, entry(2)), Errc::kOk);
  }
  std::vector<std::byte> got(size().value());
  rig_->read_frame(frame(2), got);
  EXPECT_EQ(got.back(), std::byte{77});
}

TEST_P(MmuSuite, DataWorkDoesWhatItSays) {
  fill(0, 21);
  const std::vector<std::byte> expected = pattern(size(), 21);
  const size_t pieces = round_up(size().value(), kPieceSize.value()) / kPieceSize.value();
  std::vector<uint64_t> digests(pieces);
  DataRequest r;
  r.addr = frame(0);
  r.length = size();
  r.digests = digests;
  ASSERT_EQ(run(r), Errc::kOk);
  for (size_t i = 0; i < pieces; ++i) {
    const size_t begin = i * kPieceSize.value();
    const size_t n = std::min<size_t>(kPieceSize.value(), expected.size() - begin);
    EXPECT_EQ(digests[i], XXH3_64bits(expected.data() + begin, n)) << "piece " << i;
  }
  fill(1, 22);
  r.op = DataOp::kCopy;
  r.from = frame(1);
  ASSERT_EQ(run(r), Errc::kOk);
  EXPECT_TRUE(frame_has(0, 22));
  for (const DataOp op : {DataOp::kZero, DataOp::kScrub}) {
    fill(0, 23);
    r.op = op;
    ASSERT_EQ(run(r), Errc::kOk);
    std::vector<std::byte> got(size().value(), std::byte{1});
    rig_->read_frame(frame(0), got);
    EXPECT_EQ(got, std::vector<std::byte>(size().value()));
  }
  EXPECT_TRUE(frame_has(1, 22)) << "nothing beside the frame was touched";
  r.op = DataOp::kChecksum;
  r.digests = {};
  EXPECT_EQ(run(r), Errc::kInvalid) << "no room for the digests";
}

}  // namespace kvmm::test
