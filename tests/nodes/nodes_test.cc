// SPDX-License-Identifier: Apache-2.0
//
// The runtime on two nodes, on any machine: its devices say that every CPU but the first is of node
// 1, and frames of both nodes come from wherever the kernel likes. Faults, moves of pages and
// copies are the kernel's own.
#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "drivers/host/host_driver.h"
#include "runtime/runtime.h"

namespace kvmm::test {
namespace {

constexpr uint64_t kPage = 65536;
constexpr uint32_t kPages = 64;

// The kernel, but for one call: this machine may have no second node.
const SystemCalls& calls() {
  static const SystemCalls all = [] {
    SystemCalls c = real_system_calls();
    c.bind_node = [](void*, size_t, unsigned) { return 0; };
    return c;
  }();
  return all;
}

DeviceInfo node(uint16_t number, std::vector<uint32_t> cpus) {
  DeviceInfo d;
  d.name = "node" + std::to_string(number);
  d.bus = "numa";
  d.node = NodeId(number);
  d.capacity = gib(1);
  d.has_cpus = !cpus.empty();
  d.cpus = std::move(cpus);
  return d;
}

// Of node 0 the first CPU that this process may use, of node 1 the others.
struct Cpus {
  std::vector<uint32_t> all;
  Cpus() {
    cpu_set_t set;
    CPU_ZERO(&set);
    EXPECT_EQ(sched_getaffinity(0, sizeof set, &set), 0);
    for (uint32_t cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &set)) {
        all.push_back(cpu);
      }
    }
  }
};

void run_on(uint32_t cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  ASSERT_EQ(sched_setaffinity(0, sizeof set, &set), 0);
}

class Nodes : public ::testing::Test {
 protected:
  void open(const std::vector<DeviceInfo>& devices, std::vector<TierCapacity> lines) {
    Platform platform = real_platform();
    platform.enumerate = [devices] { return Result<std::vector<DeviceInfo>>(devices); };
    platform.add_drivers = [](DriverRegistry& r) { return r.add(make_host_driver(calls(), 4)); };
    RuntimeConfig config;
    config.name = "nodes";
    config.tier_capacities = std::move(lines);
    config.control = false;
    config.frames = "movable";
    auto opened = Runtime::open(std::move(platform), config);
    if (opened.code() == Errc::kPermission || opened.code() == Errc::kNotSupported) {
      GTEST_SKIP() << opened.error().message();
    }
    ASSERT_TRUE(opened.ok()) << opened.error().message();
    runtime_ = std::move(*opened);
    ArenaSpec spec;
    spec.lanes = 2;
    auto arena = runtime_->create_arena(spec);
    ASSERT_TRUE(arena.ok()) << arena.error().message();
    arena_ = *arena;
    const Bytes lane(kPage * kPages);
    auto range = runtime_->reserve(*arena_, lane * 2);
    ASSERT_TRUE(range.ok()) << range.error().message();
    PlaneSpec plane;
    plane.name = "kv";
    plane.base = range->start;
    plane.lane_stride = lane;
    plane.page_size = Bytes(kPage);
    ASSERT_TRUE(runtime_->add_plane(*arena_, plane).ok());
  }
  ~Nodes() override {
    if (runtime_ != nullptr) {
      EXPECT_TRUE(runtime_->close().ok());
    }
  }

  AddressSpace* session(int64_t lane) {
    SpaceSpec spec;
    spec.kind = ObjectKind::kRaw;
    auto s = runtime_->open_session(*arena_, spec, lane);
    EXPECT_TRUE(s.ok()) << s.error().message();
    return s.ok() ? *s : nullptr;
  }
  static volatile uint64_t* address(AddressSpace& s, uint32_t page) {
    return reinterpret_cast<volatile uint64_t*>(s.planes()[0].vma->address_of(page).value() +
                                                kPage / 2);
  }
  // Name of the tier of a page, or of its place.
  std::string tier_of(AddressSpace& s, uint32_t page) {
    std::string name;
    runtime_->core().query([&](Mm& mm) {
      const Page& p = s.planes()[0].object->page(page);
      name =
          p.frame != nullptr ? mm.zones().table().tier(p.frame->tier).name() : place_name(p.place);
    });
    return name;
  }
  uint64_t count(const char* attribute) {
    auto v = runtime_->attributes().get(attribute);
    EXPECT_TRUE(v.ok()) << attribute;
    return v.ok() ? std::stoull(*v) : 0;
  }
  // Waits for the core without sleeping: each query is a step of it.
  template <class Fn>
  bool until(Fn&& fn) {
    for (int i = 0; i < 100'000; ++i) {
      if (fn()) {
        return true;
      }
      std::this_thread::yield();
    }
    return false;
  }

