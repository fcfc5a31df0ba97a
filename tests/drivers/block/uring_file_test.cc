// SPDX-License-Identifier: Apache-2.0
//
// What the uring driver does with files and devices that it may, must not, or can no longer use.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "drivers/uring/uring_driver.h"
#include "tests/drivers/block/block_rig.h"

namespace kvmm {
namespace {

class UringFile : public testing::Test {
 protected:
  Result<std::unique_ptr<Device>> bind(const std::string& path, const std::string& options) {
    return make_uring_driver()->bind(file_info(path, options), nullptr);
  }
  Error refusal(const std::string& path, const std::string& options) {
    auto device = bind(path, options);
    if (device.ok()) {
      ADD_FAILURE() << path << " was taken";
      return Errc::kInvalid;
    }
    EXPECT_NE(device.error().detail.find(path), std::string::npos) << device.error().message();
    return device.error();
  }
  void make_file(const std::string& path, off_t size, mode_t mode = 0600) {
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, mode);
    ASSERT_GE(fd, 0);
    ASSERT_EQ(::ftruncate(fd, size), 0);
    ::close(fd);
  }
  static off_t size_of(const std::string& path) {
    struct stat s {};
    return ::stat(path.c_str(), &s) == 0 ? s.st_size : -1;
  }

  TestFolder folder_;
  std::string path_ = folder_.file("swap");
};

TEST_F(UringFile, ProbesFilesWithAPath) {
  auto driver = make_uring_driver();
  EXPECT_TRUE(driver->probe(file_info("/x", "")));
  EXPECT_FALSE(driver->probe(file_info("", "")));
  EXPECT_FALSE(driver->probe(block_info("sim", "")));
  DeviceInfo memory = file_info("/x", "");
  memory.cls = DeviceClass::kMemory;
  EXPECT_FALSE(driver->probe(memory));
  EXPECT_EQ(driver->bind(block_info("file", "size=1M"), nullptr).code(), Errc::kInvalid);
}

TEST_F(UringFile, CreatesAPrivateSparseFile) {
  auto device = bind(path_, "size=64M,depth=4");
  ASSERT_TRUE(device.ok()) << device.error().message();
  struct stat s {};
  ASSERT_EQ(::stat(path_.c_str(), &s), 0);
  EXPECT_EQ(s.st_mode & 07777, 0600u);
  EXPECT_EQ(s.st_size, 64 << 20);
  EXPECT_LT(s.st_blocks * 512, 1 << 20);
  EXPECT_EQ((*device)->block()->info().depth, 4u);
  EXPECT_STREQ((*device)->driver_name(), "uring");
}

TEST_F(UringFile, PreallocatesOnRequest) {
  auto device = bind(path_, "size=4M,prealloc=1");
  ASSERT_TRUE(device.ok()) << device.error().message();
  struct stat s {};
  ASSERT_EQ(::stat(path_.c_str(), &s), 0);
  EXPECT_GE(s.st_blocks * 512, 4 << 20);
  ASSERT_TRUE((*device)->block()->resize(mib(8)).ok());
  ASSERT_EQ(::stat(path_.c_str(), &s), 0);
  EXPECT_GE(s.st_blocks * 512, 8 << 20);
  device = Errc::kClosed;
  make_file(folder_.file("sparse"), 2 << 20);
  ASSERT_TRUE(bind(folder_.file("sparse"), "prealloc=1").ok());
  ASSERT_EQ(::stat(folder_.file("sparse").c_str(), &s), 0);
  EXPECT_GE(s.st_blocks * 512, 2 << 20) << "holes of an older file are filled";
}

TEST_F(UringFile, TakesTheSizeOfAnOlderFileAndItsContent) {
  Buffer out(4096, 8);
  {
    BlockRig rig;
    rig.device = bind_or_fail(make_uring_driver(), file_info(path_, "size=4M"));
    ASSERT_EQ(rig.run(BlockOp::kWrite, &out, kMiB, 4096), Errc::kOk);
  }
  for (const char* options : {"", "size=1M"}) {
    BlockRig rig;
    rig.device = bind_or_fail(make_uring_driver(), file_info(path_, options));
    ASSERT_NE(rig.device, nullptr);
    EXPECT_EQ(rig.block().info().capacity, mib(4)) << "it never shrinks";
    Buffer in(4096, 1);
    ASSERT_EQ(rig.run(BlockOp::kRead, &in, kMiB, 4096), Errc::kOk);
    EXPECT_TRUE(in == out);
  }
  DeviceInfo info = file_info(path_, "");
  info.capacity = mib(6);
  auto device = make_uring_driver()->bind(info, nullptr);
  ASSERT_TRUE(device.ok());
  EXPECT_EQ((*device)->block()->info().capacity, mib(6));
}

TEST_F(UringFile, RoundsAnOddFileDown) {
  make_file(path_, (1 << 20) + 100);
  auto device = bind(path_, "");
  ASSERT_TRUE(device.ok()) << device.error().message();
  EXPECT_EQ((*device)->block()->info().capacity, mib(1));
}

TEST_F(UringFile, RefusesToGuessASize) {
  EXPECT_EQ(refusal(path_, "").code, Errc::kInvalid);
  EXPECT_EQ(size_of(path_), -1) << "the file that it had made is gone";
  make_file(path_, 0);
  EXPECT_EQ(refusal(path_, "").code, Errc::kInvalid);
  EXPECT_EQ(refusal(path_, "size=1000").code, Errc::kInvalid) << "not aligned";
  EXPECT_EQ(size_of(path_), 0) << "a file that was there stays";
}

TEST_F(UringFile, RefusesBadOptions) {
  for (const char* options :
       {"depth=0", "depth=4097", "size=-1", "prealloc=2", "dpeth=1", "size"}) {
    EXPECT_EQ(bind(path_, options).code(), Errc::kInvalid) << options;
  }
  EXPECT_EQ(size_of(path_), -1);
  auto below = bind(path_, "size=1M");
  EXPECT_EQ(make_uring_driver()->bind(file_info(path_, ""), std::move(*below)).code(),
            Errc::kInvalid);
}

TEST_F(UringFile, RefusesWhatIsNoFile) {
  EXPECT_EQ(refusal(folder_.path(), "size=1M").code, Errc::kInvalid) << "a folder";
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  EXPECT_EQ(refusal(path_, "size=1M").code, Errc::kInvalid) << "a FIFO, without waiting on it";
  EXPECT_EQ(refusal("/dev/null", "size=1M").code, Errc::kInvalid) << "a character device";
  EXPECT_EQ(refusal(folder_.file("no/such/folder"), "size=1M").code, Errc::kNotFound);
  ASSERT_EQ(::symlink(folder_.file("loop").c_str(), folder_.file("loop").c_str()), 0);
  EXPECT_EQ(refusal(folder_.file("loop"), "size=1M").code, Errc::kNotFound);
}

TEST_F(UringFile, FollowsASymbolicLink) {
  make_file(path_, 1 << 20);
  const std::string link = folder_.file("link");
  ASSERT_EQ(::symlink(path_.c_str(), link.c_str()), 0);
  auto device = bind(link, "");
  ASSERT_TRUE(device.ok()) << device.error().message();
  EXPECT_EQ(refusal(path_, "").code, Errc::kBusy) << "it is the same file";
}

TEST_F(UringFile, AFailedBindRemovesNoLink) {
  const std::string link = folder_.file("link");
  ASSERT_EQ(::symlink(path_.c_str(), link.c_str()), 0);
  EXPECT_EQ(refusal(link, "").code, Errc::kInvalid);
  struct stat s {};
  EXPECT_EQ(::lstat(link.c_str(), &s), 0);
}

TEST_F(UringFile, NoPermission) {
  make_file(path_, 1 << 20, 0400);
  ASSERT_EQ(::chmod(folder_.path().c_str(), 0755), 0);
  const int status = in_child([&] {
    if (::geteuid() == 0 && (::setgid(65534) != 0 || ::setuid(65534) != 0)) {
      return 2;
    }
    auto device = make_uring_driver()->bind(file_info(path_, ""), nullptr);
    return device.code() == Errc::kPermission && device.error().os_error == EACCES ? 0 : 1;
  });
  EXPECT_EQ(status, 0);
}

// ------------------------------------------------------------------------------------ one user

TEST_F(UringFile, RefusesWhatOtherUsersMayRead) {
  make_file(path_, 1 << 20);
  for (const mode_t mode : {0644u, 0640u, 0602u, 0777u}) {
    ASSERT_EQ(::chmod(path_.c_str(), mode), 0);
    const Error e = refusal(path_, "size=1M");
    EXPECT_EQ(e.code, Errc::kPermission);
    EXPECT_NE(e.detail.find("chmod 600 " + path_), std::string::npos) << e.detail;
    EXPECT_EQ(size_of(path_), 1 << 20) << "as it was";
  }
  ASSERT_EQ(::chmod(path_.c_str(), 0600), 0);
  if (::geteuid() == 0) {
    ASSERT_EQ(::chown(path_.c_str(), 65534, 65534), 0);
    const Error e = refusal(path_, "size=1M");
    EXPECT_EQ(e.code, Errc::kPermission);
    EXPECT_NE(e.detail.find("chown"), std::string::npos) << e.detail;
    ASSERT_EQ(::chown(path_.c_str(), 0, 0), 0);
  }
  EXPECT_TRUE(bind(path_, "size=1M").ok());
}

TEST_F(UringFile, ASecondUserOfThisProcessIsRefused) {
  auto first = bind(path_, "size=1M");
  ASSERT_TRUE(first.ok());
  const Error e = refusal(path_, "size=2M");
  EXPECT_EQ(e.code, Errc::kBusy);
  EXPECT_EQ(size_of(path_), 1 << 20) << "the refused one changed nothing";
  const std::string hard = folder_.file("hard");
  ASSERT_EQ(::link(path_.c_str(), hard.c_str()), 0);
  EXPECT_EQ(refusal(hard, "").code, Errc::kBusy) << "by another name";
  first = Errc::kClosed;
  EXPECT_TRUE(bind(path_, "").ok()) << "free again";
}

TEST_F(UringFile, ASecondProcessIsRefused) {
  auto mine = bind(path_, "size=1M");
  ASSERT_TRUE(mine.ok());
  EXPECT_EQ(in_child([&] {
              auto device = make_uring_driver()->bind(file_info(path_, ""), nullptr);
              return device.code() == Errc::kBusy ? 0 : 1;
            }),
            0);
}

TEST_F(UringFile, AForkedChildDoesNotKeepTheLock) {
  auto mine = bind(path_, "size=1M");
  ASSERT_TRUE(mine.ok());
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  const pid_t child = ::fork();
  if (child == 0) {  // holds every descriptor of the parent until told to go
    char c;
    ::close(ends[0]);
    ::_exit(::read(ends[1], &c, 1) >= 0 ? 0 : 1);
  }
  ::close(ends[1]);
  mine = Errc::kClosed;
  auto again = bind(path_, "");
  EXPECT_TRUE(again.ok()) << again.error().message();
  ::close(ends[0]);
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
}

// -------------------------------------------------------------------- trouble while it is in use

TEST_F(UringFile, TruncatedUnderneathIsAnIoError) {
  BlockRig rig;
  rig.device = bind_or_fail(make_uring_driver(), file_info(path_, "size=1M"));
  const uint64_t unit = rig.block().info().alignment.value();
  ASSERT_EQ(::truncate(path_.c_str(), static_cast<off_t>(512 * kKiB + unit / 2)), 0);
  Buffer b(256 * kKiB, 1);
  BlockRequest behind = rig.request(BlockOp::kRead, &b, 768 * kKiB, 64 * kKiB);
  EXPECT_EQ(rig.run(behind), Errc::kIo);
  EXPECT_EQ(behind.os_error, ENODATA);
  EXPECT_EQ(rig.run(BlockOp::kRead, &b, 448 * kKiB, 128 * kKiB), Errc::kIo) << "ends inside";
  EXPECT_EQ(rig.run(BlockOp::kRead, &b, 0, 256 * kKiB), Errc::kOk) << "the rest is there";
}

TEST_F(UringFile, FileSizeLimitIsNoSpaceAndNoSignal) {
  EXPECT_EQ(
      in_child([&] {
        const struct rlimit limit = {2 << 20, 2 << 20};
        if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) {
          return 1;
        }
        auto large = make_uring_driver()->bind(file_info(path_, "size=4M"), nullptr);
        if (large.code() != Errc::kNoSpace || ::access(path_.c_str(), F_OK) == 0) {
          return 2;
        }
        auto device = make_uring_driver()->bind(file_info(path_, "size=2M"), nullptr);
        if (!device.ok()) {
          return 3;
        }
        BlockRig rig;
        rig.device = std::move(*device);
        BlockOps& block = rig.block();
        if (rig.run(BlockOp::kGrow, nullptr, 2 << 20, 1 << 20) != Errc::kNoSpace) {
          return 5;
        }
        return block.resize(mib(3)).code() == Errc::kNoSpace && block.info().capacity == mib(2) ? 0
                                                                                                : 4;
      }),
      0);
}

