// SPDX-License-Identifier: Apache-2.0
#include "runtime/driver_loader.h"

#include <dlfcn.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <new>
#include <utility>

#include "drivers/module.h"
#include "runtime/base/check.h"

namespace kvmm {
namespace {

constexpr Bytes kAlignmentMax = Bytes(4096);  // frames are aligned to that

Error threw(const std::string& who, const char* where, const char* what) {
  return Error(Errc::kNotSupported, who + ": its driver threw from " + where + ": " + what +
                                        "; drivers return errors as Result");
}

// Runs a foreign function that should not throw.
template <class T, class Fn>
Result<T> guarded(const std::string& who, const char* where, Fn&& fn) {
  try {
    return fn();
  } catch (const std::bad_alloc&) {
    return Error(Errc::kNoMemory, who + ": no memory in " + where);
  } catch (const std::exception& e) {
    return threw(who, where, e.what());
  } catch (...) {
    return threw(who, where, "something that is no std::exception");
  }
}

// Forwards to the device's own table; what it throws stops the process.
class GuardedBlock final : public BlockOps {
 public:
  GuardedBlock(BlockOps& below, std::string who) : below_(below), who_(std::move(who)) {}
  BlockInfo info() const override {
    return stopping("info", [&] { return below_.info(); });
  }
  size_t submit(std::span<BlockRequest* const> requests) override {
    const size_t taken = stopping("submit", [&] { return below_.submit(requests); });
    check(taken <= requests.size(), "a driver takes requests that it was offered", taken,
          requests.size());
    return taken;
  }
  void poll() override {
    stopping("poll", [&] { below_.poll(); });
  }
  int event_fd() const override {
    return stopping("event_fd", [&] { return below_.event_fd(); });
  }
  Result<void> resize(Bytes capacity) override {
    return guarded<void>(who_, "resize", [&] { return below_.resize(capacity); });
  }

 private:
  template <class Fn>
  auto stopping(const char* op, Fn&& fn) const -> decltype(fn()) {
    try {
      return fn();
    } catch (const std::exception& e) {
      stop(op, e.what());
    } catch (...) {
      stop(op, "something that is no std::exception");
    }
  }
  [[noreturn]] void stop(const char* op, const char* what) const {
    const std::string line = who_ + ": its driver threw from " + op + ": " + what;
    check_failed(line.c_str(), Where::here());
  }

  BlockOps& below_;
  const std::string who_;
};

class GuardedDevice final : public Device {
 public:
  GuardedDevice(std::unique_ptr<Device> device, const std::string& who)
      : Device(device->info()), device_(std::move(device)), block_(*device_->block(), who) {}
  const char* driver_name() const override { return device_->driver_name(); }
  BlockOps* block() override { return &block_; }

 private:
  std::unique_ptr<Device> device_;
  GuardedBlock block_;
};

// What the layers above take for granted of a block device.
Result<void> usable(const std::string& who, Device* device) {
  if (device == nullptr || device->block() == nullptr) {
    return Error(Errc::kNotSupported, who + ": its driver bound a device without BlockOps");
  }
  const BlockInfo i = device->block()->info();
  const uint64_t alignment = i.alignment.value();
  if (i.name == nullptr || !std::has_single_bit(alignment) || alignment < 512 ||
      i.alignment > kAlignmentMax || i.depth == 0 || i.length_max < kPageSizeMax ||
      i.capacity.value() % alignment != 0) {
    return Error(Errc::kNotSupported,
                 who +
                     ": its BlockInfo is none: a name, an alignment of 512 to 4096, a depth, a "
                     "length_max of 2 MiB at least and an aligned capacity are needed");
  }
  return {};
}

class GuardedDriver final : public Driver {
 public:
  GuardedDriver(std::unique_ptr<Driver> driver, std::string who)
      : driver_(std::move(driver)), who_(std::move(who)) {}
  const char* name() const override { return driver_->name(); }
  const char* help() const override { return driver_->help(); }
  bool probe(const DeviceInfo& info) const override { return driver_->probe(info); }
  Result<std::unique_ptr<Device>> bind(DeviceInfo info, std::unique_ptr<Device> below) override {
    return guarded<std::unique_ptr<Device>>(who_, "bind", [&]() -> Result<std::unique_ptr<Device>> {
      auto device = driver_->bind(std::move(info), std::move(below));
      if (!device) {
        return device;
      }
      if (auto ok = usable(who_, device->get()); !ok) {
        return ok.error();
      }
      return std::unique_ptr<Device>(std::make_unique<GuardedDevice>(std::move(*device), who_));
    });
  }

 private:
  std::unique_ptr<Driver> driver_;
  const std::string who_;
};

// Its code will run in this process: nobody else may have a hand in it.
Result<void> trusted(const std::string& path) {
  struct stat s {};
  if (::stat(path.c_str(), &s) != 0) {
    const Errc code = errno == EACCES ? Errc::kPermission : Errc::kNotFound;
    return Error(code, path + ": no driver can be loaded from there", errno);
  }
  if (!S_ISREG(s.st_mode)) {
    return Error(Errc::kInvalid, path + " is no shared object: not a file");
  }
  if ((s.st_uid != 0 && s.st_uid != ::geteuid()) || (s.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return Error(Errc::kPermission, path +
                                        ": a driver must belong to root or to the user of this "
                                        "process, and nobody else may write it: chmod go-w");
  }
  return {};
}

Result<const DriverModule*> open_module(const std::string& path) {
  void* const handle = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (handle == nullptr) {
    const char* const text = ::dlerror();
    return Error(Errc::kNotSupported, text == nullptr ? path + ": does not load" : text);
  }
  void* const symbol = ::dlsym(handle, kDriverModuleSymbol);
  if (symbol == nullptr) {
    return Error(Errc::kInvalid, path + " is no kvmm driver: it exports no " +
                                     std::string(kDriverModuleSymbol) + "; KVMM_DRIVER_MODULE");
  }
  const DriverModule* const module = reinterpret_cast<const DriverModule* (*)()>(symbol)();
  if (module == nullptr || module->abi != kDriverAbi) {
    return Error(Errc::kVersion, path + " was made for driver interface " +
                                     (module == nullptr ? "?" : std::to_string(module->abi)) +
                                     ", and this is " + std::to_string(kDriverAbi) +
                                     ": build it against the headers of this kvmm");
  }
  if (module->size < sizeof(DriverModule) || module->layout != driver_layout() ||
      module->make == nullptr) {
    return Error(Errc::kVersion, path +
                                     ": its driver interface has other shapes than this: build it "
                                     "with the headers of this kvmm, and its standard library");
  }
  return module;
}

}  // namespace

Result<Driver*> DriverLoader::load(const std::string& path) {
  if (const auto it = loaded_.find(path); it != loaded_.end()) {
    return it->second.get();
  }
  if (auto ok = trusted(path); !ok) {
    return ok.error();
  }
  auto driver = guarded<std::unique_ptr<Driver>>(
      path, "its factory", [&]() -> Result<std::unique_ptr<Driver>> {
        auto module = open_module(path);
        if (!module) {
          return module.error();
        }
        return std::unique_ptr<Driver>((*module)->make());
      });
  if (!driver) {
    return driver.error();
  }
  if (*driver == nullptr) {
    return Error(Errc::kNotSupported, path + ": its factory made no driver");
  }
  auto& slot = loaded_[path];
  slot = std::make_unique<GuardedDriver>(std::move(*driver), path);
  return slot.get();
}

}  // namespace kvmm
