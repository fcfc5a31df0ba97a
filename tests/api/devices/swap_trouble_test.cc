// SPDX-License-Identifier: Apache-2.0
//
// A runtime with its real threads, memory and io_uring, whose swap devices fail and hang when a
// test says so: each is a file with the drivers error and delay on top.
//
//   Runtime -> "troubled" device -> Ticking -> DelayBlock -> ErrorBlock -> UringBlock -> file
//
// In tests/model the same is played step by step on a virtual clock; here nobody plays: a thread
// that waits for a page waits in the kernel, and the area is taken out by the runtime's own thread.
#include <gtest/gtest.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <map>
#include <thread>

#include "drivers/delay/delay_driver.h"
#include "drivers/error/error_driver.h"
#include "drivers/uring/uring_driver.h"
#include "runtime/runtime.h"

namespace kvmm {
namespace {

constexpr uint64_t kPage = 64 * kKiB;
constexpr uint64_t kPages = 16;  // of a lane
constexpr auto kLimit = std::chrono::seconds(30);

// Nobody is woken when a delayed completion is due: this descriptor ticks every millisecond.
class Ticking final : public BlockOps {
 public:
  explicit Ticking(BlockOps& below)
      : below_(below), fd_(timerfd_create(CLOCK_MONOTONIC, O_NONBLOCK)) {
    const itimerspec ms{{0, 1'000'000}, {0, 1'000'000}};
    EXPECT_EQ(timerfd_settime(fd_, 0, &ms, nullptr), 0);
  }
  ~Ticking() override { close(fd_); }
  BlockInfo info() const override { return below_.info(); }
  size_t submit(std::span<BlockRequest* const> requests) override {
    return below_.submit(requests);
  }
  void poll() override {
    uint64_t ticks = 0;
    [[maybe_unused]] const ssize_t n = read(fd_, &ticks, sizeof ticks);
    below_.poll();
  }
  int event_fd() const override { return fd_; }
  Result<void> resize(Bytes capacity) override { return below_.resize(capacity); }

 private:
  BlockOps& below_;
  const int fd_;
};

struct Controls {
  ErrorBlock* errors = nullptr;
  DelayBlock* delay = nullptr;
};

class TroubledDevice final : public Device {
 public:
  TroubledDevice(DeviceInfo info, std::unique_ptr<Device> below)
      : Device(std::move(info)), below_(std::move(below)), block_(*below_->block()) {}
  const char* driver_name() const override { return "troubled"; }
  BlockOps* block() override { return &block_; }

 private:
  std::unique_ptr<Device> below_;
  Ticking block_;
};

class TroubledDriver final : public Driver {
 public:
  TroubledDriver(Clock& clock, std::map<std::string, Controls>& controls)
      : uring_(make_uring_driver()),
        error_(make_error_driver()),
        delay_(make_delay_driver(clock)),
        controls_(controls) {}
  const char* name() const override { return "troubled"; }
  const char* help() const override { return "a file whose I/O fails and waits"; }
  bool probe(const DeviceInfo&) const override { return false; }
  Result<std::unique_ptr<Device>> bind(DeviceInfo info, std::unique_ptr<Device>) override {
    auto file = uring_->bind(info, nullptr);
    if (!file) {
      return file.error();
    }
    auto errors = error_->bind(info, std::move(*file));
    Controls c;
    c.errors = find_error(**errors);
    auto delay = delay_->bind(info, std::move(*errors));
    c.delay = find_delay(**delay);
    controls_[info.path] = c;
    return std::unique_ptr<Device>(std::make_unique<TroubledDevice>(info, std::move(*delay)));
  }

