// SPDX-License-Identifier: Apache-2.0
#include "drivers/delay/delay_driver.h"
#include "drivers/null/null_driver.h"
#include "tests/drivers/block/block_rig.h"

namespace kvmm {
namespace {

constexpr uint64_t kUnit = 4096;

class DelayTest : public testing::Test {
 protected:
  void build(const std::string& options) {
    rig_.device = bind_or_fail(make_delay_driver(rig_.clock), block_info("", options),
                               bind_or_fail(make_null_driver(), block_info("null", "size=1M")));
    ASSERT_NE(rig_.device, nullptr);
    delay_ = find_delay(*rig_.device);
    ASSERT_NE(delay_, nullptr);
    for (size_t i = 0; i < kCount; ++i) {
      requests_[i] = rig_.request(BlockOp::kRead, &buffer_, i * kUnit, kUnit);
      list_[i] = &requests_[i];
    }
  }
  // The numbers of the requests that have come back, in order.
  std::vector<size_t> back() {
    rig_.block().poll();
    std::vector<size_t> out;
    while (Request* r = rig_.queue.pop()) {
      out.push_back(static_cast<size_t>(static_cast<BlockRequest*>(r) - requests_));
    }
    return out;
  }
  using Order = std::vector<size_t>;

  static constexpr size_t kCount = 4;
  BlockRig rig_;
  DelayBlock* delay_ = nullptr;
  Buffer buffer_{kUnit};
  BlockRequest requests_[kCount];
  BlockRequest* list_[kCount];
};

TEST_F(DelayTest, CompletionsWaitForTheClock) {
  build("latency_us=10");
  ASSERT_EQ(rig_.block().submit(std::span(list_).first(2)), 2u);
  rig_.clock.advance(micros(4));
  ASSERT_EQ(rig_.block().submit(std::span(list_).subspan(2, 1)), 1u);
  EXPECT_EQ(back(), Order{});
  EXPECT_EQ(delay_->next_due(), micros(10));
  rig_.clock.advance(micros(6) - Tick(1));
  EXPECT_EQ(back(), Order{}) << "one nanosecond early";
  rig_.clock.advance(Tick(1));
  EXPECT_EQ(back(), (Order{0, 1})) << "equal due times: in order";
  EXPECT_EQ(delay_->next_due(), micros(14));
  rig_.clock.advance(micros(4));
  EXPECT_EQ(back(), Order{2});
  EXPECT_EQ(delay_->next_due(), std::nullopt);
  EXPECT_EQ(rig_.block().event_fd(), -1);
}

TEST_F(DelayTest, JitterChangesTheOrderByItsSeed) {
  std::vector<Order> orders;
  for (const char* options :
       {"jitter_us=100,seed=1", "jitter_us=100,seed=1", "jitter_us=100,seed=2",
        "jitter_us=100,seed=3", "jitter_us=100,seed=4"}) {
    rig_.device.reset();
    build(options);
    ASSERT_EQ(rig_.block().submit(list_), kCount);
    Order order;
    while (order.size() < kCount) {
      rig_.clock.advance_to(*delay_->next_due());
      for (const size_t i : back()) {
        order.push_back(i);
      }
    }
    orders.push_back(order);
  }
  EXPECT_EQ(orders[0], orders[1]);
  EXPECT_TRUE(orders[0] != orders[2] || orders[0] != orders[3] || orders[0] != orders[4]);
}

TEST_F(DelayTest, HeldUntilReleasedInAnyOrder) {
  build("hold=1");
  ASSERT_EQ(rig_.block().submit(list_), kCount);
  rig_.clock.advance(millis(1000));
  EXPECT_EQ(back(), Order{});
  EXPECT_EQ(delay_->next_due(), std::nullopt) << "no time lets them go";
  ASSERT_EQ(delay_->held().size(), kCount);
  EXPECT_EQ(delay_->held()[2], &requests_[2]);
  delay_->release(2);
  EXPECT_EQ(back(), Order{2});
  delay_->release(2);  // what was the fourth
  EXPECT_EQ(back(), Order{3});
  delay_->release_all();
  EXPECT_EQ(back(), (Order{0, 1}));
  EXPECT_EQ(requests_[0].result, Errc::kOk);
}

TEST_F(DelayTest, SwitchingHoldOffLetsGoWhatIsDue) {
  build("hold=1,latency_us=5");
  ASSERT_EQ(rig_.block().submit(list_), kCount);
  delay_->set_hold(false);
  EXPECT_EQ(back(), Order{}) << "not due yet";
  rig_.clock.advance(micros(5));
  EXPECT_EQ(back(), (Order{0, 1, 2, 3}));
}

TEST_F(DelayTest, TakesNoMoreThanItsDepth) {
  build("hold=1,depth=3");
  EXPECT_EQ(rig_.block().submit(list_), 3u);
  EXPECT_EQ(rig_.block().submit(std::span(list_).subspan(3)), 0u);
  delay_->release(0);
  EXPECT_EQ(rig_.block().submit(std::span(list_).subspan(3)), 1u);
  delay_->release_all();
}

TEST_F(DelayTest, FinishesWhatItHoldsAtTheEnd) {
  build("hold=1");
  ASSERT_EQ(rig_.block().submit(list_), kCount);
  rig_.device.reset();
  size_t n = 0;
  while (rig_.queue.pop() != nullptr) {
    ++n;
  }
  EXPECT_EQ(n, kCount);
}

TEST_F(DelayTest, BadOptionsAreRefused) {
  auto driver = make_delay_driver(rig_.clock);
  EXPECT_FALSE(driver->probe(block_info("file", "")));
  EXPECT_EQ(driver->bind(block_info("", ""), nullptr).code(), Errc::kInvalid) << "nothing below";
  for (const char* options : {"latency_us=x", "jitter_us=-1", "seed=", "hold=2", "depth=0",
                              "wait=1", "latency_us=99999999999"}) {
    auto below = bind_or_fail(make_null_driver(), block_info("null", "size=1M"));
    EXPECT_EQ(driver->bind(block_info("", options), std::move(below)).code(), Errc::kInvalid)
        << options;
  }
}

}  // namespace
}  // namespace kvmm
