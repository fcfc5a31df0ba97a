// SPDX-License-Identifier: Apache-2.0
//
// Disks that fail and pages that are not what was written: SIGBUS or an error and a line, never
// other bytes.
#include <fcntl.h>
#include <linux/loop.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "tests/api/rig.h"

namespace kvmm_api {
namespace {

// A disk of 64 MiB in memory, behind a loop device that goes away with its last descriptor.
class Disk {
 public:
  Disk() : memory_(memfd_create("disk", MFD_CLOEXEC | MFD_ALLOW_SEALING)) {
    const int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    EXPECT_EQ(ftruncate(memory_, 64 * kMi), 0);
    for (int tries = 0; tries < 16 && loop_ < 0 && control >= 0; ++tries) {
      const int n = ioctl(control, LOOP_CTL_GET_FREE);
      name_ = "/dev/loop" + std::to_string(n);
      loop_ = n < 0 ? -1 : open(name_.c_str(), O_RDWR | O_CLOEXEC);
      loop_config config{};
      config.fd = static_cast<uint32_t>(memory_);
      config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
      if (loop_ >= 0 && ioctl(loop_, LOOP_CONFIGURE, &config) != 0) {
        close(loop_);  // somebody else was quicker
        loop_ = -1;
      }
    }
    close(control);
  }
  ~Disk() {
    close(loop_);
    close(memory_);
  }
  Disk(const Disk&) = delete;
  Disk& operator=(const Disk&) = delete;
  bool works() const { return loop_ >= 0; }
  const std::string& name() const { return name_; }
  // From now on every read, or every write, is EIO.
  void fail_reads() { EXPECT_EQ(ftruncate(memory_, 0), 0); }
  void fail_writes() { EXPECT_EQ(fcntl(memory_, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), 0); }

