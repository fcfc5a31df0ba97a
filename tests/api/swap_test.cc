// SPDX-License-Identifier: Apache-2.0
//
// Swap files that cannot be used, fill up, fail or lie: what the engine is told, and that the bytes
// it reads are right all the same.
#include <fcntl.h>
#include <linux/loop.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "tests/api/rig.h"

namespace kvmm_api {
namespace {

class Swap : public ApiTest {
 protected:
  Options with_swap(uint64_t bytes = 64 * kMi) const {
    Options s;
    s.swap = swap_;
    s.swap_bytes = bytes;
    return s;
  }
  // A file system of this size of its own, which goes away with the (child) process.
  testing::AssertionResult mount_small_disk(const std::string& at, const char* options) const {
    if (unshare(CLONE_NEWNS) != 0 ||
        mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("tmpfs", at.c_str(), "tmpfs", 0, options) != 0) {
      return testing::AssertionFailure() << "mount: " << std::strerror(errno);
    }
    return testing::AssertionSuccess();
  }
  const std::string swap_ = folder_.file("swap");
};

// Everything that can be asked for is written, evicted and read back; pages that found no room
// stay resident. Returns how many sessions had room.
void fill_and_check(World& w, uint32_t lanes, uint32_t seed) {
  for (uint32_t lane = 0; lane < lanes; ++lane) {
    ASSERT_NE(w.session(lane), nullptr);
    w.fill(lane, seed);
    ASSERT_KVMM_OK(kvmm_advise(w.session(lane), KVMM_ADVISE_EVICT));
  }
  for (uint32_t lane = 0; lane < lanes; ++lane) {
    EXPECT_TRUE(w.holds(lane, seed));
  }
}

// -------------------------------------------------------------------------------- refused at open

TEST_F(Swap, TwoProcessesOnOneFile) {
  World w;
  ASSERT_KVMM_OK(w.open(with_swap()));
  fill_and_check(w, 2, 1);
  EXPECT_CHILD_OK(in_child([&] {
    World second;
    // Another process: it inherits no lock that would count as its own.
    EXPECT_REFUSED(second.open(with_swap()), KVMM_EBUSY, swap_, "another process",
                   "file of its own");
  }));
  {
    World third;  // another runtime of this process
    EXPECT_REFUSED(third.open(with_swap()), KVMM_EBUSY, swap_);
  }
  EXPECT_REFUSED(kvmm_swapon(w.runtime(), swap_.c_str(), kMi, 0), KVMM_EEXISTS, swap_);
  fill_and_check(w, 2, 2);
}

TEST_F(Swap, AFileThatOthersMayRead) {
  write_file(swap_, "");
  for (const mode_t mode : {0644u, 0660u}) {
    ASSERT_EQ(chmod(swap_.c_str(), mode), 0);
    World w;
    EXPECT_REFUSED(w.open(with_swap()), KVMM_EPERMISSION, "chmod 600 " + swap_);
  }
  ASSERT_EQ(chmod(swap_.c_str(), 0600), 0);
  World w;
  EXPECT_KVMM_OK(w.open(with_swap()));
}

TEST_F(Swap, WhatIsNoSwapFileStaysAsItIs) {
  const std::string precious(8192, 'x');
  write_file(swap_, precious);
  ASSERT_EQ(chmod(swap_.c_str(), 0600), 0);
  {
    World w;
    EXPECT_REFUSED(w.open(with_swap()), KVMM_EINVALID, swap_, "not a swap area", "new file");
  }
  EXPECT_TRUE(read_file(swap_) == precious);

  const std::string fifo = folder_.file("fifo");
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  const struct {
    std::string path;
    kvmm_status status;
  } kCases[] = {
      {folder_.path(), KVMM_EINVALID},        {fifo, KVMM_EINVALID},
      {"/dev/null", KVMM_EINVALID},           {folder_.file("no/such/folder"), KVMM_ENOTFOUND},
      {std::string(256, 'y'), KVMM_EINVALID}, {"a\nb", KVMM_EINVALID}};
  for (const auto& c : kCases) {
    Options o;
    o.swap = c.path;
    World w;
    const kvmm_status s = w.open(o);
    EXPECT_NE(s, KVMM_OK) << c.path;
    EXPECT_EQ(s, c.status) << kvmm_last_error();
    EXPECT_STRNE(kvmm_last_error(), "");
  }
}

TEST_F(Swap, ADeviceThatForgetsTakesEveryPageAndGivesNoWrongOne) {
  Options o;
  o.flags |= KVMM_RUNTIME_VOLATILE;
  World w;
  ASSERT_KVMM_OK(w.open(o));
  ASSERT_KVMM_OK(kvmm_swapon(w.runtime(), "null:a", 64 * kMi, 0));
  w.session(0);
  w.fill(0, 1);
  ASSERT_TRUE(w.send_out(0));
  EXPECT_EQ(w.stat(0).bytes_swapped, w.lane_bytes());
  EXPECT_EQ(signal_of_touch(w.base(0)), SIGBUS);
  EXPECT_FALSE(std::filesystem::exists("null:a"));
}

TEST_F(Swap, ADeviceThatForgetsIsRefusedWhereContentCounts) {
  World w;
  ASSERT_KVMM_OK(w.open(Options()));
  EXPECT_REFUSED(kvmm_swapon(w.runtime(), "null:a", 64 * kMi, 0), KVMM_EINVALID, "null:a",
                 "VOLATILE");
  // Nor by its driver's name over an innocent path.
  const std::string path = folder_.file("plain");
  kvmm_swap_options o = kvmmpp::init<kvmm_swap_options>();
  o.path = path.c_str();
  o.bytes = 64 * kMi;
  o.driver = "null";
  EXPECT_REFUSED(kvmm_swapon_with(w.runtime(), &o), KVMM_EINVALID, path, "VOLATILE");
  EXPECT_TRUE(w.attribute("swap/swap0/path").empty());
}

TEST_F(Swap, AnotherModelsFile) {
  const uint8_t first[32] = {1};
  const uint8_t second[32] = {2};
  Options o;
  o.model = first;
  {
    World w;
    ASSERT_KVMM_OK(w.open(o));
    ASSERT_KVMM_OK(kvmm_swapon(w.runtime(), swap_.c_str(), 64 * kMi, 0));
    fill_and_check(w, 3, 1);
    ASSERT_KVMM_OK(kvmm_sync(w.session(0), nullptr));
    kvmm_arena_options a = kvmmpp::init<kvmm_arena_options>();
    a.model_id = second;
    kvmm_arena* arena = nullptr;
    EXPECT_REFUSED(kvmm_arena_create(w.runtime(), &a, &arena), KVMM_EMODELMISMATCH, swap_,
                   "another file");
    EXPECT_EQ(arena, nullptr);
  }
  const std::string before = read_file(swap_);
  {
    o.model = second;
    World w;
    ASSERT_KVMM_OK(w.open(o));
    EXPECT_REFUSED(kvmm_swapon(w.runtime(), swap_.c_str(), 64 * kMi, 0), KVMM_EMODELMISMATCH,
                   swap_);
    fill_and_check(w, 1, 2);
  }
  EXPECT_TRUE(read_file(swap_) == before) << "nothing of the first model's is lost";
  o.model = first;
  World w;
  ASSERT_KVMM_OK(w.open(o));
  ASSERT_KVMM_OK(kvmm_swapon(w.runtime(), swap_.c_str(), 64 * kMi, 0));
  fill_and_check(w, 3, 3);
}

TEST_F(Swap, AFileSystemThatRefusesDirectIo) {
#ifdef KVMM_NO_DIRECT_FS
  const std::string at = folder_.file("fuse");
  ASSERT_EQ(mkdir(at.c_str(), 0755), 0);
  // Goes into the background when it is mounted.
  if (std::system((std::string(KVMM_NO_DIRECT_FS) + " " + at + " 2>/dev/null").c_str()) != 0) {
    GTEST_SKIP() << "api_no_direct_fs: no FUSE mount is possible here";
  }
  {
    Options o;
    World w;
    EXPECT_KVMM_OK(w.open(o));
    for (const char* name : {"/there", "/new"}) {
      EXPECT_REFUSED(kvmm_swapon(w.runtime(), (at + name).c_str(), 64 * kMi, 0), KVMM_ENOTSUPPORTED,
                     at + name, "O_DIRECT", "ext4");
    }
    EXPECT_NE(access((at + "/new").c_str(), F_OK), 0);
    EXPECT_KVMM_OK(kvmm_swapon(w.runtime(), swap_.c_str(), 64 * kMi, 0));
  }
  EXPECT_EQ(umount2(at.c_str(), MNT_DETACH), 0);
#else
  GTEST_SKIP() << "api_no_direct_fs: libfuse3-dev is not installed";
#endif
}

// ----------------------------------------------------------------------------------------- full

TEST_F(Swap, AFullAreaKeepsPagesInMemoryAndAnotherOneHelps) {
  const Ended e = in_child([&] {
    Options o = with_swap(5 * kMi);
    o.lanes = 8;
    o.dram = 8 * kMi;
    World w;
    ASSERT_KVMM_OK(w.open(o));
    fill_and_check(w, 3, 1);  // 6 MiB: they fit memory, half of them swap
    kvmm_status s = KVMM_OK;
    for (uint32_t lane = 0; lane < 3; ++lane) {
      const kvmm_status r = kvmm_sync(w.session(lane), nullptr);
      s = r == KVMM_OK ? s : r;
    }
    EXPECT_EQ(s, KVMM_ENOSPACE);
    EXPECT_NE(std::string(kvmm_last_error()), "");
    EXPECT_GT(w.counter("swap_full"), 0u);
    ASSERT_KVMM_OK(kvmm_swapon(w.runtime(), folder_.file("more").c_str(), 64 * kMi, 0));
    fill_and_check(w, 8, 2);  // 16 MiB
    EXPECT_KVMM_OK(kvmm_sync(w.session(0), nullptr));
  });
  EXPECT_EQ(e.exit, 0) << e.out;
  EXPECT_NE(e.out.find("the swap areas are full"), std::string::npos) << e.out;
  EXPECT_NE(e.out.find("swapon"), std::string::npos) << e.out;
}

TEST_F(Swap, WhatFitsNeitherMemoryNorSwapIsSigbusAndALine) {
  const Ended e = in_child([&] {
    Options o = with_swap(5 * kMi);
    o.lanes = 8;
    World w;
    ASSERT_KVMM_OK(w.open(o));
    int signal = 0;
    for (uint64_t page = 0; page < 8 * 32 && signal == 0; ++page) {
      const auto lane = static_cast<uint32_t>(page / 32);
      ASSERT_NE(w.session(lane), nullptr);
      const int pipe = open("/dev/zero", O_RDONLY | O_CLOEXEC);
      const ssize_t n = read(pipe, w.base(lane) + page % 32 * 64 * kKi, 64 * kKi);  // writes it
      close(pipe);
      signal = n == 64 * 1024 ? 0 : signal_of_touch(w.base(lane) + page % 32 * 64 * kKi);
    }
    EXPECT_EQ(signal, SIGBUS);
    EXPECT_GT(w.counter("no_memory"), 0u);
  });
  EXPECT_EQ(e.exit, 0) << "signal " << e.signal << e.out;
  EXPECT_NE(e.out.find("no frame can be had"), std::string::npos) << e.out;
  EXPECT_NE(e.out.find("add memory or a swap area"), std::string::npos) << e.out;
}

TEST_F(Swap, ADiskThatIsFullWhileTheFileGrows) {
  const std::string at = folder_.file("disk");
  ASSERT_EQ(mkdir(at.c_str(), 0755), 0);
  const Ended e = in_child([&] {
    ASSERT_TRUE(mount_small_disk(at, "size=4m"));
    Options o;
    o.lanes = 8;
    o.dram = 8 * kMi;
    World w;
    ASSERT_KVMM_OK(w.open(o));
    const std::string path = at + "/swap";
    const kvmm_status s = kvmm_swapon(w.runtime(), path.c_str(), 64 * kMi, 0);
    if (s == KVMM_ENOTSUPPORTED || s == KVMM_EINVALID) {
      std::printf("no O_DIRECT on tmpfs\n");
      return;
    }
    ASSERT_EQ(s, KVMM_OK) << kvmm_last_error();
    fill_and_check(w, 3, 1);
    EXPECT_EQ(kvmm_sync(w.session(0), nullptr) == KVMM_OK &&
                  kvmm_sync(w.session(1), nullptr) == KVMM_OK &&
                  kvmm_sync(w.session(2), nullptr) == KVMM_OK,
              false)
        << "6 MiB do not fit";
    ASSERT_KVMM_OK(kvmm_swapon(w.runtime(), swap_.c_str(), 64 * kMi, 0));
    fill_and_check(w, 8, 2);
    ASSERT_KVMM_OK(kvmm_swapoff(w.runtime(), path.c_str()));
    for (uint32_t lane = 0; lane < 8; ++lane) {
      EXPECT_TRUE(w.holds(lane, 2));
      EXPECT_KVMM_OK(kvmm_sync(w.session(lane), nullptr));
    }
  });
  EXPECT_EQ(e.exit, 0) << e.out << " signal " << e.signal;
  if (e.out.find("no O_DIRECT") != std::string::npos) {
    GTEST_SKIP() << "api_small_disk: tmpfs of this kernel refuses O_DIRECT";
  }
}

TEST_F(Swap, TheLimitOfFileSizesIsNoSpaceAndNoSignal) {
  EXPECT_CHILD_OK(in_child([&] {
    const rlimit limit{8 * kMi, 8 * kMi};
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
    Options o;
    World w;
    ASSERT_KVMM_OK(w.open(o));
    EXPECT_REFUSED(kvmm_swapon(w.runtime(), swap_.c_str(), 64 * kMi, 0), KVMM_ENOSPACE, "ulimit -f",
                   swap_);
    EXPECT_NE(access(swap_.c_str(), F_OK), 0);
    EXPECT_KVMM_OK(kvmm_swapon(w.runtime(), swap_.c_str(), 8 * kMi, 0));
    fill_and_check(w, 3, 1);
  }));
}

}  // namespace
}  // namespace kvmm_api
