// SPDX-License-Identifier: Apache-2.0
//
// What every block driver must do, run against every driver that this tree has.
#include <algorithm>
#include <cstdio>
#include <limits>
#include <map>
#include <memory>
#include <random>

#include "tests/drivers/block/block_rig.h"

namespace kvmm {
namespace {

constexpr Bytes kCapacity = mib(8);

class BlockSuite : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    build_rig(rig_, GetParam(), kCapacity);
    if (rig_.device == nullptr && !rig_.skip.empty()) {
      GTEST_SKIP() << "block_suite_" << GetParam() << ": " << rig_.skip;
    }
    ASSERT_NE(rig_.device, nullptr);
    info_ = rig_.block().info();
    unit_ = info_.alignment.value();
  }

  // Of a device that keeps nothing, reads give zeros.
  void expect_content(const Buffer& read, const Buffer& written) const {
    if (info_.volatile_content) {
      EXPECT_TRUE(read.all_zero());
    } else {
      EXPECT_TRUE(read == written);
    }
  }

  BlockRig rig_;
  BlockInfo info_;
  uint64_t unit_ = 0;
};

TEST_P(BlockSuite, SaysWhatItIs) {
  EXPECT_STRNE(info_.name, "");
  EXPECT_EQ(info_.capacity, kCapacity);
  EXPECT_TRUE(std::has_single_bit(unit_));
  EXPECT_GE(info_.depth, 1u);
  EXPECT_GE(info_.length_max, mib(2));  // a page must fit into one request
  EXPECT_TRUE(info_.discards);
}

TEST_P(BlockSuite, NeverWrittenReadsAsZeros) {
  Buffer b(64 * kKiB, 1);
  ASSERT_EQ(rig_.run(BlockOp::kRead, &b, kMiB, b.size()), Errc::kOk);
  EXPECT_TRUE(b.all_zero());
}

TEST_P(BlockSuite, ReadsWhatWasWritten) {
  for (const uint64_t length : {unit_, uint64_t{64 * kKiB}, uint64_t{2 * kMiB}}) {
    Buffer out(length, length);
    Buffer in(length, 77);
    ASSERT_EQ(rig_.run(BlockOp::kWrite, &out, 3 * unit_, length), Errc::kOk);
    ASSERT_EQ(rig_.run(BlockOp::kRead, &in, 3 * unit_, length), Errc::kOk);
    expect_content(in, out);
  }
}

TEST_P(BlockSuite, RefusesMisalignedRequests) {
  Buffer b(4 * 4096, 1);
  for (const BlockOp op : {BlockOp::kRead, BlockOp::kWrite, BlockOp::kDiscard}) {
    EXPECT_EQ(rig_.run(op, &b, unit_ / 2, unit_), Errc::kInvalid) << "offset";
    EXPECT_EQ(rig_.run(op, &b, 0, unit_ / 2), Errc::kInvalid) << "length";
    EXPECT_EQ(rig_.run(op, &b, 0, unit_ + 1), Errc::kInvalid) << "length";
    if (op != BlockOp::kDiscard) {
      BlockRequest r = rig_.request(op, &b, 0, unit_);
      r.data += 1;
      EXPECT_EQ(rig_.run(r), Errc::kInvalid) << "address";
      EXPECT_EQ(rig_.run(op, nullptr, 0, unit_), Errc::kInvalid) << "no buffer";
    }
  }
}

TEST_P(BlockSuite, RefusesWhatLeavesItsCapacity) {
  Buffer b(4 * 4096, 1);
  const uint64_t end = kCapacity.value();
  const uint64_t top = std::numeric_limits<uint64_t>::max() - (unit_ - 1);  // aligned
  for (const BlockOp op : {BlockOp::kRead, BlockOp::kWrite, BlockOp::kDiscard}) {
    EXPECT_EQ(rig_.run(op, &b, end - unit_, unit_), Errc::kOk) << "the last unit is inside";
    EXPECT_EQ(rig_.run(op, &b, end, unit_), Errc::kInvalid);
    EXPECT_EQ(rig_.run(op, &b, end - unit_, 2 * unit_), Errc::kInvalid);
    EXPECT_EQ(rig_.run(op, &b, top, 2 * unit_), Errc::kInvalid) << "the sum overflows";
    EXPECT_EQ(rig_.run(op, &b, uint64_t{1} << 63, unit_), Errc::kInvalid) << "no off_t";
    EXPECT_EQ(rig_.run(op, &b, 0, top), Errc::kInvalid) << "longer than length_max";
  }
}

