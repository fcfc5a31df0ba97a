// SPDX-License-Identifier: Apache-2.0
//
// The composition root on no thread at all: the same `Runtime` that engines open, over simulated
// memory and a simulated disk, with time that passes only when somebody waits.
//
//   engine's access --> SimMmu --fault--> Core::wait_until --> step, pass_time, step ... --> again
#include <gtest/gtest.h>
#include <stdlib.h>

#include <array>
#include <cstring>
#include <filesystem>

#include "drivers/sim/sim_driver.h"
#include "runtime/runtime.h"

namespace kvmm {
namespace {

// Data work where it is asked for.
class InlineData final : public DataWorkers {
 public:
  explicit InlineData(DataOps& ops) : ops_(ops) {}
  size_t submit(std::span<DataRequest* const> requests) override { return ops_.submit(requests); }
  void poll() override { ops_.poll(); }

 private:
  DataOps& ops_;
};

class VirtualExecutor final : public Executor {
 public:
  explicit VirtualExecutor(SimClock& clock) : clock_(clock) {}
  bool threaded() const override { return false; }
  std::unique_ptr<DataWorkers> workers(DataOps& inline_ops, uint32_t) override {
    return std::make_unique<InlineData>(inline_ops);
  }
  bool pass_time() override { return clock_.advance_to_alarm(); }

 private:
  SimClock& clock_;
};

size_t threads_of_this_process() {
  const std::filesystem::directory_iterator tasks("/proc/self/task");
  return static_cast<size_t>(std::distance(begin(tasks), end(tasks)));
}

class VirtualPlatform : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_NE(mkdtemp(directory_.data()), nullptr);  // an empty configuration
    Platform p;
    p.executor = &executor_;
    p.clock = &clock_;
    p.seed = 7;
    p.swap_driver = "sim";
    p.add_drivers = [this](DriverRegistry& r) { return r.add(make_sim_driver(clock_)); };
    p.enumerate = []() -> Result<std::vector<DeviceInfo>> {
      DeviceInfo node;
      node.name = "node0";
      node.bus = "sim";
      node.capacity = mib(64);
      return std::vector<DeviceInfo>{node};
    };
    RuntimeConfig c;
    c.config_dir = directory_;
    c.dram = mib(8);
    c.control = false;  // a server is a thread
    auto opened = Runtime::open(std::move(p), std::move(c));
    ASSERT_TRUE(opened.ok()) << opened.error().detail;
    runtime_ = std::move(*opened);
    mmu_ = dynamic_cast<SimMmu*>(&runtime_->tiers().fastest().mmu());
    ASSERT_NE(mmu_, nullptr);
    ArenaSpec a;
    a.lanes = 2;
    a.model_is_random = true;
    auto arena = runtime_->create_arena(std::move(a));
    ASSERT_TRUE(arena.ok());
    arena_ = *arena;
    ASSERT_TRUE(add_plane("k"));
  }
  void TearDown() override {
    runtime_.reset();
    std::filesystem::remove_all(directory_);
  }

  bool add_plane(const char* name) {
    PlaneSpec plane;
    plane.name = name;
    plane.lane_stride = kPage * kPages;
    plane.page_size = kPage;
    return runtime_->add_plane(*arena_, plane).ok();
  }
  AddressSpace& open_session() {
    SpaceSpec s;
    s.kind = ObjectKind::kRaw;
    auto opened = runtime_->open_session(*arena_, s, -1);
    check(opened.ok(), "a session opens");
    return **opened;
  }

  // What an engine's thread does: an access, and while it waits, the world goes on.
  template <class Access>
  SimAccess until_answered(Access&& access) {
    for (int tries = 0; tries < 100; ++tries) {
      const SimAccess a = access();
      if (a != SimAccess::kFault) {
        return a;
      }
      Core& core = runtime_->core();
      MutexLock l(core.lock());
      core.wait_until([this] { return mmu_->waiters() == 0; });
    }
    return SimAccess::kFault;
  }
  SimAccess write(AddressSpace& s, uint32_t page, uint64_t value, uint32_t plane = 0) {
    std::array<std::byte, 8> bytes{};
    std::memcpy(bytes.data(), &value, 8);
    return until_answered([&] { return mmu_->write(address(s, page, plane), bytes); });
  }
  uint64_t read(AddressSpace& s, uint32_t page, uint32_t plane = 0) {
    std::array<std::byte, 8> bytes{};
    uint64_t value = UINT64_MAX;
    if (until_answered([&] { return mmu_->read(address(s, page, plane), bytes); }) ==
        SimAccess::kDone) {
      std::memcpy(&value, bytes.data(), 8);
    }
    return value;
  }
  static VirtAddr address(AddressSpace& s, uint32_t page, uint32_t plane) {
    return s.planes()[plane].vma->address_of(page) + Bytes(kPage.value() / 2);
  }
  void evict(AddressSpace& s) {
    Core& core = runtime_->core();
    MutexLock l(core.lock());
    core.mm().evict(s);
    core.wait_until([&] {
      core.lock().assert_held();
      return !core.mm().busy();
    });
  }

