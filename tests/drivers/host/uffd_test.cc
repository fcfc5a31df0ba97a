// SPDX-License-Identifier: Apache-2.0
//
// Opening userfaultfd where it is refused, absent or old; and what the driver says then.
#include <fcntl.h>
#include <linux/userfaultfd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "drivers/host/uapi.h"
#include "tests/drivers/host/fake_kernel.h"
#include "tests/drivers/host/host_rig.h"

namespace kvmm::test {
namespace {

std::optional<int> fails(int os_error) {
  errno = os_error;
  return -1;
}

Result<Uffd> open_uffd(const FakeKernel& kernel) {
  return Uffd::open(*kernel.calls(), uapi::kFeatureMove, uapi::kFeaturePoison);
}

TEST(UffdOpen, RefusalNamesTheWaysToAllowIt) {
  FakeKernel kernel;
  kernel.on_userfaultfd = [](int) { return fails(EPERM); };
  kernel.on_open = [](const char*) { return fails(EACCES); };
  const Holdings before = Holdings::now();
  const Result<Uffd> uffd = open_uffd(kernel);
  ASSERT_EQ(uffd.code(), Errc::kPermission);
  EXPECT_EQ(uffd.error().os_error, EACCES);
  for (const char* way : {"CAP_SYS_PTRACE", "root", "vm.unprivileged_userfaultfd=1",
                          "/dev/userfaultfd", "frames=pinonly"}) {
    EXPECT_NE(uffd.error().detail.find(way), std::string::npos) << way;
  }
  EXPECT_EQ(Holdings::now(), before);
}

TEST(UffdOpen, ContainerWithoutTheDeviceIsARefusalToo) {
  FakeKernel kernel;
  kernel.on_userfaultfd = [](int) { return fails(EPERM); };
  kernel.on_open = [](const char*) { return fails(ENOENT); };
  EXPECT_EQ(open_uffd(kernel).code(), Errc::kPermission);
}

TEST(UffdOpen, TheDeviceServesWhereTheSystemCallIsRefused) {
  FakeKernel kernel;
  kernel.on_userfaultfd = [](int) { return fails(EPERM); };
  bool asked = false;
  kernel.on_open = [&](const char* path) -> std::optional<int> {
    asked = asked || strcmp(path, "/dev/userfaultfd") == 0;
    return {};
  };
  if (access("/dev/userfaultfd", R_OK | W_OK) != 0) {
    GTEST_SKIP() << "no access to /dev/userfaultfd";
  }
  const Result<Uffd> uffd = open_uffd(kernel);
  ASSERT_TRUE(uffd.ok()) << uffd.error().message();
  EXPECT_TRUE(asked);
  EXPECT_NE(fcntl(uffd->fd(), F_GETFL) & O_NONBLOCK, 0);
  EXPECT_NE(fcntl(uffd->fd(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST(UffdOpen, DeviceThatRefusesIsARefusal) {
  FakeKernel kernel;
  kernel.on_userfaultfd = [](int) { return fails(EPERM); };
  kernel.on_open = [](const char*) -> std::optional<int> { return dup(0); };
  kernel.on_ioctl = [](int, unsigned long, void*) { return fails(EPERM); };
  const Holdings before = Holdings::now();
  EXPECT_EQ(open_uffd(kernel).code(), Errc::kPermission);
  kernel.on_ioctl = [](int, unsigned long, void*) { return fails(ENOMEM); };
  EXPECT_EQ(open_uffd(kernel).code(), Errc::kNoMemory);
  EXPECT_EQ(Holdings::now(), before);
}

TEST(UffdOpen, KernelWithoutUserfaultfd) {
  FakeKernel kernel;
  kernel.on_userfaultfd = [](int) { return fails(ENOSYS); };
  kernel.on_open = [](const char*) { return fails(ENOENT); };
  const Result<Uffd> uffd = open_uffd(kernel);
  ASSERT_EQ(uffd.code(), Errc::kNotSupported);
  EXPECT_NE(uffd.error().detail.find("frames=pinonly"), std::string::npos);
}

TEST(UffdOpen, NoDescriptorsLeft) {
  FakeKernel kernel;
  kernel.on_userfaultfd = [](int) { return fails(EMFILE); };
  EXPECT_EQ(open_uffd(kernel).code(), Errc::kLimit);
  kernel.on_userfaultfd = [](int) { return fails(EPERM); };
  kernel.on_open = [](const char*) { return fails(ENFILE); };
  EXPECT_EQ(open_uffd(kernel).code(), Errc::kLimit);
  // The second of the two descriptors.
  int calls = 0;
  kernel.on_userfaultfd = [&](int) { return ++calls == 2 ? fails(EMFILE) : std::nullopt; };
  const Holdings before = Holdings::now();
  EXPECT_EQ(open_uffd(kernel).code(), Errc::kLimit);
  EXPECT_EQ(Holdings::now(), before);
}

TEST(UffdOpen, HandshakeRefused) {
  FakeKernel kernel;
  int calls = 0, fail_at = 1;
  kernel.on_ioctl = [&](int, unsigned long, void*) {
    return ++calls == fail_at ? fails(EINVAL) : std::nullopt;
  };
  const Holdings before = Holdings::now();
  for (fail_at = 1; fail_at <= 2; ++fail_at) {
    calls = 0;
    EXPECT_EQ(open_uffd(kernel).code(), Errc::kInvalid) << fail_at;
  }
  EXPECT_EQ(Holdings::now(), before);
}

TEST(UffdOpen, UserModeOnlyIsNeverAskedFor) {
  FakeKernel kernel;
  int seen = 0;
  kernel.on_userfaultfd = [&](int flags) -> std::optional<int> {
    seen |= flags;
    return {};
  };
  ASSERT_TRUE(open_uffd(kernel).ok());
  EXPECT_EQ(seen, O_CLOEXEC | O_NONBLOCK);
}

TEST(UffdOpen, KernelWithoutMoveOffersShareableFrames) {
  FakeKernel kernel;
  kernel.hide_features(uapi::kFeatureMove);
  HostConfig config;
  config.calls = kernel.calls();
  const auto moving = HostMoveMmu::create(config);
  ASSERT_EQ(moving.code(), Errc::kNotSupported);
  EXPECT_NE(moving.error().detail.find("frames=shareable"), std::string::npos);
  EXPECT_TRUE(HostShareMmu::create(config).ok()) << "as the text promises";
}

TEST(UffdOpen, KernelWithoutMinorFaultsOffersPinning) {
  FakeKernel kernel;
  kernel.hide_features(uapi::kFeatureMinorShmem);
  HostConfig config;
  config.calls = kernel.calls();
  const auto sharing = HostShareMmu::create(config);
  ASSERT_EQ(sharing.code(), Errc::kNotSupported);
  EXPECT_NE(sharing.error().detail.find("frames=pinonly"), std::string::npos);
  EXPECT_TRUE(HostPinMmu::create(config).ok());
}

TEST(UffdOpen, KernelWithoutPoisonOffersPinning) {
  FakeKernel kernel;
  kernel.hide_features(uapi::kFeaturePoison);
  HostConfig config;
  config.calls = kernel.calls();
  for (const Error& e :
       {HostMoveMmu::create(config).error(), HostShareMmu::create(config).error()}) {
    EXPECT_EQ(e.code, Errc::kNotSupported);
    EXPECT_NE(e.detail.find("UFFDIO_POISON"), std::string::npos) << e.detail;
    EXPECT_NE(e.detail.find("frames=pinonly"), std::string::npos) << e.detail;
  }
  EXPECT_TRUE(HostPinMmu::create(config).ok()) << "as the text promises";
}

TEST(UffdOpen, MovableFramesNeedPagemapScan) {
  FakeKernel kernel;
  HostConfig config;
  config.calls = kernel.calls();
  const Holdings before = Holdings::now();
  for (const auto& [os_error, want] :
       {std::pair{ENOENT, Errc::kNotSupported}, std::pair{EACCES, Errc::kPermission}}) {
    kernel.on_open = [e = os_error](const char*) { return fails(e); };
    EXPECT_EQ(HostMoveMmu::create(config).code(), want);
  }
  kernel.on_open = nullptr;
  kernel.on_ioctl = [](int, unsigned long request, void*) {
    return request == uapi::kPagemapScan ? fails(ENOTTY) : std::nullopt;
  };
  const auto mmu = HostMoveMmu::create(config);
  ASSERT_EQ(mmu.code(), Errc::kNotSupported);
  EXPECT_NE(mmu.error().detail.find("frames=shareable"), std::string::npos);
  EXPECT_EQ(Holdings::now(), before);
}

TEST(UffdMessages, OtherEventsAreDropped) {
  FakeKernel kernel;
  const Result<Uffd> uffd = open_uffd(kernel);
  ASSERT_TRUE(uffd.ok());
  int reads = 0;
  kernel.on_read = [&](int, void* buffer, size_t length) -> std::optional<ssize_t> {
    if (++reads == 1) {
      errno = EINTR;
      return -1;
    }
    if (reads > 2 || length < 2 * sizeof(uffd_msg)) {
      errno = EAGAIN;
      return -1;
    }
    auto* m = static_cast<uffd_msg*>(buffer);
    memset(m, 0, 2 * sizeof(*m));
    m[0].event = UFFD_EVENT_REMAP;
    m[1].event = UFFD_EVENT_PAGEFAULT;
    m[1].arg.pagefault.address = 0x123456789;
    m[1].arg.pagefault.flags = UFFD_PAGEFAULT_FLAG_WRITE;
    return 2 * sizeof(*m);
  };
  std::array<FaultEvent, 4> faults;
  ASSERT_EQ(uffd->read_faults(faults), 1U);
  EXPECT_EQ(faults[0].va, VirtAddr(0x123456000));
  EXPECT_TRUE(faults[0].write);
  EXPECT_EQ(faults[0].thread, 0U) << "not asked for: unknown";
}

}  // namespace
}  // namespace kvmm::test