TEST_P(BlockSuite, RefusesLengthZero) {
  Buffer b(4096, 1);
  for (const BlockOp op : {BlockOp::kRead, BlockOp::kWrite, BlockOp::kDiscard}) {
    EXPECT_EQ(rig_.run(op, &b, 0, 0), Errc::kInvalid);
  }
}

TEST_P(BlockSuite, FlushNeedsNoRange) {
  Buffer b(64 * kKiB, 9);
  EXPECT_EQ(rig_.run(BlockOp::kFlush, nullptr, 0, 0), Errc::kOk);
  ASSERT_EQ(rig_.run(BlockOp::kWrite, &b, 0, b.size()), Errc::kOk);
  EXPECT_EQ(rig_.run(BlockOp::kFlush, nullptr, 0, 0), Errc::kOk);
  Buffer in(b.size(), 1);
  ASSERT_EQ(rig_.run(BlockOp::kRead, &in, 0, in.size()), Errc::kOk);
  expect_content(in, b);
}

TEST_P(BlockSuite, DiscardedReadsAsZerosAndItsNeighboursStay) {
  Buffer out(3 * 64 * kKiB, 4);
  const uint64_t third = out.size() / 3;
  ASSERT_EQ(rig_.run(BlockOp::kWrite, &out, 0, out.size()), Errc::kOk);
  ASSERT_EQ(rig_.run(BlockOp::kDiscard, nullptr, third, third), Errc::kOk);
  Buffer in(out.size(), 5);
  ASSERT_EQ(rig_.run(BlockOp::kRead, &in, 0, in.size()), Errc::kOk);
  std::fill_n(out.data() + third, third, std::byte{0});
  expect_content(in, out);
}

TEST_P(BlockSuite, TakesFewerWhenFullAndFinishesEachOnce) {
  const size_t count = info_.depth * 2 + 7;
  std::vector<std::unique_ptr<Buffer>> buffers;
  std::vector<BlockRequest> requests(count);
  std::vector<BlockRequest*> waiting;
  for (size_t i = 0; i < count; ++i) {
    buffers.push_back(std::make_unique<Buffer>(unit_, i));
    requests[i] = rig_.request(BlockOp::kWrite, buffers[i].get(), i * unit_, unit_);
    waiting.push_back(&requests[i]);
  }
  std::map<BlockRequest*, int> finished;
  size_t first = 0;
  size_t largest = 0;
  while (finished.size() < count) {
    if (first < count) {
      const size_t n = rig_.block().submit(std::span(waiting).subspan(first));
      ASSERT_LE(n, count - first);
      largest = std::max(largest, n);
      first += n;
    }
    BlockRequest* r = rig_.wait();
    ++finished[r];
    EXPECT_EQ(r->result, Errc::kOk);
    EXPECT_EQ(finished[r], 1);
  }
  EXPECT_EQ(first, count);
  EXPECT_GE(largest, 1u);
  if (info_.depth > 1) {
    EXPECT_LE(largest, info_.depth) << "more than it has slots for";
  }
  EXPECT_TRUE(rig_.queue.empty());
}

// Random reads, writes and discards of units, many in flight, never two on one unit at a time;
// the content is compared with a copy in memory.
TEST_P(BlockSuite, ManyInFlightInRandomOrder) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  Random random(seed);
  constexpr size_t kUnits = 64;
  constexpr int kOperations = 2000;
  const size_t lanes = info_.depth + 4;

  std::vector<uint64_t> version(kUnits, 0);  // 0: zeros
  std::vector<bool> busy(kUnits, false);
  struct Lane {
    BlockRequest request;
    std::unique_ptr<Buffer> buffer;
    size_t unit = 0;
    uint64_t writes = 0;
  };
  std::vector<Lane> all(lanes);
  std::vector<Lane*> idle;
  for (Lane& l : all) {
    l.buffer = std::make_unique<Buffer>(unit_);
    idle.push_back(&l);
  }
  Buffer expected(unit_);
  std::vector<BlockRequest*> offered;
  int started = 0;
  size_t in_flight = 0;
  while (started < kOperations || in_flight != 0 || !offered.empty()) {
    while (started < kOperations && !idle.empty() && random.chance(3, 4)) {
      const size_t u = random.below(kUnits);
      if (busy[u]) {
        break;
      }
      Lane& l = *idle.back();
      idle.pop_back();
      const uint64_t kind = random.below(8);
      const BlockOp op = kind < 4    ? BlockOp::kRead
                         : kind == 4 ? BlockOp::kDiscard
                                     : BlockOp::kWrite;
      l.unit = u;
      l.writes = static_cast<uint64_t>(started) + 1;
      l.buffer->fill(op == BlockOp::kWrite ? l.writes : 0);
      l.request = rig_.request(op, l.buffer.get(), u * unit_, unit_);
      l.request.owner = &l;
      l.request.urgency = static_cast<Urgency>(random.below(4));
      busy[u] = true;
      offered.push_back(&l.request);
      ++started;
    }
    const size_t n = rig_.block().submit(offered);
    offered.erase(offered.begin(), offered.begin() + static_cast<ptrdiff_t>(n));
    in_flight += n;
    if (in_flight == 0) {
      continue;
    }
    BlockRequest* r = rig_.wait();
    --in_flight;
    ASSERT_EQ(r->result, Errc::kOk);
    Lane& l = *static_cast<Lane*>(r->owner);
    if (r->op == BlockOp::kRead) {
      if (version[l.unit] == 0) {
        ASSERT_TRUE(l.buffer->all_zero()) << "unit " << l.unit;
      } else {
        expected.fill(version[l.unit]);
        expect_content(*l.buffer, expected);
      }
    } else {
      version[l.unit] = r->op == BlockOp::kWrite ? l.writes : 0;
    }
    busy[l.unit] = false;
    idle.push_back(&l);
  }
}

