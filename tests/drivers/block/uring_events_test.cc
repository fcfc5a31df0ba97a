// SPDX-License-Identifier: Apache-2.0
//
// The uring driver's descriptor: readable when there is something, and silent for an owner that is
// awake.
#include <poll.h>
#include <unistd.h>

#include <thread>

#include "drivers/uring/uring_driver.h"
#include "tests/drivers/block/block_rig.h"

namespace kvmm {
namespace {

class UringEventsTest : public testing::Test {
 protected:
  void build() {
    rig_.device = bind_or_fail(make_uring_driver(), file_info(path_, "size=1M,depth=8"));
    ASSERT_NE(rig_.device, nullptr);
  }

  TestFolder folder_;
  std::string path_ = folder_.file("swap");
  BlockRig rig_;
};

TEST_F(UringEventsTest, TheDescriptorIsReadableOnlyWhenThereIsSomething) {
  build();
  pollfd p{rig_.block().event_fd(), POLLIN, 0};
  rig_.block().poll();  // the first read's tick
  EXPECT_EQ(::poll(&p, 1, 0), 0);
  Buffer b(4096, 1);
  BlockRequest r = rig_.request(BlockOp::kWrite, &b, 0, 4096);
  BlockRequest* one = &r;
  ASSERT_EQ(rig_.block().submit({&one, 1}), 1u);
  EXPECT_EQ(::poll(&p, 1, 20'000), 1);
  rig_.block().poll();
  EXPECT_EQ(rig_.queue.pop(), &r);
  EXPECT_EQ(::poll(&p, 1, 0), 0);
}

TEST_F(UringEventsTest, AnOwnerThatArmsIsToldOnlyWhenItSleeps) {
  build();
  BlockOps& block = rig_.block();
  pollfd p{block.event_fd(), POLLIN, 0};
  Buffer b(4096, 1);
  BlockRequest r;
  const auto write_one = [&] {
    r = rig_.request(BlockOp::kWrite, &b, 0, 4096);
    BlockRequest* one = &r;
    ASSERT_EQ(block.submit({&one, 1}), 1u);
  };
  const auto finished = [&] {  // not by the descriptor
    while (rig_.queue.empty()) {
      std::this_thread::yield();
      block.poll();
    }
    EXPECT_EQ(rig_.queue.pop(), &r);
  };
  EXPECT_FALSE(block.arm());
  EXPECT_EQ(::poll(&p, 1, 0), 0);
  write_one();
  EXPECT_EQ(::poll(&p, 1, 20'000), 1) << "armed: it is told";
  finished();
  write_one();
  finished();
  EXPECT_FALSE(block.arm());
  EXPECT_EQ(::poll(&p, 1, 0), 0) << "what came while it was awake has left nothing behind";
  block.poll();
  write_one();
  for (bool something = false; !something;) {  // it finishes after a while, and nobody polls
    something = block.arm();
  }
  finished();
}

}  // namespace
}  // namespace kvmm
