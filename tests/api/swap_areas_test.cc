// SPDX-License-Identifier: Apache-2.0
//
// Several swap areas at once, files and a block device: striping, growth, discard, swapoff.
#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "tests/api/rig.h"

namespace kvmm_api {
namespace {

uint64_t bytes_of(const std::string& path) {  // st_size
  struct stat s {};
  return stat(path.c_str(), &s) == 0 ? static_cast<uint64_t>(s.st_size) : 0;
}
uint64_t disk_bytes_of(const std::string& path) {
  struct stat s {};
  return stat(path.c_str(), &s) == 0 ? static_cast<uint64_t>(s.st_blocks) * 512 : 0;
}

// A loop device over a sparse file; "" if there is none to be had. It goes away when nobody has it
// open any more.
class Loop {
 public:
  Loop(const std::string& image, uint64_t bytes) {
    const int file = open(image.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    const int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    EXPECT_EQ(ftruncate(file, static_cast<off_t>(bytes)), 0);
    for (int tries = 0; tries < 16 && fd_ < 0 && control >= 0; ++tries) {
      const int n = ioctl(control, LOOP_CTL_GET_FREE);
      name_ = "/dev/loop" + std::to_string(n);
      fd_ = n < 0 ? -1 : open(name_.c_str(), O_RDWR | O_CLOEXEC);
      loop_config config{};
      config.fd = static_cast<uint32_t>(file);
      config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
      if (fd_ >= 0 && ioctl(fd_, LOOP_CONFIGURE, &config) != 0) {
        close(fd_);  // somebody else was quicker
        fd_ = -1;
      }
    }
    close(control);
    close(file);
  }
  ~Loop() { close(fd_); }
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;
  bool works() const { return fd_ >= 0; }
  const std::string& name() const { return name_; }

 private:
  int fd_ = -1;
  std::string name_;
};

class SwapAreas : public ApiTest {
 protected:
  template <class Pred>
  testing::AssertionResult comes(Pred&& pred) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!pred()) {
      if (std::chrono::steady_clock::now() > end) {
        return testing::AssertionFailure();
      }
      std::this_thread::yield();
    }
    return testing::AssertionSuccess();
  }
};

TEST_F(SwapAreas, FilesAndABlockDeviceOfOnePriorityShareThePages) {
  const std::string image = folder_.file("image");
  Loop loop(image, 64 * kMi);
  if (!loop.works()) {
    GTEST_SKIP() << "api_loop_device: no loop device to be had";
  }
  Options o;
  o.lanes = 6;
  World w;
  ASSERT_KVMM_OK(w.open(o));
  const std::string paths[] = {folder_.file("a"), folder_.file("b"), loop.name()};
  for (const std::string& path : paths) {
    ASSERT_KVMM_OK(kvmm_swapon(w.runtime(), path.c_str(), path == loop.name() ? 0 : 64 * kMi, 7));
  }
  for (uint32_t lane = 0; lane < 6; ++lane) {
    ASSERT_NE(w.session(lane), nullptr);
    w.fill(lane, 1);
    ASSERT_TRUE(w.send_out(lane));
  }
  // 192 pages of 64 KiB: a third each.
  for (const char* area : {"swap0", "swap1", "swap2"}) {
    EXPECT_EQ(w.attribute("swap/" + std::string(area) + "/used"), "4MiB") << area;
    EXPECT_EQ(w.attribute("swap/" + std::string(area) + "/health"), "ok");
    EXPECT_EQ(w.attribute("swap/" + std::string(area) + "/driver"), "uring");
    EXPECT_NE(w.attribute("swap/" + std::string(area) + "/write_p50"), "0");
  }
  for (uint32_t lane = 0; lane < 6; ++lane) {
    EXPECT_TRUE(w.holds(lane, 1));
  }
  // Out they go one by one, the last one's pages to memory and back.
  ASSERT_KVMM_OK(kvmm_swapoff(w.runtime(), paths[2].c_str()));
  ASSERT_KVMM_OK(kvmm_swapoff(w.runtime(), paths[0].c_str()));
  EXPECT_EQ(w.attribute("swap/swap0/used"), "");
  for (uint32_t lane = 0; lane < 6; ++lane) {
    EXPECT_TRUE(w.holds(lane, 1));
  }
  EXPECT_REFUSED(kvmm_swapoff(w.runtime(), paths[1].c_str()), KVMM_ENOMEMORY, paths[1],
                 "still holds", "session", "'chat-", "bytes of DRAM", "close sessions");
  for (uint32_t lane = 0; lane < 6; ++lane) {
    EXPECT_TRUE(w.holds(lane, 1));
  }
  for (uint32_t lane = 1; lane < 6; ++lane) {
    ASSERT_KVMM_OK(w.close_session(lane));
  }
  EXPECT_KVMM_OK(kvmm_swapoff(w.runtime(), paths[1].c_str()));
  EXPECT_TRUE(w.holds(0, 1));
}

TEST_F(SwapAreas, AFileStartsSmallGrowsAndGivesBackWhatIsFree) {
  const std::string path = folder_.file("swap");
  Options o;
  o.swap = path;
  o.swap_bytes = 1024 * kMi;
  o.lanes = 16;
  World w;
  ASSERT_KVMM_OK(w.open(o));
  EXPECT_TRUE(comes([&] { return w.attribute("swap/swap0/grown") == "8MiB"; }));
  EXPECT_LT(bytes_of(path), 32 * kMi) << "index and a first step";
  EXPECT_LT(disk_bytes_of(path), 12 * kMi);
  for (uint32_t lane = 0; lane < 16; ++lane) {
    ASSERT_NE(w.session(lane), nullptr);
    w.fill(lane, 1);
    ASSERT_TRUE(w.send_out(lane));
  }
  EXPECT_GE(bytes_of(path), 48 * kMi);
  EXPECT_LT(bytes_of(path), 128 * kMi);
  const uint64_t full = disk_bytes_of(path);
  EXPECT_GE(full, 32 * kMi);
  EXPECT_EQ(w.counter("swap_full"), 0u) << "growing is not full";
  for (uint32_t lane = 1; lane < 16; ++lane) {
    ASSERT_KVMM_OK(w.close_session(lane));
  }
  EXPECT_TRUE(comes([&] { return disk_bytes_of(path) + 24 * kMi < full; })) << disk_bytes_of(path);
  EXPECT_TRUE(w.holds(0, 1));
  // Switched off, what is free stays.
  ASSERT_KVMM_OK(kvmm_attr_set(w.runtime(), "swap/swap0/discard", "off"));
  EXPECT_EQ(w.attribute("swap/swap0/discard"), "off");
  EXPECT_NE(kvmm_attr_set(w.runtime(), "swap/swap0/health", "ok"), KVMM_OK);
}

TEST_F(SwapAreas, ABlockDeviceIsToldWhatIsFree) {
  const std::string image = folder_.file("image");
  Loop loop(image, 64 * kMi);
  if (!loop.works()) {
    GTEST_SKIP() << "api_loop_device: no loop device to be had";
  }
  World w;
  ASSERT_KVMM_OK(w.open(Options()));
  ASSERT_KVMM_OK(kvmm_swapon(w.runtime(), loop.name().c_str(), 0, 0));
  if (w.attribute("swap/swap0/discard") != "on") {
    GTEST_SKIP() << "api_loop_discard: this file system's loop devices have no discard";
  }
  for (uint32_t lane = 0; lane < 4; ++lane) {
    ASSERT_NE(w.session(lane), nullptr);
    w.fill(lane, 1);
    ASSERT_TRUE(w.send_out(lane));
  }
  const uint64_t full = disk_bytes_of(image);
  EXPECT_GE(full, 8 * kMi);
  for (uint32_t lane = 1; lane < 4; ++lane) {
    ASSERT_KVMM_OK(w.close_session(lane));
  }
  EXPECT_TRUE(comes([&] { return disk_bytes_of(image) + 4 * kMi < full; })) << disk_bytes_of(image);
  EXPECT_TRUE(w.holds(0, 1));
}

}  // namespace
}  // namespace kvmm_api
