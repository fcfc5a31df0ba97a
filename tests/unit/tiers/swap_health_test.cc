// SPDX-License-Identifier: Apache-2.0
#include "tiers/swap_health.h"

#include <gtest/gtest.h>

#include <array>

namespace kvmm {
namespace {

using Verdict = SwapHealth::Verdict;

class SwapHealthTest : public ::testing::Test {
 protected:
  // One request from now on; time passes.
  void io(Tick took, Errc result = Errc::kOk, BlockOp op = BlockOp::kRead) {
    BlockRequest r;
    r.op = op;
    r.submitted = now_;
    health_.started(r, now_);
    now_ += took;
    r.result = result;
    health_.finished(r, now_);
  }
  Verdict verdict() {
    health_.judge(now_, limits_);
    return health_.verdict();
  }
  const SwapHealthLimits limits_{millis(100), millis(5000), 16};
  SwapHealth health_;
  Tick now_ = millis(1);
};

TEST_F(SwapHealthTest, AQuickDeviceIsOk) {
  for (int i = 0; i < 100; ++i) {
    io(micros(80), Errc::kOk, i % 2 == 0 ? BlockOp::kRead : BlockOp::kWrite);
  }
  EXPECT_EQ(verdict(), Verdict::kOk);
  EXPECT_EQ(health_.average_ns(), 80'000U);
  EXPECT_EQ(health_.read_ns().snapshot().count, 50U);
  EXPECT_EQ(health_.write_ns().snapshot().count, 50U);
  EXPECT_EQ(health_.judge_due(limits_), Tick(0));
}

TEST_F(SwapHealthTest, SlowComesAndGoesWithTheAverage) {
  for (int i = 0; i < 7; ++i) {
    io(millis(150));
  }
  EXPECT_EQ(verdict(), Verdict::kOk) << "a few requests say nothing";
  io(millis(150));
  EXPECT_EQ(verdict(), Verdict::kSlow);
  for (int i = 0; i < 4; ++i) {
    io(millis(1));
  }
  EXPECT_EQ(verdict(), Verdict::kSlow) << "not before half";
  for (int i = 0; i < 8; ++i) {
    io(millis(1));
  }
  EXPECT_EQ(verdict(), Verdict::kOk);
}

TEST_F(SwapHealthTest, AnIdleSecondHalvesTheAverage) {
  for (int i = 0; i < 8; ++i) {
    io(millis(160));
  }
  EXPECT_EQ(verdict(), Verdict::kSlow);
  EXPECT_EQ(health_.judge_due(limits_), now_ + millis(1000));
  now_ += millis(1000);
  EXPECT_EQ(verdict(), Verdict::kSlow);
  now_ += millis(1000);
  EXPECT_EQ(verdict(), Verdict::kOk);
}

TEST_F(SwapHealthTest, SecondsAreFailingAndThatStays) {
  for (int i = 0; i < 8; ++i) {
    io(millis(6000));
  }
  EXPECT_EQ(verdict(), Verdict::kFailing);
  for (int i = 0; i < 100; ++i) {
    io(micros(50));
  }
  EXPECT_EQ(verdict(), Verdict::kFailing);
}

TEST_F(SwapHealthTest, SilenceIsFailingWithoutACompletion) {
  BlockRequest r;
  health_.started(r, now_);
  const Tick start = now_;
  while (verdict() == Verdict::kOk) {
    ASSERT_GT(health_.judge_due(limits_), now_);
    now_ = health_.judge_due(limits_);
    health_.woke(now_, limits_);
  }
  EXPECT_EQ(verdict(), Verdict::kFailing);
  EXPECT_EQ(now_, start + millis(5000));
}

TEST_F(SwapHealthTest, AProcessThatWasStoppedBlamesNoDevice) {
  std::array<BlockRequest, 16> all;
  for (BlockRequest& r : all) {
    r.submitted = now_;
    health_.started(r, now_);
  }
  now_ += millis(60'000);
  health_.woke(now_, limits_);
  EXPECT_EQ(verdict(), Verdict::kOk) << "no silence";
  for (BlockRequest& r : all) {
    health_.finished(r, now_);
  }
  EXPECT_EQ(verdict(), Verdict::kOk) << "no average";
  // Of what comes behind it counts as ever.
  for (int i = 0; i < 8; ++i) {
    io(millis(6000));
  }
  EXPECT_EQ(verdict(), Verdict::kFailing);
}

TEST_F(SwapHealthTest, OneBadSectorIsNoFailingDevice) {
  for (int i = 0; i < 100000; ++i) {
    io(micros(50), i % 1000 < 2 ? Errc::kIo : Errc::kOk);  // read twice, now and then
    ASSERT_EQ(verdict(), Verdict::kOk) << i;
  }
  EXPECT_EQ(health_.read_errors(), 200U);
}

TEST_F(SwapHealthTest, ErrorsInARowOrAFifthOfAllAreFailing) {
  for (int i = 0; i < 15; ++i) {
    io(micros(50), Errc::kIo, BlockOp::kWrite);
  }
  EXPECT_EQ(verdict(), Verdict::kOk);
  io(micros(50), Errc::kIo, BlockOp::kFlush);
  EXPECT_EQ(verdict(), Verdict::kFailing);
  EXPECT_EQ(health_.write_errors(), 16U);
}

TEST_F(SwapHealthTest, AFullDiskIsNoError) {
  for (int i = 0; i < 100; ++i) {
    io(micros(50), Errc::kNoSpace, BlockOp::kWrite);
  }
  EXPECT_EQ(verdict(), Verdict::kOk);
  EXPECT_EQ(health_.write_errors(), 0U);
}

TEST_F(SwapHealthTest, ADeviceThatSaysSoIsGone) {
  io(micros(50), Errc::kDeviceGone);
  EXPECT_EQ(verdict(), Verdict::kGone);
  EXPECT_EQ(health_.judge_due(limits_), Tick(0));
}

}  // namespace
}  // namespace kvmm