// A small ext4 on a loop device, mounted.
class UringSmallDisk : public UringFile {
 protected:
  void SetUp() override {
    const std::string image = folder_.file("image");
    make_file(image, 16 << 20);
    mount_point_ = folder_.file("mnt");
    ASSERT_EQ(::mkdir(mount_point_.c_str(), 0755), 0);
    std::string why;
    loop_ = attach_loop(image, why);
    if (loop_.empty()) {
      GTEST_SKIP() << "uring_small_disk: " << why;
    }
    const std::string format = "mkfs.ext4 -q -F -O ^has_journal -m 0 " + loop_ + " >/dev/null 2>&1";
    if (std::system(format.c_str()) != 0) {
      GTEST_SKIP() << "uring_small_disk: mkfs.ext4 does not work here";
    }
    if (::mount(loop_.c_str(), mount_point_.c_str(), "ext4", 0, nullptr) != 0) {
      GTEST_SKIP() << "uring_small_disk: mount: " << std::strerror(errno);
    }
    mounted_ = true;
  }
  void TearDown() override {
    if (mounted_) {
      EXPECT_EQ(::umount(mount_point_.c_str()), 0) << std::strerror(errno);
    }
    if (!loop_.empty()) {
      detach_loop(loop_);
    }
  }
  std::string mount_point_, loop_;
  bool mounted_ = false;
};

