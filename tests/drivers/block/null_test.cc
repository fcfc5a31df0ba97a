// SPDX-License-Identifier: Apache-2.0
#include "drivers/null/null_driver.h"
#include "tests/drivers/block/block_rig.h"

namespace kvmm {
namespace {

TEST(NullDriver, TakesItsSizeFromOptionsOrTheDevice) {
  auto driver = make_null_driver();
  DeviceInfo info = block_info("null", "");
  info.capacity = mib(3);
  EXPECT_TRUE(driver->probe(info));
  EXPECT_EQ(bind_or_fail(make_null_driver(), info)->block()->info().capacity, mib(3));
  info.options = "size=1T";
  EXPECT_EQ(bind_or_fail(make_null_driver(), info)->block()->info().capacity, gib(1024));
}

TEST(NullDriver, RefusesOtherDevicesAndBadSizes) {
  auto driver = make_null_driver();
  EXPECT_FALSE(driver->probe(block_info("file", "size=1M")));
  DeviceInfo memory = block_info("null", "");
  memory.cls = DeviceClass::kMemory;
  EXPECT_FALSE(driver->probe(memory));
  for (const char* options : {"", "size=0", "size=100", "size=x", "depth=3"}) {
    EXPECT_EQ(driver->bind(block_info("null", options), nullptr).code(), Errc::kInvalid) << options;
  }
  auto below = bind_or_fail(make_null_driver(), block_info("null", "size=1M"));
  EXPECT_EQ(driver->bind(block_info("null", "size=1M"), std::move(below)).code(), Errc::kInvalid);
}

TEST(NullDriver, FinishesInsideSubmitAndForgets) {
  BlockRig rig;
  rig.device = bind_or_fail(make_null_driver(), block_info("null", "size=1M"));
  EXPECT_TRUE(rig.block().info().volatile_content);
  Buffer b(4096, 5);
  BlockRequest write = rig.request(BlockOp::kWrite, &b, 0, 4096);
  BlockRequest* one = &write;
  ASSERT_EQ(rig.block().submit({&one, 1}), 1u);
  EXPECT_EQ(rig.queue.pop(), &write) << "without a poll";
  ASSERT_EQ(rig.run(BlockOp::kRead, &b, 0, 4096), Errc::kOk);
  EXPECT_TRUE(b.all_zero());
}

}  // namespace
}  // namespace kvmm