TEST_P(BlockSuite, GrowsAndNeverShrinks) {
  if (std::string(GetParam()) == "uring_loop") {
    EXPECT_EQ(rig_.block().resize(kCapacity * 2).code(), Errc::kNotSupported);
    return;
  }
  Buffer b(unit_, 3);
  ASSERT_TRUE(rig_.block().resize(kCapacity * 2).ok());
  EXPECT_EQ(rig_.block().info().capacity, kCapacity * 2);
  EXPECT_EQ(rig_.run(BlockOp::kWrite, &b, kCapacity.value(), unit_), Errc::kOk);
  EXPECT_EQ(rig_.block().resize(kCapacity).code(), Errc::kInvalid);
  EXPECT_EQ(rig_.block().resize(kCapacity * 3 + Bytes(1)).code(), Errc::kInvalid);
  EXPECT_EQ(rig_.block().info().capacity, kCapacity * 2);
}

TEST_P(BlockSuite, GrowsWhileItRunsIfItSaysSo) {
  const Bytes most = info_.grows_to;
  const uint64_t end = kCapacity.value();
  if (most.value() == 0) {
    EXPECT_EQ(rig_.run(BlockOp::kGrow, nullptr, end, kMiB), Errc::kNotSupported);
    EXPECT_EQ(rig_.block().info().capacity, kCapacity);
    return;
  }
  ASSERT_GE(most, kCapacity * 2);
  EXPECT_EQ(rig_.run(BlockOp::kGrow, nullptr, end, unit_ / 2), Errc::kInvalid);
  EXPECT_EQ(rig_.run(BlockOp::kGrow, nullptr, end + unit_, unit_), Errc::kInvalid) << "a gap";
  EXPECT_EQ(rig_.run(BlockOp::kGrow, nullptr, end, 0), Errc::kInvalid);
  EXPECT_EQ(rig_.block().info().capacity, kCapacity);
  ASSERT_EQ(rig_.run(BlockOp::kGrow, nullptr, end, kMiB), Errc::kOk);
  EXPECT_EQ(rig_.block().info().capacity, kCapacity + mib(1));
  Buffer out(unit_, 3);
  Buffer in(unit_, 4);
  ASSERT_EQ(rig_.run(BlockOp::kRead, &in, end, unit_), Errc::kOk);
  EXPECT_TRUE(in.all_zero());
  ASSERT_EQ(rig_.run(BlockOp::kWrite, &out, end + kMiB - unit_, unit_), Errc::kOk);
  ASSERT_EQ(rig_.run(BlockOp::kRead, &in, end + kMiB - unit_, unit_), Errc::kOk);
  EXPECT_TRUE(in == out);
  // Place that is there already may be asked for again: what is in it stays.
  ASSERT_EQ(rig_.run(BlockOp::kGrow, nullptr, end, kMiB), Errc::kOk);
  EXPECT_EQ(rig_.block().info().capacity, kCapacity + mib(1));
  ASSERT_EQ(rig_.run(BlockOp::kRead, &in, end + kMiB - unit_, unit_), Errc::kOk);
  EXPECT_TRUE(in == out);
}

TEST_P(BlockSuite, ABatchOfNothingAndAPollOfNothing) {
  EXPECT_EQ(rig_.block().submit({}), 0u);
  rig_.block().poll();
  EXPECT_TRUE(rig_.queue.empty());
}

INSTANTIATE_TEST_SUITE_P(Drivers, BlockSuite,
                         testing::Values("uring", "uring_loop", "null", "error", "delay", "sim"),
                         [](const auto& i) { return std::string(i.param); });

}  // namespace
}  // namespace kvmm