 private:
  std::unique_ptr<Driver> uring_, error_, delay_;
  std::map<std::string, Controls>& controls_;
};

ErrorRule failing(BlockOpMask ops, Errc result) {
  ErrorRule r;
  r.ops = ops;
  r.count = 0;
  r.result = result;
  return r;
}

class SwapTrouble : public ::testing::Test {
 protected:
  SwapTrouble() {
    alarm(90);  // what waits for ever fails
    folder_ = std::filesystem::current_path() / ("swap_trouble." + std::to_string(getpid()));
    std::filesystem::create_directories(folder_);
    Platform p = real_platform();
    p.swap_driver = "troubled";
    p.add_drivers = [add = p.add_drivers, clock = p.clock, this](DriverRegistry& r) {
      auto ok = add(r);
      return ok ? r.add(std::make_unique<TroubledDriver>(*clock, controls_)) : ok;
    };
    RuntimeConfig c;
    c.name = "swap-trouble";
    c.dram = mib(4);
    c.control = false;
    auto opened = Runtime::open(p, c);
    if (!opened) {
      ADD_FAILURE() << opened.error().message();
      return;
    }
    runtime_ = std::move(*opened);
    ArenaSpec a;
    a.name = "arena";
    a.model_is_random = true;
    a.lanes = 4;
    arena_ = *runtime_->create_arena(a);
    PlaneSpec plane;
    plane.name = "k";
    plane.lane_stride = Bytes(kPage * kPages);
    plane.page_size = Bytes(kPage);
    auto range = runtime_->reserve(*arena_, plane.lane_stride * a.lanes);
    EXPECT_TRUE(range.ok());
    base_ = reinterpret_cast<unsigned char*>(range->start.value());
    plane.base = range->start;
    EXPECT_TRUE(runtime_->add_plane(*arena_, plane).ok());
    for (uint32_t lane = 0; lane < a.lanes; ++lane) {
      SpaceSpec s;
      s.name = "chat-" + std::to_string(lane);
      s.kind = ObjectKind::kRaw;
      sessions_.push_back(*runtime_->open_session(*arena_, s, lane));
    }
  }
  ~SwapTrouble() override {
    for (const auto& [path, c] : controls_) {
      release(path);
    }
    runtime_.reset();
    std::filesystem::remove_all(folder_);
    alarm(0);
  }
  std::string path(const char* name) const { return folder_ / name; }
  void swapon(const char* name, int32_t priority) {
    const auto ok = runtime_->swapon(path(name), mib(64), priority);
    ASSERT_TRUE(ok.ok()) << ok.error().message();
  }
  template <class Fn>
  void locked(Fn&& fn) {
    MutexLock l(runtime_->core().lock());
    fn();
  }
  void fail(const char* name, BlockOpMask ops, Errc result) {
    locked([&] { ASSERT_TRUE(controls_[path(name)].errors->add_rule(failing(ops, result)).ok()); });
  }
  void heal(const char* name) {
    locked([&] { controls_[path(name)].errors->clear_rules(); });
  }
  void hold(const char* name) {
    locked([&] { controls_[path(name)].delay->set_hold(true); });
  }
  void release(const std::string& path) {
    if (runtime_ != nullptr && alive(path)) {
      locked([&] { controls_[path].delay->set_hold(false); });
      runtime_->core().wake();
    }
  }
  bool alive(const std::string& path) {
    bool found = false;
    runtime_->core().query([&](Mm& mm) { found = mm.swap().find(path) != nullptr; });
    return found;
  }
  std::string attribute(const std::string& path) {
    auto v = runtime_->attributes().get(path);
    return v ? *v : "";
  }
  void set(const char* path, const char* value) {
    const auto ok = runtime_->attributes().set(path, value);
    ASSERT_TRUE(ok.ok()) << ok.error().message();
  }
  uint64_t* word(uint32_t lane, uint64_t page) {
    return reinterpret_cast<uint64_t*>(base_ + (lane * kPages + page) * kPage + kPage / 2);
  }
  void fill(uint32_t lane, uint64_t seed) {
    for (uint64_t i = 0; i < kPages; ++i) {
      *word(lane, i) = seed + i;
    }
  }
  void expect(uint32_t lane, uint64_t seed) {
    for (uint64_t i = 0; i < kPages; ++i) {
      ASSERT_EQ(*word(lane, i), seed + i) << "lane " << lane << " page " << i;
    }
  }
  template <class Pred>
  ::testing::AssertionResult comes(Pred&& pred) {
    const auto end = std::chrono::steady_clock::now() + kLimit;
    while (!pred()) {
      if (std::chrono::steady_clock::now() > end) {
        return ::testing::AssertionFailure();
      }
      std::this_thread::yield();
    }
    return ::testing::AssertionSuccess();
  }
  void evict(uint32_t lane) {
    AddressSpace& s = *sessions_[lane];
    locked([&] {
      runtime_->core().lock().assert_held();
      runtime_->core().mm().evict(s);
      runtime_->core().step();
    });
  }
  void send_out(uint32_t lane) {
    evict(lane);
    EXPECT_TRUE(comes([&] { return sessions_[lane]->stats.bytes_resident.load() == 0; }));
  }