 private:
  const int memory_;
  int loop_ = -1;
  std::string name_;
};

class Damage : public ApiTest {};

TEST_F(Damage, ADiskThatCannotBeWrittenLosesNothing) {
  Disk disk;
  if (!disk.works()) {
    GTEST_SKIP() << "api_loop_device: no loop device to be had";
  }
  const Ended e = in_child([&] {
    const std::string& device = disk.name();
    Options o;
    o.dram = 8 * kMi;
    World w;
    ASSERT_KVMM_OK(w.open(o));
    ASSERT_KVMM_OK(kvmm_swapon(w.runtime(), device.c_str(), 0, 0));
    for (uint32_t lane = 0; lane < 3; ++lane) {
      ASSERT_NE(w.session(lane), nullptr);
      w.fill(lane, 1);
    }
    disk.fail_writes();
    for (uint32_t lane = 0; lane < 3; ++lane) {
      // No space once the area has been given up, which its errors lead to soon.
      const kvmm_status s = kvmm_sync(w.session(lane), nullptr);
      EXPECT_TRUE(s == KVMM_EIO || s == KVMM_ENOSPACE) << kvmm_status_name(s);
    }
    EXPECT_GT(w.counter("write_errors"), 0u);
    for (uint32_t lane = 0; lane < 3; ++lane) {
      EXPECT_TRUE(w.holds(lane, 1));
    }
    // It is taken out by itself, and takes nothing with it.
    while (!w.attribute("swap/swap0/path").empty()) {
      sched_yield();
    }
    EXPECT_REFUSED(kvmm_swapoff(w.runtime(), device.c_str()), KVMM_ENOTFOUND, device);
    ASSERT_KVMM_OK(kvmm_swapon(w.runtime(), folder_.file("good").c_str(), 64 * kMi, 5));
    for (uint32_t lane = 0; lane < 3; ++lane) {
      EXPECT_TRUE(w.send_out(lane));
      EXPECT_TRUE(w.holds(lane, 1));
    }
  });
  EXPECT_EQ(e.exit, 0) << "signal " << e.signal << "\n" << e.out;
  EXPECT_NE(e.out.find("could not be written and stays in memory"), std::string::npos) << e.out;
  EXPECT_NE(e.out.find("swap0: its device fails or hangs"), std::string::npos) << e.out;
  EXPECT_NE(e.out.find("(0 pages were lost) and is taken out"), std::string::npos) << e.out;
}

TEST_F(Damage, ADiskThatCannotBeReadIsAnErrorForWhoTouches) {
  Disk disk;
  if (!disk.works()) {
    GTEST_SKIP() << "api_loop_device: no loop device to be had";
  }
  const Ended e = in_child([&] {
    const std::string& device = disk.name();
    World w;
    ASSERT_KVMM_OK(w.open(Options()));
    ASSERT_KVMM_OK(kvmm_swapon(w.runtime(), device.c_str(), 0, 0));
    for (uint32_t lane = 0; lane < 2; ++lane) {
      ASSERT_NE(w.session(lane), nullptr);
      w.fill(lane, 1);
    }
    ASSERT_TRUE(w.send_out(0));
    disk.fail_reads();
    EXPECT_EQ(signal_of_touch(w.base(0)), SIGBUS);
    EXPECT_EQ(signal_of_touch(w.base(0)), SIGBUS) << "and it stays one";
    EXPECT_TRUE(w.holds(1, 1)) << "others are resident";
    EXPECT_GT(w.counter("read_errors"), 0u);
    // The engine starts again from nothing.
    ASSERT_KVMM_OK(kvmm_arena_clear(w.arena(), w.base(0), w.lane_bytes()));
    EXPECT_EQ(*w.base(0), 0);
    w.fill(0, 2);
    EXPECT_TRUE(w.holds(0, 2));
  });
  EXPECT_EQ(e.exit, 0) << "signal " << e.signal << "\n" << e.out;
  EXPECT_NE(e.out.find("session 2 plane 0"), std::string::npos) << e.out;
  EXPECT_NE(e.out.find("could not be read"), std::string::npos) << e.out;
}

TEST_F(Damage, AWrongPageOnDiskIsNeverMapped) {
  const std::string swap = folder_.file("swap");
  const Ended e = in_child([&] {
    Options o;
    o.swap = swap;
    World w;
    ASSERT_KVMM_OK(w.open(o));
    ASSERT_NE(w.session(0), nullptr);
    w.fill(0, 1);
    constexpr uint64_t kPage = 64 * kKi;
    // All of it: the first 4 KiB stand in page 14 once more, and slots come in any order.
    const std::string content(reinterpret_cast<const char*>(w.base(0) + 5 * kPage), kPage);
    ASSERT_TRUE(w.send_out(0));
    const size_t at = read_file(swap).find(content);
    ASSERT_NE(at, std::string::npos);
    const int fd = open(swap.c_str(), O_RDWR | O_CLOEXEC);
    const char flipped = static_cast<char>(content[8] ^ 1);
    ASSERT_EQ(pwrite(fd, &flipped, 1, static_cast<off_t>(at + 8)), 1);
    close(fd);
    EXPECT_EQ(signal_of_touch(w.base(0) + 5 * kPage), SIGBUS);
    EXPECT_EQ(w.counter("wrong_pages"), 1u);
    EXPECT_EQ(w.stat(0).wrong_pages, 1u);
    for (uint64_t page = 0; page < w.lane_bytes() / kPage; ++page) {
      EXPECT_EQ(signal_of_touch(w.base(0) + page * kPage), page == 5 ? SIGBUS : 0) << page;
    }
    ASSERT_KVMM_OK(kvmm_arena_clear(w.arena(), w.base(0) + 5 * kPage, kPage));
    EXPECT_EQ(w.base(0)[5 * kPage + 8], 0);
  });
  EXPECT_EQ(e.exit, 0) << "signal " << e.signal << "\n" << e.out;
  EXPECT_NE(e.out.find("session 2 plane 0 page 5"), std::string::npos) << e.out;
  EXPECT_NE(e.out.find("failed verification and was not mapped (corrupt)"), std::string::npos)
      << e.out;
}

TEST_F(Damage, AStructuredSessionIsToldWhatToComputeAgain) {
  const std::string swap = folder_.file("swap");
  EXPECT_CHILD_OK(in_child([&] {
    Options o;
    o.swap = swap;
    o.token = 4096;  // 16 tokens a page
    o.flags |= KVMM_RUNTIME_PIN_ONLY;
    World w;
    ASSERT_KVMM_OK(w.open(o));
    kvmm_session* s = w.session(0);
    ASSERT_NE(s, nullptr);
    kvmm_pin_range all{s, KVMM_ALL_PLANES, 1, 0, 64};
    kvmm_pin* pin = nullptr;
    const auto pinned = [&](uint32_t write) {
      all.write = write;
      uint32_t answer = KVMM_PIN_COMING;
      EXPECT_KVMM_OK(kvmm_pin_batch(w.runtime(), &all, 1, &pin, &answer));
      while (answer == KVMM_PIN_COMING) {
        sched_yield();
        EXPECT_KVMM_OK(kvmm_pin_poll(pin, &answer, 1));
      }
      return answer;
    };
    ASSERT_EQ(pinned(1), static_cast<uint32_t>(KVMM_PIN_READY));
    for (uint64_t i = 0; i < 64 * 4096; i += 8) {
      w.base(0)[i] = static_cast<unsigned char>(i / 4096 + 1);
    }
    ASSERT_KVMM_OK(kvmm_append(s, nullptr, 64));
    ASSERT_KVMM_OK(kvmm_unpin(pin, nullptr));
    ASSERT_TRUE(w.send_out(0));
    EXPECT_REFUSED(kvmm_arena_clear(w.arena(), w.base(0) + 1, 10), KVMM_ESEALED, "sealed page");
    ASSERT_EQ(truncate(swap.c_str(), 0), 0);  // somebody empties the file behind us
    ASSERT_EQ(pinned(0), static_cast<uint32_t>(KVMM_PIN_RECOMPUTE));
    ASSERT_KVMM_OK(kvmm_unpin(pin, nullptr));
    EXPECT_REFUSED(kvmm_arena_clear(w.arena(), w.base(0) + 1, 10), KVMM_ERECOMPUTE, "is gone");
    kvmm_range gone[4] = {};
    size_t count = 0;
    ASSERT_KVMM_OK(kvmm_recompute_ranges(s, gone, 4, &count));
    ASSERT_EQ(count, 1u);
    EXPECT_EQ(gone[0].begin, 0u);
    EXPECT_EQ(gone[0].end, 64u);
    EXPECT_REFUSED(kvmm_sync(s, nullptr), KVMM_OK);
  }));
}

}  // namespace
}  // namespace kvmm_api
