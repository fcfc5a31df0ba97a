// SPDX-License-Identifier: Apache-2.0
//
// Set-up of the host's MMUs where the system refuses something: a typed error, and nothing is kept.
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "drivers/driver.h"
#include "drivers/host/host_driver.h"
#include "drivers/host/uapi.h"
#include "drivers/topology.h"
#include "tests/drivers/host/fake_kernel.h"
#include "tests/drivers/host/host_rig.h"

namespace kvmm::test {
namespace {

constexpr Bytes kSize = kib(64);

std::optional<int> fails(int os_error) {
  errno = os_error;
  return -1;
}

DeviceInfo node0(const std::string& options = "") {
  DeviceInfo d;
  d.name = "node0";
  d.bus = "numa";
  d.options = options;
  return d;
}

TEST(HostSetup, MemoryIsHiddenFromChildrenAndDumps) {
  for (const Bytes size : {kSize, mib(2)}) {
    const auto mmu = make_mmu<HostMoveMmu>();
    const AddressRange range = *mmu->reserve(size, size, size);
    const FrameArea area = *mmu->create_frames(size, 1, NodeId(0));
    for (const uint64_t a : {range.start.value(), area.base.value()}) {
      EXPECT_TRUE(smaps_flag(a, "dc")) << "MADV_DONTFORK";
      EXPECT_TRUE(smaps_flag(a, "dd")) << "MADV_DONTDUMP";
      EXPECT_TRUE(smaps_flag(a, "um")) << "registered for missing pages";
      EXPECT_EQ(smaps_flag(a, "hg"), size == mib(2));
      EXPECT_EQ(smaps_flag(a, "nh"), size != mib(2));
    }
    EXPECT_EQ(range.start.value() % size.value(), 0U);
    EXPECT_GE(smaps_kib(area.base.value(), "Rss"), static_cast<long>(size.value() / kKiB))
        << "frames are populated";
  }
  const auto mmu = make_mmu<HostShareMmu>();
  const AddressRange range = *mmu->reserve(kSize, kSize, kSize);
  for (const uint64_t a : {range.start.value(), mmu->fixed_frame(range.start).value()}) {
    EXPECT_TRUE(smaps_flag(a, "dc"));
    EXPECT_TRUE(smaps_flag(a, "dd"));
  }
  EXPECT_EQ(smaps_kib(mmu->fixed_frame(range.start).value(), "Rss"), 0) << "no memory yet";
}

TEST(HostSetup, AlignmentIsAsAsked) {
  const auto mmu = make_mmu<HostMoveMmu>();
  for (const Bytes align : {kib(4), kib(64), mib(2), mib(32)}) {
    const Result<AddressRange> r = mmu->reserve(align * 2, align, kib(4));
    ASSERT_TRUE(r.ok());
    EXPECT_EQ(r->start.value() % align.value(), 0U);
    EXPECT_EQ(r->length, align * 2);
    mmu->release(*r);
  }
}

// Every step of a set-up fails in turn; what was made before it is given back.
template <class Make>
void fail_each_step(FakeKernel& kernel, Make make) {
  const Holdings before = Holdings::now();
  const auto nth = [](int& left, int os_error) -> std::optional<int> {
    return left-- == 0 ? fails(os_error) : std::nullopt;
  };
  int failed = 0;
  for (int at = 0; at < 16; ++at) {
    int left = at;
    kernel.on_madvise = [&](uint64_t, size_t, int) { return nth(left, ENOMEM); };
    const Errc code = make();
    failed += code == Errc::kNoMemory ? 1 : 0;
    EXPECT_TRUE(code == Errc::kOk || code == Errc::kNoMemory) << errc_name(code);
    EXPECT_EQ(Holdings::now(), before) << "madvise call " << at;
  }
  EXPECT_GE(failed, 2);
  kernel.on_madvise = nullptr;
  for (int at = 0; at < 2; ++at) {
    int left = at;
    bool hit = false;
    kernel.on_mmap = [&](size_t, int) -> std::optional<void*> {
      if (left-- != 0) {
        return {};
      }
      hit = true;
      errno = ENOMEM;
      return MAP_FAILED;
    };
    const Errc code = make();
    EXPECT_EQ(code, hit ? Errc::kNoMemory : Errc::kOk) << "mmap call " << at;
    EXPECT_EQ(Holdings::now(), before);
  }
  kernel.on_mmap = nullptr;
  kernel.on_ioctl = [](int, unsigned long request, void*) {
    return request == UFFDIO_REGISTER ? fails(ENOMEM) : std::nullopt;
  };
  EXPECT_EQ(make(), Errc::kNoMemory);
  kernel.on_ioctl = nullptr;
  kernel.on_bind_node = [](uint64_t, size_t, unsigned) { return fails(EINVAL); };
  EXPECT_EQ(make(), Errc::kInvalid) << "no such node";
  EXPECT_EQ(Holdings::now(), before);
  kernel.on_bind_node = [](uint64_t, size_t, unsigned) { return fails(EPERM); };
  EXPECT_EQ(make(), Errc::kOk) << "a container that forbids policies still has memory";
  EXPECT_EQ(Holdings::now(), before);
  kernel.on_bind_node = nullptr;
}

TEST(HostSetup, FailedReservationsAndFramesKeepNothing) {
  FakeKernel kernel;
  kernel.on_bind_node = [](uint64_t, size_t, unsigned) { return std::optional<int>(0); };
  HostConfig config;
  config.calls = kernel.calls();
  config.numa_nodes = 2;
  {
    const auto mmu = make_mmu<HostMoveMmu>(config);
    const auto reserve = [&] {
      const Result<AddressRange> r = mmu->reserve(kSize, kSize, kSize);
      if (r.ok()) {
        mmu->release(*r);
      }
      return r.code();
    };
    const auto create = [&] {
      const Result<FrameArea> a = mmu->create_frames(kSize, 2, NodeId(0));
      if (a.ok()) {
        mmu->destroy_frames(*a);
      }
      return a.code();
    };
    EXPECT_EQ(reserve(), Errc::kOk);  // what the first use allocates for good
    EXPECT_EQ(create(), Errc::kOk);
    fail_each_step(kernel, reserve);
    fail_each_step(kernel, create);
  }
  kernel.on_bind_node = [](uint64_t, size_t, unsigned) { return std::optional<int>(0); };
  const auto mmu = make_mmu<HostShareMmu>(config);
  const auto reserve = [&] {
    const Result<AddressRange> r = mmu->reserve(kSize, kSize, kSize);
    if (r.ok()) {
      mmu->release(*r);
    }
    return r.code();
  };
  EXPECT_EQ(reserve(), Errc::kOk);
  fail_each_step(kernel, reserve);
  const Holdings before = Holdings::now();
  kernel.on_memfd_create = [] { return fails(EMFILE); };
  EXPECT_EQ(reserve(), Errc::kLimit);
  kernel.on_memfd_create = nullptr;
  kernel.on_ftruncate = [] { return fails(ENOSPC); };
  EXPECT_EQ(reserve(), Errc::kNoSpace);
  EXPECT_EQ(Holdings::now(), before);
}

TEST(HostSetup, RangesAreBoundToTheDevicesNodeAndFramesToTheirs) {
  FakeKernel kernel;
  std::map<unsigned, uint64_t> bound;
  kernel.on_bind_node = [&](uint64_t, size_t length, unsigned node) -> std::optional<int> {
    bound[node] += length;
    return 0;
  };
  HostConfig config;
  config.calls = kernel.calls();
  config.node = NodeId(1);
  config.numa_nodes = 2;
  const auto mmu = make_mmu<HostMoveMmu>(config);
  bound.clear();
  ASSERT_TRUE(mmu->reserve(kSize, kSize, kSize).ok());
  EXPECT_EQ(bound, (std::map<unsigned, uint64_t>{{1, kSize.value()}}));
  ASSERT_TRUE(mmu->create_frames(kSize, 4, NodeId(1)).ok());
  EXPECT_EQ(bound, (std::map<unsigned, uint64_t>{{1, 5 * kSize.value()}}));
  const Result<FrameArea> far = mmu->create_frames(kPageSizeMax, 2, NodeId(0));
  ASSERT_TRUE(far.ok());
  EXPECT_EQ(bound[0], 2 * kPageSizeMax.value());
  if (mmu->rebuild(far->frame(1)).ok()) {  // the fresh page comes from the frame's node
    EXPECT_EQ(bound[0], 3 * kPageSizeMax.value());
  }
}

TEST(HostSetup, BindingReallyAsksTheKernel) {
  void* p = mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(p, MAP_FAILED);
  const SystemCalls& calls = real_system_calls();
  if (calls.bind_node(p, 8192, 0) != 0) {
    EXPECT_TRUE(errno == EPERM || errno == ENOSYS) << strerror(errno);
  }
  EXPECT_EQ(calls.bind_node(p, 8192, 5000), -1);
  EXPECT_EQ(errno, EINVAL);
  munmap(p, 8192);
}

TEST(HostSetup, SelfTestStopsAKernelThatCannotMove) {
  FakeKernel kernel;
  kernel.on_ioctl = [](int, unsigned long request, void*) {
    return request == uapi::kUffdMove ? fails(EINVAL) : std::nullopt;
  };
  HostConfig config;
  config.calls = kernel.calls();
  const Holdings before = Holdings::now();
  const auto moving = HostMoveMmu::create(config);
  ASSERT_EQ(moving.code(), Errc::kNotSupported);
  EXPECT_NE(moving.error().detail.find("frames=shareable"), std::string::npos);
  EXPECT_EQ(Holdings::now(), before);
  // Out works, in does not.
  kernel.on_ioctl = [n = 0](int, unsigned long request, void*) mutable {
    return request == uapi::kUffdMove && ++n > 1 ? fails(EINVAL) : std::nullopt;
  };
  EXPECT_EQ(HostMoveMmu::create(config).code(), Errc::kNotSupported);
  EXPECT_EQ(Holdings::now(), before);
  kernel.on_ioctl = [](int, unsigned long request, void*) {
    return request == UFFDIO_CONTINUE ? fails(EINVAL) : std::nullopt;
  };
  EXPECT_EQ(HostShareMmu::create(config).code(), Errc::kNotSupported);
  kernel.on_ioctl = nullptr;
  kernel.on_mprotect = [](uint64_t, size_t, int) { return fails(ENOMEM); };
  EXPECT_EQ(HostPinMmu::create(config).code(), Errc::kNotSupported);
  EXPECT_EQ(Holdings::now(), before);
}

// ------------------------------------------------------------------------------------ fixed frames

TEST(HostShare, FrameWithoutMemoryIsNotMapped) {
  const auto mmu = make_mmu<HostShareMmu>();
  const AddressRange range = *mmu->reserve(kSize, kSize, kSize);
  const FrameAddr frame = mmu->fixed_frame(range.start);
  EXPECT_EQ(run_one(*mmu, MmuOp::kMap, range.start, frame, kSize), Errc::kNotFound);
  memset(at<void>(frame), 1, kSize.value() / 2);
  EXPECT_EQ(run_one(*mmu, MmuOp::kMap, range.start, frame, kSize), Errc::kNotFound) << "half of it";
  memset(at<void>(frame), 2, kSize.value());
  EXPECT_EQ(run_one(*mmu, MmuOp::kMap, range.start, frame, kSize), Errc::kOk);
  EXPECT_EQ(*at<char>(range.start), 2);
  EXPECT_EQ(run_one(*mmu, MmuOp::kUnmap, range.start, frame, kSize), Errc::kOk);
}

TEST(HostShare, RetriesAndStrayMappings) {
  FakeKernel kernel;
  HostConfig config;
  config.calls = kernel.calls();
  config.busy_retries = 5;
  const auto mmu = make_mmu<HostShareMmu>(config);
  const AddressRange range = *mmu->reserve(kSize, kSize, kSize);
  const FrameAddr frame = mmu->fixed_frame(range.start);
  memset(at<void>(frame), 3, kSize.value());
  int left = 3;
  kernel.on_ioctl = [&](int, unsigned long request, void*) {
    return request == UFFDIO_CONTINUE && left-- > 0 ? fails(EAGAIN) : std::nullopt;
  };
  EXPECT_EQ(run_one(*mmu, MmuOp::kMap, range.start, frame, kSize), Errc::kOk);
  EXPECT_EQ(mmu->stats().busy_retries, 3U);
  EXPECT_EQ(run_one(*mmu, MmuOp::kUnmap, range.start, frame, kSize), Errc::kOk);
  left = 1000;
  EXPECT_EQ(run_one(*mmu, MmuOp::kMap, range.start, frame, kSize), Errc::kBusy);
  kernel.on_ioctl = nullptr;
  // A page mapped behind the driver's back is in the way once.
  uffdio_continue c{};
  c.range = {range.start.value() + 4096, 4096};
  ASSERT_EQ(real_system_calls().ioctl(mmu->fault_fd(), UFFDIO_CONTINUE, &c), 0);
  EXPECT_EQ(run_one(*mmu, MmuOp::kMap, range.start, frame, kSize), Errc::kOk);
  EXPECT_EQ(*at<char>(range.start, kSize.value() - 1), 3);
  kernel.on_madvise = [](uint64_t, size_t, int) { return fails(EINVAL); };
  EXPECT_EQ(run_one(*mmu, MmuOp::kUnmap, range.start, frame, kSize), Errc::kInvalid);
  kernel.on_madvise = nullptr;
  EXPECT_EQ(run_one(*mmu, MmuOp::kUnmap, range.start, frame, kSize), Errc::kOk);
  kernel.on_fallocate = [](int) { return fails(EIO); };
  EXPECT_EQ(run_one(*mmu, MmuOp::kFree, range.start, frame, kSize), Errc::kIo);
  EXPECT_EQ(*at<char>(frame), 3) << "nothing was freed";
}

TEST(HostPin, TooManyMappingsIsALimit) {
  FakeKernel kernel;
  HostConfig config;
  config.calls = kernel.calls();
  const auto mmu = make_mmu<HostPinMmu>(config);
  const AddressRange range = *mmu->reserve(kSize, kSize, kSize);
  kernel.on_mprotect = [](uint64_t, size_t, int) { return fails(ENOMEM); };
  EXPECT_EQ(run_one(*mmu, MmuOp::kMap, range.start, mmu->fixed_frame(range.start), kSize),
            Errc::kLimit);
  kernel.on_mprotect = nullptr;
  EXPECT_EQ(run_one(*mmu, MmuOp::kProtect, range.start, FrameAddr(0), kSize), Errc::kNotFound);
}

// ---------------------------------------------------------------------------------------- driver

TEST(HostDriver, BindsEveryNodeThatTopologyFinds) {
  DriverRegistry registry;
  ASSERT_TRUE(registry.add(make_host_driver()).ok());
  const Result<std::vector<DeviceInfo>> devices = enumerate_devices();
  ASSERT_TRUE(devices.ok());
  for (const DeviceInfo& info : *devices) {
    if (info.bus != "numa") {
      EXPECT_EQ(registry.bind(info).code(), Errc::kNotFound);
      continue;
    }
    Result<std::unique_ptr<Device>> device = registry.bind(info);
    ASSERT_TRUE(device.ok()) << device.error().message();
    EXPECT_STREQ((*device)->driver_name(), "host");
    EXPECT_EQ((*device)->info().driver, "host");
    EXPECT_STREQ((*device)->mmu()->info().name, "host-move");
    EXPECT_NE((*device)->data(), nullptr);
    EXPECT_EQ((*device)->block(), nullptr);
    std::vector<char> from(100, 'a'), to(100, 'b');
    CompletionQueue queue;
    CopyRequest copy;
    copy.queue = &queue;
    copy.from = FrameAddr(reinterpret_cast<uint64_t>(from.data()));
    copy.to = FrameAddr(reinterpret_cast<uint64_t>(to.data()));
    copy.length = Bytes(99);
    CopyRequest* const list[] = {&copy};
    EXPECT_EQ((*device)->copy()->submit(list), 1U);
    EXPECT_EQ(queue.pop(), &copy);
    std::vector<char> want(99, 'a');
    want.push_back('b');
    EXPECT_EQ(to, want);
  }
}

TEST(HostDriver, OptionsChooseTheFrames) {
  const std::unique_ptr<Driver> driver = make_host_driver();
  const std::pair<const char*, const char*> cases[] = {
      {"", "host-move"},
      {"frames=movable", "host-move"},
      {"frames=shareable", "host-share"},
      {"busy_retries=9,frames=pinonly", "host-pin"}};
  for (const auto& [options, name] : cases) {
    Result<std::unique_ptr<Device>> device = driver->bind(node0(options), nullptr);
    ASSERT_TRUE(device.ok()) << options << ": " << device.error().message();
    EXPECT_STREQ((*device)->mmu()->info().name, name);
  }
  for (const char* bad : {"frames=huge", "frames", "pages=4", "busy_retries=x",
                          "busy_retries=1000001", "busy_retries=-1"}) {
    EXPECT_EQ(driver->bind(node0(bad), nullptr).code(), Errc::kInvalid) << bad;
  }
}

TEST(HostDriver, BindsMemoryOfNodesOnly) {
  const std::unique_ptr<Driver> driver = make_host_driver();
  DeviceInfo gpu = node0();
  gpu.bus = "cuda";
  EXPECT_FALSE(driver->probe(gpu));
  EXPECT_EQ(driver->bind(gpu, nullptr).code(), Errc::kInvalid);
  DeviceInfo disk = node0();
  disk.cls = DeviceClass::kBlock;
  EXPECT_FALSE(driver->probe(disk));
  Result<std::unique_ptr<Device>> below = driver->bind(node0("frames=pinonly"), nullptr);
  ASSERT_TRUE(below.ok());
  EXPECT_EQ(driver->bind(node0(), std::move(*below)).code(), Errc::kInvalid);
}

TEST(HostDriver, RefusalReachesTheCaller) {
  FakeKernel kernel;
  kernel.on_userfaultfd = [](int) { return fails(EPERM); };
  kernel.on_open = [](const char*) { return fails(EACCES); };
  const std::unique_ptr<Driver> driver = make_host_driver(*kernel.calls());
  EXPECT_EQ(driver->bind(node0(), nullptr).code(), Errc::kPermission);
  EXPECT_EQ(driver->bind(node0("frames=shareable"), nullptr).code(), Errc::kPermission);
  EXPECT_TRUE(driver->bind(node0("frames=pinonly"), nullptr).ok()) << "as the text promises";
}

}  // namespace
}  // namespace kvmm::test
