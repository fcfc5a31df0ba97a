// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "drivers/delay/delay_driver.h"
#include "drivers/error/error_driver.h"
#include "drivers/null/null_driver.h"
#include "drivers/sim/sim_driver.h"
#include "tests/drivers/block/block_rig.h"

namespace kvmm {
namespace {

constexpr uint64_t kUnit = 4096;

class ErrorTest : public testing::Test {
 protected:
  void SetUp() override { build(""); }

  void build(const std::string& options) {
    rig_.device = bind_or_fail(
        make_error_driver(), block_info("", options),
        bind_or_fail(make_sim_driver(rig_.clock), block_info("sim", "size=1M,depth=8")));
    ASSERT_NE(rig_.device, nullptr);
    error_ = find_error(*rig_.device);
    ASSERT_NE(error_, nullptr);
  }

  uint32_t add(const std::string& text) {
    auto rule = parse_error_rule(text);
    EXPECT_TRUE(rule.ok()) << rule.error().message();
    auto number = error_->add_rule(*rule);
    EXPECT_TRUE(number.ok()) << number.error().message();
    return number.ok() ? *number : 0;
  }
  Errc write(uint64_t unit, uint64_t seed, uint64_t count = 1) {
    Buffer b(count * kUnit, seed);
    return rig_.run(BlockOp::kWrite, &b, unit * kUnit, b.size());
  }
  // Reads a unit and says whether it is Buffer(seed).
  bool has(uint64_t unit, uint64_t seed) {
    Buffer in(kUnit, 0);
    EXPECT_EQ(rig_.run(BlockOp::kRead, &in, unit * kUnit, kUnit), Errc::kOk);
    return in == Buffer(kUnit, seed);
  }
  bool is_zero(uint64_t unit) {
    Buffer in(kUnit, 0);
    EXPECT_EQ(rig_.run(BlockOp::kRead, &in, unit * kUnit, kUnit), Errc::kOk);
    return in.all_zero();
  }

