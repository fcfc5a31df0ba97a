// SPDX-License-Identifier: Apache-2.0
//
// CopyOps and DataOps of the cuda driver: directions, completion, refusals, a lost context.
#include "drivers/cuda/cuda_copy.h"
#include "drivers/cuda/cuda_data.h"
#include "tests/drivers/cuda/rig.h"
#include "vmm/identity.h"

namespace kvmm::cuda {
namespace {

struct CudaCopyTest : testing::Test {
  CudaCopyTest() {
    range = *rig.mmu().reserve(mib(8), kPage, kPage);
    frames = *rig.mmu().create_frames(kPage, 4, NodeId(0));
    host = *rig.device->host_frames().create(kPage, 4);
  }
  ~CudaCopyTest() override {
    if (!rig.lost && rig.device != nullptr) {
      rig.device->host_frames().destroy(host);
      rig.mmu().release(range);
      rig.mmu().destroy_frames(frames);
    }
  }
  CopyRequest request(CompletionQueue& cq, FrameAddr to, FrameAddr from) {
    CopyRequest r;
    r.queue = &cq;
    r.to = to;
    r.from = from;
    r.length = kPage;
    return r;
  }

  Rig rig;
  AddressRange range;
  FrameArea frames;
  FrameArea host;
};

TEST_F(CudaCopyTest, GoesEveryWay) {
  fill_pattern(bytes_at(host.frame(0).value()), kPage.value(), 42);
  EXPECT_EQ(rig.copy_now(frames.frame(0), host.frame(0)), Errc::kOk);
  EXPECT_EQ(rig.copy_now(frames.frame(1), frames.frame(0)), Errc::kOk);
  EXPECT_EQ(rig.copy_now(host.frame(1), frames.frame(1)), Errc::kOk);
  EXPECT_EQ(
      std::memcmp(bytes_at(host.frame(0).value()), bytes_at(host.frame(1).value()), kPage.value()),
      0);
  EXPECT_EQ(rig.copy_now(host.frame(2) + Bytes(100), frames.frame(1) + Bytes(7), Bytes(13)),
            Errc::kOk)
      << "pieces need no alignment";
  EXPECT_EQ(
      std::memcmp(bytes_at(host.frame(2).value()) + 100, bytes_at(host.frame(0).value()) + 7, 13),
      0);
}

TEST_F(CudaCopyTest, TakesTheBytesWhenTheStreamRunsAndSaysSoOnlyThen) {
  CompletionQueue cq;
  CopyRequest r = request(cq, frames.frame(0), host.frame(0));
  std::array<CopyRequest*, 1> one{&r};
  bytes_at(host.frame(0).value())[0] = std::byte{1};
  ASSERT_EQ(rig.copy().submit(one), 1U);
  rig.poll();
  EXPECT_EQ(cq.pop(), nullptr);
  bytes_at(host.frame(0).value())[0] = std::byte{2};  // a missing fence of the caller
  ASSERT_EQ(rig.controls.step(1), 1U);
  rig.poll();
  EXPECT_EQ(cq.pop(), nullptr) << "copied, but the event has not passed";
  ASSERT_EQ(rig.controls.step(1), 1U);
  rig.poll();
  EXPECT_EQ(cq.pop(), &r);
  EXPECT_EQ(bytes_at(frames.frame(0).value())[0], std::byte{2});
}

TEST_F(CudaCopyTest, ABatchOfOneDirectionSharesAnEvent) {
  CompletionQueue cq;
  std::vector<CopyRequest> r;
  for (uint32_t i = 0; i < 4; ++i) {
    r.push_back(i < 3 ? request(cq, frames.frame(i), host.frame(i))
                      : request(cq, host.frame(3), frames.frame(3)));
  }
  std::array<CopyRequest*, 4> all{&r[0], &r[1], &r[2], &r[3]};
  const uint64_t before = rig.controls.calls("cuEventRecord");
  ASSERT_EQ(rig.copy().submit(all), 4U);
  EXPECT_EQ(rig.controls.calls("cuEventRecord") - before, 2U);
  std::vector<Request*> in;
  for (int i = 0; i < 4; ++i) {
    Request* done = rig.settle(cq);
    ASSERT_NE(done, nullptr);
    if (done != &r[3]) {
      in.push_back(done);
    }
  }
  EXPECT_EQ(in, (std::vector<Request*>{&r[0], &r[1], &r[2]}));
}

TEST_F(CudaCopyTest, TakesNoMoreThanItCanWatch) {
  CompletionQueue cq;
  std::vector<CopyRequest> r(CudaCopy::kDepth + 2);
  for (CopyRequest& one : r) {
    one = request(cq, frames.frame(0), host.frame(0));
    one.length = Bytes(8);
  }
  for (size_t i = 0; i < r.size(); ++i) {
    std::array<CopyRequest*, 1> one{&r[i]};
    EXPECT_EQ(rig.copy().submit(one), i < CudaCopy::kDepth ? 1U : 0U);
  }
  CopyRequest other = request(cq, host.frame(1), frames.frame(1));
  std::array<CopyRequest*, 1> one{&other};
  EXPECT_EQ(rig.copy().submit(one), 1U) << "another direction has its own events";
  size_t done = 0;
  while (rig.settle(cq) != nullptr) {
    ++done;
  }
  EXPECT_EQ(done, CudaCopy::kDepth + 1);
  one = {&r.back()};
  EXPECT_EQ(rig.copy().submit(one), 1U);
  EXPECT_EQ(rig.settle(cq), &r.back());
}

TEST_F(CudaCopyTest, RefusesAddressesThatAreNotMappedOrNotItsOwn) {
  const FrameAddr unmapped(range.start.value());
  EXPECT_EQ(rig.copy_now(unmapped, host.frame(0)), Errc::kInvalid) << "copy before map";
  EXPECT_EQ(rig.copy_now(host.frame(0), unmapped), Errc::kInvalid);
  EXPECT_EQ(rig.copy_now(frames.frame(0), unmapped), Errc::kInvalid);
  ASSERT_EQ(rig.map(range.start, frames.frame(0)), Errc::kOk);
  EXPECT_EQ(rig.copy_now(unmapped, host.frame(0)), Errc::kOk) << "mapped now";
  EXPECT_EQ(rig.copy_now(unmapped + Bytes(4096), host.frame(0)), Errc::kInvalid) << "half of it";
  ASSERT_EQ(rig.unmap(range.start, frames.frame(0)), Errc::kOk);
  std::vector<std::byte> pageable(4096);
  const FrameAddr p(reinterpret_cast<uint64_t>(pageable.data()));
  EXPECT_EQ(rig.copy_now(frames.frame(0), p, kib(4)), Errc::kInvalid);
  EXPECT_EQ(rig.copy_now(p, frames.frame(0), kib(4)), Errc::kInvalid);
  EXPECT_EQ(rig.copy_now(host.frame(0), host.frame(1)), Errc::kInvalid);
  EXPECT_EQ(rig.copy_now(frames.frame(0), host.frame(0), Bytes(0)), Errc::kInvalid);
  EXPECT_EQ(rig.copy_now(frames.frame(3), host.frame(0), mib(4)), Errc::kInvalid);
  EXPECT_EQ(rig.copy_now(frames.frame(0), host.frame(0), Bytes(~uint64_t{0})), Errc::kInvalid);
}

TEST_F(CudaCopyTest, AnEventThatCannotBeRecordedOrAskedIsWaitedFor) {
  for (const char* call : {"cuEventRecord", "cuEventQuery"}) {
    bytes_at(host.frame(0).value())[5] = std::byte{0x31};
    bytes_at(frames.frame(0).value())[5] = std::byte{0};
    CompletionQueue cq;
    CopyRequest r = request(cq, frames.frame(0), host.frame(0));
    std::array<CopyRequest*, 1> one{&r};
    rig.controls.fail(call, 1, static_cast<int>(CuResult::kOutOfMemory));
    ASSERT_EQ(rig.copy().submit(one), 1U);
    rig.copy().poll();
    ASSERT_EQ(cq.pop(), &r) << call;
    EXPECT_EQ(r.result, Errc::kOk);
    EXPECT_EQ(bytes_at(frames.frame(0).value())[5], std::byte{0x31}) << "really over";
  }
}

TEST_F(CudaCopyTest, ALostContextEndsEverythingAsDeviceGone) {
  rig.lost = true;
  ASSERT_EQ(rig.map(range.start, frames.frame(0)), Errc::kOk);
  CompletionQueue cq;
  CopyRequest r = request(cq, host.frame(0), FrameAddr(range.start.value()));
  std::array<CopyRequest*, 1> one{&r};
  ASSERT_EQ(rig.copy().submit(one), 1U);
  // What fences are there to prevent: the page goes while a copy of it is queued.
  ASSERT_EQ(rig.unmap(range.start, frames.frame(0)), Errc::kOk);
  EXPECT_EQ(rig.settle(cq), &r);
  EXPECT_EQ(r.result, Errc::kDeviceGone);
  EXPECT_EQ(rig.copy_now(frames.frame(0), host.frame(0)), Errc::kDeviceGone);
  EXPECT_EQ(rig.map(range.start, frames.frame(0)), Errc::kDeviceGone);
  EXPECT_EQ(rig.mmu().create_frames(kPage, 1, NodeId(0)).code(), Errc::kDeviceGone);
  EXPECT_EQ(rig.device->host_frames().create(kPage, 1).code(), Errc::kDeviceGone);
  DataRequest z;
  z.op = DataOp::kZero;
  z.addr = frames.frame(0);
  z.length = kPage;
  EXPECT_EQ(rig.run(rig.data(), z), Errc::kDeviceGone);
}

TEST_F(CudaCopyTest, TheEndOfTheDeviceFinishesCopiesInFlight) {
  CompletionQueue cq;
  CopyRequest r = request(cq, host.frame(0), frames.frame(0));
  std::array<CopyRequest*, 1> one{&r};
  std::memset(bytes_at(frames.frame(0).value()), 0x66, kPage.value());
  ASSERT_EQ(rig.copy().submit(one), 1U);
  std::array<uint64_t, 32> digests{};
  DataRequest d;
  d.queue = &cq;
  d.addr = frames.frame(1);
  d.length = kPage;
  d.digests = digests;
  std::array<DataRequest*, 1> two{&d};
  ASSERT_EQ(rig.data().submit(two), 1U);
  rig.device.reset();
  EXPECT_EQ(cq.pop(), &d);
  EXPECT_EQ(d.result, Errc::kCancelled);
  EXPECT_EQ(cq.pop(), &r);
  EXPECT_EQ(r.result, Errc::kOk);
}

// ------------------------------------------------------------------------------------------ data

TEST_F(CudaCopyTest, DigestsAreThoseOfThePieces) {
  for (const uint64_t length :
       {uint64_t{1}, uint64_t{65536}, uint64_t{65537}, kPage.value(), 3 * kPage.value() + 1000}) {
    std::byte* bytes = bytes_at(frames.frame(0).value());
    fill_pattern(bytes, 4 * kPage.value(), length);
    std::vector<uint64_t> digests(round_up(length, kPieceSize.value()) / kPieceSize.value());
    DataRequest d;
    d.addr = frames.frame(0);
    d.length = Bytes(length);
    d.digests = digests;
    ASSERT_EQ(rig.run(rig.data(), d), Errc::kOk);
    for (size_t i = 0; i < digests.size(); ++i) {
      const uint64_t at = i * kPieceSize.value();
      const uint64_t n = std::min(kPieceSize.value(), length - at);
      ASSERT_EQ(digests[i], piece_digest({bytes + at, n})) << "piece " << i << " of " << length;
    }
  }
}

TEST_F(CudaCopyTest, FillsAndCopiesInOrder) {
  std::memset(bytes_at(frames.frame(0).value()), 0x11, kPage.value());
  DataRequest d;
  d.op = DataOp::kZero;
  d.addr = frames.frame(0) + kib(64);
  d.length = kib(64);
  ASSERT_EQ(rig.run(rig.data(), d), Errc::kOk);
  const std::byte* b = bytes_at(frames.frame(0).value());
  EXPECT_EQ(b[65535], std::byte{0x11});
  EXPECT_EQ(b[65536], std::byte{0});
  EXPECT_EQ(b[131071], std::byte{0});
  EXPECT_EQ(b[131072], std::byte{0x11});
  d.op = DataOp::kCopy;
  d.from = frames.frame(0);
  d.addr = frames.frame(1);
  d.length = kPage;
  ASSERT_EQ(rig.run(rig.data(), d), Errc::kOk);
  EXPECT_EQ(std::memcmp(b, bytes_at(frames.frame(1).value()), kPage.value()), 0);
  d.op = DataOp::kScrub;
  d.addr = frames.frame(0);
  ASSERT_EQ(rig.run(rig.data(), d), Errc::kOk);
  EXPECT_EQ(std::memcmp(b, b + 1, kPage.value() - 1), 0);
  EXPECT_EQ(b[0], std::byte{0});
}

TEST_F(CudaCopyTest, DataRefusesWhatIsNotItsOwn) {
  std::array<uint64_t, 31> few{};
  DataRequest d;
  d.addr = frames.frame(0);
  d.length = kPage;
  d.digests = few;
  EXPECT_EQ(rig.run(rig.data(), d), Errc::kInvalid) << "32 pieces";
  d.op = DataOp::kRebuild;
  EXPECT_EQ(rig.run(rig.data(), d), Errc::kNotSupported);
  d.op = DataOp::kZero;
  d.addr = host.frame(0);
  EXPECT_EQ(rig.run(rig.data(), d), Errc::kInvalid);
  d.addr = FrameAddr(range.start.value());
  EXPECT_EQ(rig.run(rig.data(), d), Errc::kInvalid) << "not mapped";
  d.addr = frames.frame(0);
  d.length = Bytes(0);
  EXPECT_EQ(rig.run(rig.data(), d), Errc::kInvalid);
}

TEST_F(CudaCopyTest, DataTakesAsManyAsItHasBuffersAndOnePollHashesOneChunk) {
  CompletionQueue cq;
  std::array<std::array<uint64_t, 32>, CudaData::kSlots + 1> digests{};
  std::array<DataRequest, CudaData::kSlots + 1> r;
  std::array<DataRequest*, CudaData::kSlots + 1> all{};
  for (size_t i = 0; i < r.size(); ++i) {
    r[i].queue = &cq;
    r[i].addr = frames.frame(0);
    r[i].length = kPage;
    r[i].digests = digests[i];
    all[i] = &r[i];
  }
  EXPECT_EQ(rig.data().submit(all), CudaData::kSlots);
  EXPECT_EQ(rig.controls.step(1000), 2 * CudaData::kSlots);
  for (size_t i = 0; i < CudaData::kSlots; ++i) {
    rig.data().poll();
    EXPECT_EQ(cq.pop(), &r[i]);
    EXPECT_EQ(cq.pop(), nullptr);
  }
  EXPECT_EQ(digests[0], digests[3]);
  EXPECT_NE(digests[0][0], 0U);
}

}  // namespace
}  // namespace kvmm::cuda