TEST_F(UringSmallDisk, AFullDiskIsNoSpaceForASparseFile) {
  BlockRig rig;
  rig.device = bind_or_fail(make_uring_driver(), file_info(mount_point_ + "/swap", "size=64M"));
  ASSERT_NE(rig.device, nullptr);
  Buffer b(kMiB, 1);
  uint64_t written = 0;
  BlockRequest r;
  do {
    r = rig.request(BlockOp::kWrite, &b, written, kMiB);
    written += kMiB;
  } while (rig.run(r) == Errc::kOk && written < 64 * kMiB);
  EXPECT_EQ(r.result, Errc::kNoSpace);
  EXPECT_EQ(r.os_error, ENOSPC);
  EXPECT_LE(written, 17 * kMiB);
  Buffer in(kMiB, 2);
  EXPECT_EQ(rig.run(BlockOp::kRead, &in, 0, kMiB), Errc::kOk);
  EXPECT_TRUE(in == b) << "what was acknowledged is intact";
  ASSERT_EQ(rig.run(BlockOp::kDiscard, nullptr, 0, 4 * kMiB), Errc::kOk);
  EXPECT_EQ(rig.run(BlockOp::kWrite, &b, 0, kMiB), Errc::kOk) << "a discard gives space back";
  rig.device.reset();
}