  static constexpr Bytes kPage = kib(64);
  static constexpr uint32_t kPages = 32;

  SimClock clock_;
  VirtualExecutor executor_{clock_};
  std::string directory_ = "/tmp/kvmm-virtual-XXXXXX";
  std::unique_ptr<Runtime> runtime_;
  SimMmu* mmu_ = nullptr;
  Arena* arena_ = nullptr;
};

TEST_F(VirtualPlatform, ASessionGoesOutAndComesBackInOneThread) {
  ASSERT_TRUE(runtime_->swapon("disk", mib(32), 0).ok());
  AddressSpace& s = open_session();
  for (uint32_t i = 0; i < kPages; ++i) {
    EXPECT_EQ(read(s, i), 0u) << "frames of a simulated device are not zeros by themselves";
    ASSERT_EQ(write(s, i, 100 + i), SimAccess::kDone);
  }
  evict(s);
  EXPECT_EQ(s.stats.bytes_resident.load(), 0u);
  EXPECT_EQ(s.stats.bytes_swapped.load(), (kPage * kPages).value());

  const Tick before = clock_.now();
  for (uint32_t i = 0; i < kPages; ++i) {
    EXPECT_EQ(read(s, i), 100 + i);
  }
  EXPECT_GT(clock_.now(), before) << "a disk takes time, also here";
  EXPECT_EQ(s.stats.swap_in_bytes.load(), (kPage * kPages).value());

  evict(s);
  auto synced = runtime_->sync(s);
  EXPECT_TRUE(synced.ok());
  ASSERT_TRUE(runtime_->swapoff("disk").ok());
  EXPECT_EQ(s.stats.bytes_swapped.load(), 0u) << "all of it came back to memory";
  for (uint32_t i = 0; i < kPages; ++i) {
    EXPECT_EQ(read(s, i), 100 + i);
  }
  EXPECT_TRUE(runtime_->close_session(s).ok());
  EXPECT_TRUE(runtime_->close().ok());
  EXPECT_EQ(threads_of_this_process(), 1u);
}

TEST_F(VirtualPlatform, SessionsThatDoNotFitTakeTurns) {
  ASSERT_TRUE(runtime_->swapon("disk", mib(64), 0).ok());
  for (const char* name : {"v", "w", "x"}) {
    ASSERT_TRUE(add_plane(name));
  }
  const auto planes = static_cast<uint32_t>(arena_->planes.size());
  std::array<AddressSpace*, 2> sessions{&open_session(), &open_session()};
  ASSERT_GT(kPage * kPages * planes * sessions.size(),
            runtime_->tiers().fastest().pool().capacity());
  auto value = [](uint64_t round, AddressSpace& s, uint32_t plane, uint32_t page) {
    return (round << 32) + (s.id() << 16) + (plane << 8) + page;
  };
  auto each = [&](auto&& fn) {
    for (AddressSpace* s : sessions) {
      for (uint32_t plane = 0; plane < planes; ++plane) {
        for (uint32_t i = 0; i < kPages; ++i) {
          fn(*s, plane, i);
        }
      }
    }
  };
  for (uint64_t round = 1; round <= 3; ++round) {
    each([&](AddressSpace& s, uint32_t plane, uint32_t i) {
      ASSERT_EQ(write(s, i, value(round, s, plane, i), plane), SimAccess::kDone);
    });
    each([&](AddressSpace& s, uint32_t plane, uint32_t i) {
      ASSERT_EQ(read(s, i, plane), value(round, s, plane, i));
    });
  }
  EXPECT_GT(runtime_->core().stats().reclaimed.load(), 0u);
  ASSERT_TRUE(runtime_->close_session(*sessions[0]).ok());
  EXPECT_EQ(read(*sessions[1], 3, 2), value(3, *sessions[1], 2, 3));
  EXPECT_EQ(mmu_->violations(), 0u);
  // The other one is closed with the runtime, in memory and on the disk as it is.
}

}  // namespace
}  // namespace kvmm
