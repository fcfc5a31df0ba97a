// SPDX-License-Identifier: Apache-2.0
#include "runtime/runtime.h"

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>

#include "runtime/attributes.h"
#include "runtime/base/random.h"
#include "runtime/report.h"
#include "runtime/thread.h"

namespace kvmm {
namespace {

constexpr size_t kTraceRecords = 16384;
// How long a touch that ends in SIGBUS waits at most for the line that says why. A reader of stderr
// that is slower loses the line, not the engine's answer.
constexpr Tick kNoticeTime = millis(50);

std::string program_name() {
  char name[256] = "";
  const ssize_t n = readlink("/proc/self/exe", name, sizeof name - 1);
  if (n <= 0) {
    return "kvmm";
  }
  const std::string path(name, static_cast<size_t>(n));
  return path.substr(path.rfind('/') + 1);
}

}  // namespace

Runtime::Runtime(Platform platform, RuntimeConfig config)
    : platform_(std::move(platform)), config_(std::move(config)) {}

Result<std::unique_ptr<Runtime>> Runtime::open(Platform platform, RuntimeConfig config) {
  std::unique_ptr<Runtime> r(new Runtime(std::move(platform), std::move(config)));
  if (auto ok = r->build(); !ok) {
    return ok.error();
  }
  return r;
}

Result<void> Runtime::build() {
  if (config_.name.empty()) {
    config_.name = program_name();
  }
  opened_ = platform_.clock->now();
  auto [directory, chosen] =
      config_directory(config_.config_dir.empty() ? nullptr : config_.config_dir.c_str());
  auto file = Config::load(directory, chosen);
  if (!file) {
    return file.error();
  }
  attributes_ = std::make_unique<RuntimeAttributes>(*this);
  if (auto ok = attributes_->declare(); !ok) {
    return ok;
  }
  if (auto ok = attributes_->take_start_values(*file, config_); !ok) {
    return ok;
  }
  if (auto ok = build_memory(); !ok) {
    return ok;
  }
  if (auto ok = attributes_->publish(); !ok) {
    return ok;
  }
  if (auto ok = file->apply(tree_); !ok) {
    return ok;
  }
  core_->start();
  if (platform_.executor->threaded()) {
    notices_ = start_thread("kvmm-log", [this] { print_notices(); });
  }
  if (!config_.swap_path.empty()) {
    if (auto ok = swapon(config_.swap_path, config_.swap_size, 0, config_.swap_driver); !ok) {
      return ok;
    }
  }
  return config_.control ? start_control() : Result<void>();
}

Result<void> Runtime::build_memory() {
  if (auto ok = platform_.add_drivers(registry_); !ok) {
    return ok;
  }
  const auto devices = platform_.enumerate();
  if (!devices) {
    return devices.error();
  }
  // One memory device: frames of all nodes must be mappable at one engine's addresses.
  const auto first = std::find_if(devices->begin(), devices->end(), [](const DeviceInfo& d) {
    return d.cls == DeviceClass::kMemory && d.has_cpus && d.capacity.value() != 0;
  });
  if (first == devices->end()) {
    return Error(Errc::kNotSupported, "the system names no NUMA node that has memory and CPUs");
  }
  DeviceInfo info = *first;
  if (info.bus == "numa" && !config_.frames.empty()) {
    info.options = "frames=" + config_.frames;
  }
  auto memory = registry_.bind(info);
  if (!memory) {
    return memory.error();
  }
  memory_ = std::move(*memory);
  check(memory_->mmu() != nullptr && memory_->data() != nullptr,
        "memory devices map and have data ops");
  const MmuInfo mmu = memory_->mmu()->info();
  data_ = platform_.executor->workers(*memory_->data(), config_.data_workers);
  auto plan = plan_tiers(*devices, config_.dram, std::min(kPageSizeMax, mmu.page_size_max),
                         config_.tier_capacities, mmu.fixed_frames);
  if (!plan) {
    return plan.error();
  }
  for (TierDescription& d : *plan) {
    d.page_size_min = mmu.granule;
    d.comes_zeroed = mmu.frames_zeroed;
    d.mmu = memory_->mmu();
    d.copy = memory_->copy();
    d.data = data_.get();
  }
  auto tiers = TierTable::create(*plan, node_distances(*devices));
  if (!tiers) {
    return tiers.error();
  }
  tiers_ = std::move(*tiers);
  auto trace = TraceRing::create(kTraceRecords);
  if (!trace) {
    return trace.error();
  }
  trace_ = std::make_unique<TraceRing>(std::move(*trace));
  Core::Parts parts;
  parts.platform = platform_;
  parts.tiers = tiers_.get();
  parts.notice_time = platform_.executor->threaded() ? kNoticeTime : Tick(0);
  parts.data = data_.get();
  cpus_ = std::make_unique<CpuNodes>(*devices);
  parts.cpus = cpus_.get();
  parts.trace = trace_.get();
  parts.completions = &completions_;
  auto core = Core::create(parts);
  if (!core) {
    return core.error();
  }
  core_ = std::move(*core);
  return {};
}

Result<void> Runtime::start_control() {
  ControlOptions o;
  o.name = config_.name;
  o.version = attributes_->version();
  o.actions = attributes_->actions();
  o.trace = trace_.get();
  auto server = ControlServer::start(tree_, std::move(o));
  if (!server) {
    return server.error();
  }
  control_ = std::move(*server);
  return {};
}

Result<void> Runtime::close() {
  if (core_ != nullptr) {
    MutexLock l(core_->lock());
    core_->step();
    if (core_->mm().pins_open()) {
      return Error(Errc::kBusy, "pins are open: unpin first, and let their fences be done");
    }
  }
  control_.reset();
  std::vector<AddressSpace*> spaces;
  {
    MutexLock l(lock_);
    for (auto& [id, s] : sessions_) {
      spaces.push_back(s.get());
    }
  }
  for (AddressSpace* s : spaces) {
    if (auto ok = close_session(*s); !ok) {
      return ok;
    }
  }
  std::vector<Arena*> arenas;
  {
    MutexLock l(lock_);
    for (auto& [id, a] : arenas_) {
      arenas.push_back(a.get());
    }
  }
  for (Arena* a : arenas) {
    if (auto ok = destroy_arena(*a); !ok) {
      return ok;
    }
  }
  return {};
}

Runtime::~Runtime() {
  if (core_ != nullptr) {
    [[maybe_unused]] const auto ok = close();  // kvmm_runtime_close has asked before
  }
  control_.reset();
  attributes_.reset();
  stopping_ = true;
  if (notices_.joinable()) {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = write(core_->notice_fd(), &one, sizeof one);
    notices_.join();
  }
  if (core_ != nullptr) {
    {
      MutexLock l(core_->lock());
      core_->mm().no_more_upkeep();
      core_->wait_until([this] {
        core_->lock().assert_held();
        return !core_->mm().busy();
      });
    }
    core_->stop();
    MutexLock l(core_->lock());
    while (!core_->swap().areas().empty()) {
      SwapArea& area = *core_->swap().areas().front();
      core_->mm().area_removed(area);
      auto gone = core_->swap().remove(area);
      check(gone.ok(), "a swap area is empty when its runtime closes");
    }
  }
  // Threads of workers and of devices end first: one that has just pushed may still be waking the
  // core.
  data_.reset();
  {
    std::vector<SwapDevice> devices;
    MutexLock l(lock_);
    devices.swap(swap_devices_);
  }
  core_.reset();
  tiers_.reset();
}

// One line on stderr for each thing a person should know. A thread of its own: the core never
// writes to a descriptor that the engine may be holding.
void Runtime::print_notices() {
  for (bool last = false; !last;) {
    pollfd p{core_->notice_fd(), POLLIN, 0};
    poll(&p, 1, -1);
    last = stopping_;  // what was said before is still printed
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t got = read(p.fd, &count, sizeof count);
    std::array<MmNotice, 64> notices;
    size_t n = 0;
    core_->query([&](Mm& mm) {
      while (n < notices.size() && mm.take_notice(&notices[n])) {
        ++n;
      }
    });
    for (size_t i = 0; i < n; ++i) {
      const std::string line = "kvmm: " + notice_text(notices[i]) + "\n";
      [[maybe_unused]] const ssize_t w = write(STDERR_FILENO, line.data(), line.size());
    }
    core_->query([](Mm& mm) { mm.notices_told(); });
    if (std::any_of(notices.begin(), notices.begin() + static_cast<ptrdiff_t>(n),
                    [](const MmNotice& m) { return m.kind == MmNotice::Kind::kSwapEmptied; })) {
      take_out_emptied();
    }
  }
}

}  // namespace kvmm