  std::filesystem::path folder_;
  std::map<std::string, Controls> controls_;
  std::unique_ptr<Runtime> runtime_;
  Arena* arena_ = nullptr;
  unsigned char* base_ = nullptr;
  std::vector<AddressSpace*> sessions_;
};

constexpr BlockOpMask kReads = mask_of(BlockOp::kRead);
constexpr BlockOpMask kWrites = mask_of(BlockOp::kWrite);

TEST_F(SwapTrouble, ADeviceThatCannotWriteIsEmptiedAndTakenOut) {
  swapon("bad", 5);
  swapon("good", 0);
  for (uint32_t lane = 0; lane < 3; ++lane) {
    fill(lane, lane * 1000);
    send_out(lane);
  }
  EXPECT_NE(attribute("swap/swap0/used"), "0");
  EXPECT_EQ(attribute("swap/swap1/used"), "0");
  fail("bad", kWrites, Errc::kIo);
  for (uint32_t lane = 0; lane < 3; ++lane) {
    fill(lane, lane * 1000 + 500);
    evict(lane);
  }
  EXPECT_TRUE(comes([&] { return !alive(path("bad")); }));
  for (uint32_t lane = 0; lane < 3; ++lane) {
    expect(lane, lane * 1000 + 500);
    send_out(lane);
    expect(lane, lane * 1000 + 500);
  }
  EXPECT_EQ(runtime_->swapoff(path("bad")).code(), Errc::kNotFound);
}

TEST_F(SwapTrouble, ADeviceThatHangsStopsWhoWaitsForItAndNobodyElse) {
  swapon("hung", 5);
  fill(0, 100);
  send_out(0);
  swapon("good", 0);
  set("sched/swap_fail", "200000");
  hold("hung");
  std::atomic<uint64_t> got{0};
  std::thread engine([&] { got = *word(0, 3); });
  EXPECT_TRUE(comes([&] { return attribute("swap/swap0/health") == "failing"; }));
  for (uint32_t round = 0; round < 3; ++round) {
    for (uint32_t lane = 1; lane < 4; ++lane) {
      fill(lane, lane * 1000 + round);
      send_out(lane);
      expect(lane, lane * 1000 + round);
    }
  }
  EXPECT_EQ(got, 0u) << "the device has not answered";
  release(path("hung"));
  engine.join();
  EXPECT_EQ(got, 103u);
  EXPECT_TRUE(comes([&] { return !alive(path("hung")); }));
  expect(0, 100);
  EXPECT_EQ(sessions_[0]->stats.bytes_discarded.load(), 0u);
}

TEST_F(SwapTrouble, ADeviceThatHasGoneTakesOnlyWhatWasOnItAndMayComeBack) {
  swapon("gone", 5);
  fill(0, 100);
  send_out(0);
  fill(1, 200);
  swapon("good", 9);
  fill(2, 300);
  send_out(2);
  fail("gone", kAllBlockOps, Errc::kDeviceGone);
  locked([&] {
    runtime_->core().lock().assert_held();
    runtime_->core().mm().prefetch(*sessions_[0], 0, 1, Tick(0));
    runtime_->core().step();
  });
  EXPECT_TRUE(comes([&] { return !alive(path("gone")); }));
  EXPECT_EQ(sessions_[0]->stats.bytes_discarded.load(), kPage * kPages);
  expect(1, 200);
  expect(2, 300);
  // Whoever lost it begins anew, and the device is swapped on again.
  EXPECT_TRUE(
      runtime_->clear(*arena_, {VirtAddr(reinterpret_cast<uint64_t>(base_)), Bytes(kPage * kPages)})
          .ok());
  EXPECT_TRUE(comes([&] { return runtime_->swapon(path("gone"), mib(64), 20).ok(); }));
  fill(0, 700);
  send_out(0);
  EXPECT_NE(attribute("swap/swap2/used"), "0");
  expect(0, 700);
}

TEST_F(SwapTrouble, OneBadSectorLosesOnePage) {
  swapon("disk", 0);
  fill(0, 100);
  send_out(0);
  ErrorRule r = failing(kReads, Errc::kIo);
  r.from = *[&]() -> std::optional<uint64_t> {
    std::optional<uint64_t> at;
    runtime_->core().query([&](Mm& mm) {
      const SlotId slot(sessions_[0]->planes()[0].object->page(5).slot);
      at = mm.swap().area(slot).offset_of(slot).value() + 4096;
    });
    return at;
  }();
  r.to = r.from + 512;
  locked([&] { ASSERT_TRUE(controls_[path("disk")].errors->add_rule(r).ok()); });
  locked([&] {
    runtime_->core().lock().assert_held();
    runtime_->core().mm().prefetch(*sessions_[0], 0, 1, Tick(0));
    runtime_->core().step();
  });
  EXPECT_TRUE(comes([&] { return attribute("swap/swap0/lost") == "1"; }));
  for (uint64_t i = 0; i < kPages; ++i) {
    ASSERT_TRUE(i == 5 || *word(0, i) == 100 + i) << i;
  }
  EXPECT_EQ(attribute("swap/swap0/health"), "ok");
  EXPECT_EQ(attribute("swap/swap0/retired"), "64KiB");
}

TEST_F(SwapTrouble, SwapoffShowsHowFarItIs) {
  swapon("slow", 5);
  for (uint32_t lane = 0; lane < 3; ++lane) {
    fill(lane, lane * 1000);
    send_out(lane);
  }
  swapon("other", 0);
  hold("slow");
  std::atomic<bool> done{false};
  std::thread off([&] {
    const auto r = runtime_->swapoff(path("slow"));
    EXPECT_TRUE(r.ok()) << r.error().message();
    EXPECT_EQ(*r, 0u);
    done = true;
  });
  EXPECT_TRUE(comes([&] { return attribute("swap/swap0/health") == "draining"; }));
  EXPECT_EQ(runtime_->swapoff(path("slow")).code(), Errc::kBusy);
  const std::string before = attribute("swap/swap0/used");
  EXPECT_EQ(before, "3MiB");
  // A few answers at a time.
  EXPECT_TRUE(comes([&] {
    locked([&] {
      DelayBlock& d = *controls_[path("slow")].delay;
      if (!d.held().empty()) {
        d.release(0);
      }
    });
    runtime_->core().wake();
    return attribute("swap/swap0/used") != before;
  }));
  EXPECT_FALSE(done);
  release(path("slow"));
  off.join();
  for (uint32_t lane = 0; lane < 3; ++lane) {
    expect(lane, lane * 1000);
  }
}

}  // namespace
}  // namespace kvmm