  BlockRig rig_;
  ErrorBlock* error_ = nullptr;
};

TEST_F(ErrorTest, FailsTheNthAndNoOther) {
  const uint32_t rule = add("fail/op:write/nth:3/errno:28");
  EXPECT_EQ(write(0, 1), Errc::kOk);
  EXPECT_EQ(write(1, 2), Errc::kOk);
  Buffer b(kUnit, 3);
  BlockRequest r = rig_.request(BlockOp::kWrite, &b, 2 * kUnit, kUnit);
  EXPECT_EQ(rig_.run(r), Errc::kNoSpace);
  EXPECT_EQ(r.os_error, ENOSPC);
  EXPECT_EQ(write(3, 4), Errc::kOk);
  EXPECT_EQ(error_->fired(rule), 1u);
  EXPECT_TRUE(is_zero(2)) << "the failed write reached nothing";
  EXPECT_TRUE(has(1, 2));
}

TEST_F(ErrorTest, FailsByKindAndRange) {
  add("fail/op:read/from:8192/to:12288/count:0");
  ASSERT_EQ(write(0, 1, 4), Errc::kOk);
  Buffer b(2 * kUnit);
  EXPECT_EQ(rig_.run(BlockOp::kRead, &b, 0, kUnit), Errc::kOk);
  EXPECT_EQ(rig_.run(BlockOp::kRead, &b, kUnit, kUnit), Errc::kOk) << "ends where it begins";
  EXPECT_EQ(rig_.run(BlockOp::kRead, &b, kUnit, 2 * kUnit), Errc::kIo) << "touches it";
  EXPECT_EQ(rig_.run(BlockOp::kRead, &b, 2 * kUnit, kUnit), Errc::kIo);
  EXPECT_EQ(rig_.run(BlockOp::kRead, &b, 3 * kUnit, kUnit), Errc::kOk);
  EXPECT_EQ(rig_.run(BlockOp::kWrite, &b, 2 * kUnit, kUnit), Errc::kOk) << "another kind";
  EXPECT_EQ(error_->fired_total(), 2u);
}

TEST_F(ErrorTest, FailsFlushAndDiscard) {
  add("fail/op:flush+discard/count:2/errno:19");
  EXPECT_EQ(rig_.run(BlockOp::kFlush, nullptr, 0, 0), Errc::kDeviceGone);
  EXPECT_EQ(rig_.run(BlockOp::kDiscard, nullptr, 0, kUnit), Errc::kDeviceGone);
  EXPECT_EQ(rig_.run(BlockOp::kFlush, nullptr, 0, 0), Errc::kOk) << "count is used up";
}

TEST_F(ErrorTest, ShortTransfersMoveHalfAndSayIo) {
  ASSERT_EQ(write(0, 1, 4), Errc::kOk);
  add("shorten/count:2");
  Buffer b(4 * kUnit, 9);
  EXPECT_EQ(rig_.run(BlockOp::kWrite, &b, 0, b.size()), Errc::kIo);
  Buffer in(4 * kUnit, 77);
  EXPECT_EQ(rig_.run(BlockOp::kRead, &in, 0, in.size()), Errc::kIo);
  EXPECT_EQ(0, std::memcmp(in.data(), b.data(), 2 * kUnit)) << "half was written, half is read";
  Buffer same(4 * kUnit, 77);
  EXPECT_EQ(0, std::memcmp(in.data() + 2 * kUnit, same.data() + 2 * kUnit, 2 * kUnit));
  add("shorten");
  EXPECT_EQ(write(8, 5), Errc::kIo) << "of one unit nothing";
  EXPECT_TRUE(is_zero(8));
}

TEST_F(ErrorTest, FlipsOneBitOfWhatIsRead) {
  ASSERT_EQ(write(0, 1), Errc::kOk);
  add("flip");
  Buffer in(kUnit);
  ASSERT_EQ(rig_.run(BlockOp::kRead, &in, 0, kUnit), Errc::kOk);
  Buffer out(kUnit, 1);
  int bits = 0;
  for (size_t i = 0; i < kUnit; ++i) {
    bits += std::popcount(static_cast<uint8_t>(in.data()[i] ^ out.data()[i]));
  }
  EXPECT_EQ(bits, 1);
  EXPECT_TRUE(has(0, 1)) << "the medium is intact";
}

TEST_F(ErrorTest, MisdirectedWriteLandsElsewhere) {
  ASSERT_EQ(write(0, 1), Errc::kOk);
  ASSERT_EQ(write(5, 2), Errc::kOk);
  add("misdirect/op:write/distance:20480");
  ASSERT_EQ(write(0, 3), Errc::kOk);
  EXPECT_TRUE(has(0, 1)) << "the old bytes";
  EXPECT_TRUE(has(5, 3)) << "somebody else's place";
}

TEST_F(ErrorTest, MisdirectedReadComesFromElsewhereAndWraps) {
  ASSERT_EQ(write(3, 1), Errc::kOk);
  add("misdirect/op:read/distance:16384");
  const uint64_t units = kMiB / kUnit;
  EXPECT_TRUE(has(units - 1, 1)) << "4 units behind the last one";
}

TEST_F(ErrorTest, LostWriteIsAcknowledged) {
  ASSERT_EQ(write(0, 1), Errc::kOk);
  const uint32_t rule = add("lose");
  EXPECT_EQ(rig_.run(BlockOp::kFlush, nullptr, 0, 0), Errc::kOk);
  EXPECT_EQ(error_->fired(rule), 0u) << "of its own accord only writes are lost";
  ASSERT_EQ(write(0, 2), Errc::kOk);
  EXPECT_TRUE(has(0, 1));
  EXPECT_EQ(error_->fired(rule), 1u);
}

TEST_F(ErrorTest, LostFlushLeavesNothingStable) {
  add("lose/op:flush");
  ASSERT_EQ(write(0, 1), Errc::kOk);
  EXPECT_EQ(rig_.run(BlockOp::kFlush, nullptr, 0, 0), Errc::kOk);
  // The disk below is the error device's own: it still has the write as volatile.
  EXPECT_EQ(rig_.run(BlockOp::kFlush, nullptr, 0, 0), Errc::kOk);
  EXPECT_EQ(error_->fired_total(), 1u);
}

TEST_F(ErrorTest, TornWriteKeepsItsFirstHalf) {
  ASSERT_EQ(write(0, 1, 2), Errc::kOk);
  add("tear");
  ASSERT_EQ(write(0, 2, 2), Errc::kOk);
  Buffer in(2 * kUnit);
  ASSERT_EQ(rig_.run(BlockOp::kRead, &in, 0, in.size()), Errc::kOk);
  Buffer older(2 * kUnit, 1), newer(2 * kUnit, 2);
  EXPECT_EQ(0, std::memcmp(in.data(), newer.data(), kUnit));
  EXPECT_EQ(0, std::memcmp(in.data() + kUnit, older.data() + kUnit, kUnit));
}

TEST_F(ErrorTest, StaleReadGivesTheBytesBeforeTheLastWrite) {
  ASSERT_EQ(write(0, 1), Errc::kOk);
  add("stale/from:0/to:8192");
  ASSERT_EQ(write(0, 2), Errc::kOk);
  ASSERT_EQ(write(0, 3), Errc::kOk);
  EXPECT_TRUE(has(0, 2)) << "stale, once";
  EXPECT_TRUE(has(0, 3));
  EXPECT_TRUE(is_zero(1));
}

TEST_F(ErrorTest, StaleReadOfDiscardedBytes) {
  ASSERT_EQ(write(0, 1), Errc::kOk);
  add("stale");
  ASSERT_EQ(rig_.run(BlockOp::kDiscard, nullptr, 0, kUnit), Errc::kOk);
  EXPECT_TRUE(has(0, 1));
  EXPECT_TRUE(is_zero(0));
}

TEST_F(ErrorTest, RefusedRequestsAreNotTaken) {
  add("refuse/op:write/nth:2");
  Buffer b(kUnit, 1);
  BlockRequest r[3];
  for (size_t i = 0; i < 3; ++i) {
    r[i] = rig_.request(BlockOp::kWrite, &b, i * kUnit, kUnit);
  }
  BlockRequest* list[] = {&r[0], &r[1], &r[2]};
  EXPECT_EQ(rig_.block().submit(list), 1u);
  EXPECT_EQ(rig_.wait(), &r[0]);
  EXPECT_EQ(rig_.block().submit(std::span(list).subspan(1)), 2u);
  rig_.wait();
  rig_.wait();
}

TEST_F(ErrorTest, RulesGoAway) {
  const uint32_t rule = add("fail/count:0");
  EXPECT_EQ(write(0, 1), Errc::kIo);
  EXPECT_TRUE(error_->remove_rule(rule).ok());
  EXPECT_EQ(error_->remove_rule(rule).code(), Errc::kNotFound);
  EXPECT_EQ(error_->fired(rule), 0u);
  EXPECT_EQ(write(0, 1), Errc::kOk);
  add("fail/count:0");
  error_->clear_rules();
  EXPECT_EQ(write(0, 1), Errc::kOk);
}

// Which of 1,000 writes failed, as a string of 0 and 1.
std::string failures_of(const std::string& options) {
  BlockRig rig;
  rig.device = bind_or_fail(make_error_driver(), block_info("", options),
                            bind_or_fail(make_null_driver(), block_info("null", "size=1M")));
  std::string out;
  Buffer b(kUnit, 1);
  for (int i = 0; i < 1000; ++i) {
    out += rig.run(BlockOp::kWrite, &b, 0, kUnit) == Errc::kOk ? '0' : '1';
  }
  return out;
}

TEST_F(ErrorTest, DiceComeFromTheSeed) {
  const std::string rule = ",rule=fail/count:0/per_million:250000";
  const std::string one = failures_of("seed=1" + rule);
  EXPECT_EQ(one, failures_of("seed=1" + rule));
  EXPECT_NE(one, failures_of("seed=2" + rule));
  const auto failed = std::count(one.begin(), one.end(), '1');
  EXPECT_GT(failed, 150);
  EXPECT_LT(failed, 350);
}

TEST_F(ErrorTest, OptionsAreRulesFromTheStart) {
  build("seed=4,rule=fail/op:write/nth:2,rule=flip/count:0");
  EXPECT_EQ(write(0, 1), Errc::kOk);
  EXPECT_EQ(write(0, 1), Errc::kIo);
  EXPECT_FALSE(has(0, 1));
}

TEST_F(ErrorTest, BadRulesAreRefused) {
  for (const char* text :
       {"", "explode", "fail/op:", "fail/op:readd", "fail/nth:x", "fail/nth", "fail/what:1",
        "fail/per_million:1000001", "fail/errno:0", "fail/op:read/ /", "fail/nth:-1"}) {
    EXPECT_EQ(parse_error_rule(text).code(), Errc::kInvalid) << text;
  }
  for (const char* text : {"flip/op:write", "stale/op:write", "lose/op:read", "tear/op:read",
                           "shorten/op:flush", "misdirect", "misdirect/distance:100",
                           "misdirect/distance:1048576", "fail/nth:0", "fail/from:5/to:5"}) {
    auto rule = parse_error_rule(text);
    ASSERT_TRUE(rule.ok()) << text;
    EXPECT_EQ(error_->add_rule(*rule).code(), Errc::kInvalid) << text;
  }
  auto driver = make_error_driver();
  EXPECT_EQ(driver->bind(block_info("", ""), nullptr).code(), Errc::kInvalid) << "nothing below";
  for (const char* options :
       {"rule=explode", "rule=flip/op:write", "depth=0", "seed=x", "rools=1"}) {
    auto below = bind_or_fail(make_null_driver(), block_info("null", "size=1M"));
    EXPECT_EQ(driver->bind(block_info("", options), std::move(below)).code(), Errc::kInvalid)
        << options;
  }
}

TEST_F(ErrorTest, TheDevicesOwnFailureComesFirst) {
  // Two error devices over each other: the lower one fails the read that the upper would flip,
  // and the upper one's reading of old bytes.
  auto lower = bind_or_fail(make_error_driver(), block_info("", "rule=fail/op:read/count:2"),
                            bind_or_fail(make_null_driver(), block_info("null", "size=1M")));
  rig_.device =
      bind_or_fail(make_error_driver(), block_info("", "rule=flip,rule=stale"), std::move(lower));
  Buffer b(kUnit, 1);
  EXPECT_EQ(rig_.run(BlockOp::kRead, &b, 0, kUnit), Errc::kIo);
  EXPECT_TRUE(b == Buffer(kUnit, 1)) << "nothing was flipped";
  EXPECT_EQ(rig_.run(BlockOp::kWrite, &b, 0, kUnit), Errc::kIo) << "its old bytes are unreadable";
  EXPECT_EQ(rig_.run(BlockOp::kWrite, &b, 0, kUnit), Errc::kOk);
}

TEST_F(ErrorTest, FindsOnlyItsOwnDevices) {
  auto other = bind_or_fail(make_null_driver(), block_info("null", "size=1M"));
  EXPECT_EQ(find_error(*other), nullptr);
  EXPECT_EQ(find_delay(*other), nullptr);
  EXPECT_EQ(find_sim_disk(*other), nullptr);
  EXPECT_EQ(find_sim_mmu(*other), nullptr);
}

}  // namespace
}  // namespace kvmm