TEST_F(UringSmallDisk, AFullDiskIsKnownBeforeAnythingIsWritten) {
  BlockRig rig;
  const std::string path = mount_point_ + "/swap";
  rig.device = bind_or_fail(make_uring_driver(), file_info(path, "size=64K"));
  ASSERT_NE(rig.device, nullptr);
  ASSERT_EQ(rig.run(BlockOp::kGrow, nullptr, 64 * kKiB, kMiB), Errc::kOk);
  BlockRequest r = rig.request(BlockOp::kGrow, nullptr, 64 * kKiB + kMiB, 64 * kMiB);
  EXPECT_EQ(rig.run(r), Errc::kNoSpace);
  EXPECT_EQ(r.os_error, ENOSPC);
  EXPECT_EQ(rig.block().info().capacity.value(), 64 * kKiB + kMiB);
  Buffer b(kMiB, 1);
  EXPECT_EQ(rig.run(BlockOp::kWrite, &b, 64 * kKiB, kMiB), Errc::kOk) << "what it has, it has";
  rig.device.reset();
}

TEST_F(UringSmallDisk, AFullDiskRefusesPreallocation) {
  const std::string path = mount_point_ + "/swap";
  const Error e = refusal(path, "size=64M,prealloc=1");
  EXPECT_EQ(e.code, Errc::kNoSpace);
  EXPECT_EQ(size_of(path), -1) << "the file that it had made is gone";
  auto device = bind(path, "size=4M,prealloc=1");
  ASSERT_TRUE(device.ok()) << device.error().message();
  EXPECT_EQ((*device)->block()->resize(mib(64)).code(), Errc::kNoSpace);
  EXPECT_EQ((*device)->block()->info().capacity, mib(4));
  EXPECT_EQ(size_of(path), 4 << 20);
}

TEST_F(UringSmallDisk, AMountedDeviceIsRefused) {
  EXPECT_EQ(refusal(loop_, "").code, Errc::kBusy);
}

// ------------------------------------------------------------------------------- block devices

