// SPDX-License-Identifier: Apache-2.0
//
// Swap areas of a runtime: how they come and go.
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <utility>

#include "runtime/base/random.h"
#include "runtime/runtime.h"

namespace kvmm {
namespace {

constexpr Bytes kSwapDefault = gib(16);  // what a file may grow to
constexpr Bytes kFileAtFirst = kib(64);  // what it is made with; the area makes it grow
// A process that was killed leaves I/O of its ring to the kernel, and the file's lock with it, for
// a moment: 1 s at most.
constexpr int kBusyTries = 50;
constexpr int kBusyWaitMs = 20;
// "null:1" is no file but a device that forgets what is written: for measuring what stands above.
constexpr std::string_view kNullPath = "null:";

}  // namespace

Result<std::unique_ptr<Device>> Runtime::bind_swap(const DeviceInfo& info) {
  if (info.driver.find('/') == std::string::npos) {
    return registry_.bind(info);
  }
  Driver* driver = nullptr;
  {
    MutexLock l(lock_);
    auto loaded = loader_.load(info.driver);
    if (!loaded) {
      return loaded.error();
    }
    driver = *loaded;
  }
  return driver->bind(info, nullptr);
}

Result<void> Runtime::swapon(const std::string& path, Bytes size, int32_t priority,
                             const SwapDriver& driver, bool discard) {
  SwapDevice d;
  SwapAreaConfig area_config;
  {
    MutexLock l(lock_);
    for (const SwapDevice& s : swap_devices_) {
      if (s.path == path) {
        return Error(Errc::kExists, path + " is a swap area of this runtime already");
      }
    }
    d.name = "swap" + std::to_string(next_swap_++);
    d.path = path;
    if (!config_.swap_volatile) {
      for (const auto& [id, arena] : arenas_) {
        if (!arena->spec.model_is_random) {
          area_config.model_id = arena->spec.model_id;
        }
      }
    }
    Random random(platform_.seed + next_swap_);
    for (uint8_t& b : area_config.uuid) {
      b = static_cast<uint8_t>(random());
    }
  }
  const bool forgets = path.rfind(kNullPath, 0) == 0;
  if (forgets && !config_.swap_volatile) {
    return Error(Errc::kInvalid, path + " forgets every page: for a VOLATILE runtime only");
  }
  DeviceInfo info;
  info.name = d.name;
  info.cls = DeviceClass::kBlock;
  const std::string in_tree = forgets ? "null" : platform_.swap_driver;
  info.bus = forgets ? "null" : "file";
  info.driver = driver.name.empty() ? in_tree : driver.name;
  info.options = driver.options;
  info.path = path;
  struct stat there {};
  const bool exists = !forgets && ::stat(path.c_str(), &there) == 0;
  area_config.size = size.value() != 0 || (exists && S_ISBLK(there.st_mode)) ? size : kSwapDefault;
  // What is there already grows only once it is known to be ours: by the area.
  const bool has_size = exists && (S_ISBLK(there.st_mode) || there.st_size != 0);
  const Bytes at_first = driver.name.empty() ? std::min(area_config.size, kFileAtFirst)
                                             : area_config.size;  // others need not grow
  info.capacity = has_size ? Bytes(0) : at_first;
  auto device = bind_swap(info);
  for (int i = 0; i < kBusyTries && device.code() == Errc::kBusy && exists &&
                  S_ISREG(there.st_mode) && platform_.executor->threaded();
       ++i) {
    poll(nullptr, 0, kBusyWaitMs);
    device = bind_swap(info);
  }
  if (!device) {
    return device.error();
  }
  d.device = std::move(*device);
  BlockOps* block = d.device->block();
  check(block != nullptr, "a swap device has block ops");
  if (block->info().volatile_content && !config_.swap_volatile) {
    return Error(Errc::kInvalid, path + ": " + block->info().name +
                                     " forgets every page: for a VOLATILE runtime only");
  }
  area_config.name = d.name;
  area_config.path = path;
  area_config.priority = priority;
  area_config.discard = discard;
  area_config.wait = [&] {
    if (block->event_fd() >= 0) {
      pollfd p{block->event_fd(), POLLIN, 0};
      poll(&p, 1, 100);
    } else if (!platform_.executor->threaded()) {
      platform_.executor->pass_time();
    }
  };
  auto area = SwapArea::open(*block, std::move(area_config));
  if (!area) {
    const Error& e = area.error();
    if (!exists && info.bus == "file") {
      ::unlink(path.c_str());  // we made it, and hold its lock
    }
    const char* advice =
        e.os_error == ECANCELED ? "; no thread for the kernel's I/O workers: raise ulimit -u" : "";
    return Error(e.code, path + ": " + (e.detail.empty() ? errc_text(e.code) : e.detail) + advice,
                 e.os_error);
  }
  MutexLock l(lock_);
  {
    MutexLock core(core_->lock());
    auto added = core_->swap().add(std::move(*area));
    if (!added) {
      return added.error();
    }
    core_->mm().area_added(**added);
    core_->step();
  }
  core_->wake();  // it polls one descriptor more now
  swap_devices_.push_back(std::move(d));
  return {};
}

Result<uint64_t> Runtime::swapoff(const std::string& path) {
  Mm::DrainJob job;
  std::string name;
  {
    MutexLock core(core_->lock());
    SwapArea* area = core_->swap().find(path);
    if (area == nullptr) {
      return Error(Errc::kNotFound, path + " is no swap area of this runtime");
    }
    if (core_->mm().draining(*area)) {
      return Error(Errc::kBusy, path + " is being taken out already");
    }
    name = area->config().name;
    job.area = area;
    core_->mm().drain(job);
    core_->wait_until([&] { return job.done; });
    if (job.result == Errc::kOk) {
      core_->wait_until([&] {
        core_->lock().assert_held();
        return !core_->mm().uses(*area);  // by a sync of another thread, growth or a discard
      });
      if (auto ok = take_out(*area); !ok) {
        return ok.error();
      }
    }
  }
  if (job.result != Errc::kOk) {
    return Error(job.result, why_not(path, job));
  }
  forget_device(name);
  return job.lost_pages;
}

std::string Runtime::why_not(const std::string& path, const Mm::DrainJob& job) {
  std::string text = fmt::format("{} still holds {} pages ({} bytes):", path, job.pages_left,
                                 job.bytes_left.value());
  uint32_t named = 0;
  for (const Mm::DrainJob::Holder& h : job.holders) {
    if (h.pages == 0) {
      continue;
    }
    const auto called = with_session(
        h.space, [](AddressSpace& s) -> Result<AttrValue> { return AttrValue::of(s.spec().name); });
    text += fmt::format("{} session {}{} {}", named == 0 ? "" : ",", h.space,
                        called && !called->text.empty() ? " '" + called->text + "'" : "", h.pages);
    ++named;
  }
  if (job.sessions_left > named) {
    text += fmt::format(" and {} more sessions", job.sessions_left - named);
  }
  text += fmt::format("; they found no room: {} bytes of DRAM and {} bytes of other areas are free",
                      job.dram_free.value(), job.other_areas_free.value());
  if (job.lost_pages != 0) {
    text += fmt::format("; {} pages could not be read", job.lost_pages);
  }
  return text + "; add an area with swapon, or close sessions";
}

// REQUIRES: it holds nothing and nothing uses it.
Result<void> Runtime::take_out(SwapArea& area) {
  auto removed = core_->swap().remove(area);
  if (!removed) {
    return removed.error();
  }
  core_->mm().area_removed(**removed);
  return {};
}

// REQUIRES: its area has been taken out.
void Runtime::forget_device(const std::string& name) {
  SwapDevice device;
  {
    MutexLock l(lock_);
    auto it = std::find_if(swap_devices_.begin(), swap_devices_.end(),
                           [&](const SwapDevice& d) { return d.name == name; });
    if (it != swap_devices_.end()) {
      device = std::move(*it);
      swap_devices_.erase(it);
    }
  }
  core_->wake();  // it polls one descriptor fewer now
}

void Runtime::take_out_emptied() {
  for (bool more = true; more;) {
    more = false;
    std::string name;
    {
      MutexLock core(core_->lock());
      for (const auto& area : core_->swap().areas()) {
        if (core_->mm().emptied(*area)) {
          name = area->config().name;
          more = take_out(*area).ok();
          break;
        }
      }
    }
    if (more) {
      forget_device(name);
    }
  }
}

}  // namespace kvmm