  std::unique_ptr<Runtime> runtime_;
  Arena* arena_ = nullptr;
};

TEST_F(Nodes, FramesComeFromTheNodeOfTheThreadThatTouches) {
  const Cpus cpus;
  if (cpus.all.size() < 2) {
    GTEST_SKIP() << "this process may use one CPU only";
  }
  open({node(0, {cpus.all[0]}), node(1, {cpus.all.begin() + 1, cpus.all.end()})},
       {{"tiers/dram0/capacity", "test", mib(16)}, {"tiers/dram1/capacity", "test", mib(16)}});
  if (runtime_ == nullptr) {
    return;
  }
  AddressSpace* near0 = nullptr;
  AddressSpace* near1 = nullptr;
  std::thread([&] {
    run_on(cpus.all[0]);
    near0 = session(0);
    *address(*near0, 0) = 1;
  }).join();
  std::thread([&] {
    run_on(cpus.all[1]);
    near1 = session(1);
    *address(*near1, 0) = 2;
    EXPECT_EQ(tier_of(*near1, 0), "dram1") << "where it was opened from";
    // Its own node, although the session's home is another: the core has looked where it runs.
    EXPECT_TRUE(until([&] {
      bool known = false;
      runtime_->core().query([&](Mm& mm) {
        known = mm.threads().row_of(static_cast<uint32_t>(gettid()), Tick(0)).has_value();
      });
      return known;
    }));
    *address(*near0, 1) = 3;
    EXPECT_EQ(tier_of(*near0, 1), "dram1");
  }).join();
  EXPECT_EQ(tier_of(*near0, 0), "dram0");
  EXPECT_EQ(*address(*near0, 1), 3u);
}

TEST_F(Nodes, PagesGoDownAndComeUpUnderAnEngineThatWrites) {
  const Cpus cpus;
  open({node(0, cpus.all), node(1, {})},
       {{"tiers/dram/capacity", "test", mib(4)}, {"tiers/slow/capacity", "test", mib(8)}});
  if (runtime_ == nullptr) {
    return;
  }
  AddressSpace* idle = session(0);
  AddressSpace* busy = session(1);
  Tier& dram = *runtime_->tiers().find("dram");
  runtime_->core().query([&](Mm&) {
    EXPECT_TRUE(dram.set_watermarks({Bytes(kPage), mib(1), mib(3)}).ok());
    runtime_->core().config().hint_wait_us = 1000;
  });
  for (uint32_t i = 0; i < 56; ++i) {
    *address(*idle, i) = 1000 + i;
  }
  EXPECT_EQ(tier_of(*idle, 0), "dram");
  EXPECT_EQ(tier_of(*idle, 55), "slow") << "dram keeps 1 MiB free";
  {
    MutexLock l(runtime_->core().lock());
    runtime_->core().mm().advise(*idle, Advice::kIdle);
    runtime_->core().mm().advise(*busy, Advice::kRunning);
    runtime_->core().step();
  }
  // Down, while the engine writes to some of them.
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    for (uint64_t n = 0; !stop; ++n) {
      *address(*busy, static_cast<uint32_t>(n % 24)) = n;
      *address(*idle, 7) = n + 1;
      EXPECT_EQ(*address(*idle, 7), n + 1);
    }
  });
  EXPECT_TRUE(until([&] { return count("tiers/dram/demoted") >= 24; }));
  {
    MutexLock l(runtime_->core().lock());
    runtime_->core().mm().advise(*idle, Advice::kRunning);
    runtime_->core().step();
  }
  // Up: what is touched again and again where it is far.
  EXPECT_TRUE(until([&] {
    for (uint32_t i = 0; i < 56; ++i) {
      EXPECT_TRUE(i == 7 || *address(*idle, i) == 1000 + i) << "page " << i;
    }
    return count("tiers/slow/promoted") >= 8;
  }));
  stop = true;
  writer.join();
  const MmStats& stats = runtime_->core().stats();
  EXPECT_EQ(stats.migrate_failed.load(), 0u);
  EXPECT_EQ(stats.wrong_pages.load(), 0u);
  EXPECT_EQ(stats.poisoned.load(), 0u);
  EXPECT_GT(stats.migrated_bytes.load(), 0u);
  for (uint32_t i = 0; i < 56; ++i) {
    EXPECT_TRUE(i == 7 || *address(*idle, i) == 1000 + i) << "page " << i;
  }
}

}  // namespace
}  // namespace kvmm::test