class UringDeviceNode : public UringFile {
 protected:
  void SetUp() override {
    image_ = folder_.file("image");
    make_file(image_, 8 << 20);
    std::string why;
    loop_ = attach_loop(image_, why);
    if (loop_.empty()) {
      GTEST_SKIP() << "uring_device_node: " << why;
    }
  }
  void TearDown() override {
    if (!loop_.empty()) {
      detach_loop(loop_);
    }
  }
  std::string image_, loop_;
};

TEST_F(UringDeviceNode, AllOfItOrAPart) {
  EXPECT_EQ(bind_or_fail(make_uring_driver(), file_info(loop_, ""))->block()->info().capacity,
            mib(8));
  EXPECT_EQ(
      bind_or_fail(make_uring_driver(), file_info(loop_, "size=2M"))->block()->info().capacity,
      mib(2));
  EXPECT_EQ(refusal(loop_, "size=9M").code, Errc::kInvalid);
  EXPECT_EQ(size_of(image_), 8 << 20);
}

TEST_F(UringDeviceNode, GrowsOnlyIntoWhatIsThere) {
  auto device = bind(loop_, "size=2M");
  ASSERT_TRUE(device.ok());
  EXPECT_TRUE((*device)->block()->resize(mib(8)).ok());
  EXPECT_EQ((*device)->block()->resize(mib(16)).code(), Errc::kNotSupported);
}

TEST_F(UringDeviceNode, HasOneUser) {
  auto first = bind(loop_, "");
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(refusal(loop_, "").code, Errc::kBusy);
}

TEST_F(UringDeviceNode, ADiscardReachesTheDevice) {
  BlockRig rig;
  rig.device = bind_or_fail(make_uring_driver(), file_info(loop_, ""));
  if (!rig.block().info().discards) {
    GTEST_SKIP() << "uring_device_discard: this file system's loop devices have no discard";
  }
  const auto blocks = [&] {
    struct stat s {};
    EXPECT_EQ(::stat(image_.c_str(), &s), 0);
    return s.st_blocks;
  };
  Buffer b(4 * kMiB, 1);
  ASSERT_EQ(rig.run(BlockOp::kWrite, &b, 0, b.size()), Errc::kOk);
  ASSERT_EQ(rig.run(BlockOp::kFlush, nullptr, 0, 0), Errc::kOk);
  const auto full = blocks();
  EXPECT_EQ(rig.run(BlockOp::kDiscard, nullptr, kMiB, 2 * kMiB), Errc::kOk);
  EXPECT_LE(blocks() * 512, full * 512 - (1 << 20));
  rig.device.reset();
}

TEST_F(UringDeviceNode, AnErrorOfTheDeviceIsIo) {
  BlockRig rig;
  rig.device = bind_or_fail(make_uring_driver(), file_info(loop_, ""));
  ASSERT_EQ(::truncate(image_.c_str(), 1 << 20), 0);  // the loop device answers EIO behind it
  Buffer b(64 * kKiB, 1);
  BlockRequest r = rig.request(BlockOp::kRead, &b, 4 * kMiB, b.size());
  EXPECT_EQ(rig.run(r), Errc::kIo);
  EXPECT_EQ(r.os_error, EIO);
  EXPECT_EQ(rig.run(BlockOp::kRead, &b, 0, b.size()), Errc::kOk);
  rig.device.reset();
}

// ------------------------------------------------------------------- no direct I/O, for real

TEST_F(UringFile, AFileSystemWithoutDirectIo) {
#ifdef KVMM_NO_DIRECT_FS
  const std::string mount_point = folder_.file("fuse");
  ASSERT_EQ(::mkdir(mount_point.c_str(), 0755), 0);
  // Goes into the background when it is mounted.
  const std::string serve = std::string(KVMM_NO_DIRECT_FS) + " " + mount_point + " 2>/dev/null";
  if (std::system(serve.c_str()) != 0) {
    GTEST_SKIP() << "uring_no_direct_fs: no FUSE mount is possible here";
  }
  const Error there = refusal(mount_point + "/there", "size=1M");
  const Error created = refusal(mount_point + "/new", "size=1M");
  const bool left_behind = ::access((mount_point + "/new").c_str(), F_OK) == 0;
  EXPECT_EQ(::umount2(mount_point.c_str(), MNT_DETACH), 0);
  for (const Error& e : {there, created}) {
    EXPECT_EQ(e.code, Errc::kNotSupported) << e.message();
    EXPECT_NE(e.detail.find("ext4"), std::string::npos) << "says what to do";
  }
  EXPECT_FALSE(left_behind) << "the file that open(2) had made is gone";
#else
  GTEST_SKIP() << "uring_no_direct_fs: libfuse3-dev is not installed";
#endif
}

}  // namespace
}  // namespace kvmm
