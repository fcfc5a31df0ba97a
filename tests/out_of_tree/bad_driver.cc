// SPDX-License-Identifier: Apache-2.0
//
// Modules that are no good driver: one for each way in which the module itself is wrong, and one
// whose driver does what its option `does` says.
#include <cstring>
#include <stdexcept>

#include "drivers/block_request.h"
#include "drivers/module.h"
#include "drivers/options.h"

namespace {

using namespace kvmm;

[[maybe_unused]] std::unique_ptr<Driver> throw_from_factory() {
  throw std::runtime_error("the factory burns");
}
[[maybe_unused]] std::unique_ptr<Driver> make_nothing() {
  return nullptr;
}

class BadBlock final : public BlockOps {
 public:
  explicit BadBlock(std::string does) : does_(std::move(does)) {}
  BlockInfo info() const override {
    BlockInfo i;
    i.name = does_ == "no-name" ? nullptr : "bad";
    i.capacity = Bytes(does_ == "odd-capacity" ? 4097 : 64 * kMiB);
    i.alignment = Bytes(does_ == "odd-alignment" ? 4095 : 4096);
    i.length_max = does_ == "short-requests" ? Bytes(4096) : kBlockLengthMax;
    i.depth = does_ == "no-depth" ? 0 : 1;
    return i;
  }
  size_t submit(std::span<BlockRequest* const> requests) override {
    if (does_ == "throw-from-submit") {
      throw std::runtime_error("submit burns");
    }
    if (does_ == "take-too-many") {
      return requests.size() + 1;
    }
    for (BlockRequest* r : requests) {
      if (r->op == BlockOp::kRead) {
        std::memset(r->data, 0, r->length.value());
      }
      const bool full = does_ == "no-space" && r->op == BlockOp::kWrite;
      finish_block_request(*r, full ? Errc::kNoSpace : Errc::kOk, full ? 28 : 0);
    }
    return requests.size();
  }
  void poll() override {
    if (does_ == "throw-from-poll") {
      throw 7;  // NOLINT(hicpp-exception-baseclass): that is what is tested
    }
  }

 private:
  const std::string does_;
};

class BadDevice final : public Device {
 public:
  BadDevice(DeviceInfo info, std::string does)
      : Device(std::move(info)), has_block_(does != "no-block"), block_(std::move(does)) {}
  const char* driver_name() const override { return "bad"; }
  BlockOps* block() override { return has_block_ ? &block_ : nullptr; }

 private:
  bool has_block_;
  BadBlock block_;
};

class BadDriver final : public Driver {
 public:
  const char* name() const override { return "bad"; }
  const char* help() const override { return "does what its option says; does=WHAT"; }
  bool probe(const DeviceInfo&) const override { return false; }
  Result<std::unique_ptr<Device>> bind(DeviceInfo info, std::unique_ptr<Device>) override {
    auto options = Options::parse(name(), info.options, {"does"});
    if (!options) {
      return options.error();
    }
    const auto given = options->all("does");
    const std::string does = given.empty() ? "" : given.back();
    if (does == "throw-from-bind") {
      throw std::runtime_error("bind burns");
    }
    if (does == "throw-a-number") {
      throw 7;  // NOLINT(hicpp-exception-baseclass): that is what is tested
    }
    if (does == "throw-no-memory") {
      throw std::bad_alloc();
    }
    if (does == "bind-nothing") {
      return std::unique_ptr<Device>();
    }
    if (does == "refuse") {
      return Error(Errc::kDeviceGone, "bad: the cable is out; plug it in", 19);
    }
    return std::unique_ptr<Device>(std::make_unique<BadDevice>(std::move(info), does));
  }
};

[[maybe_unused]] std::unique_ptr<Driver> make_bad_driver() {
  return std::make_unique<BadDriver>();
}

}  // namespace

#if defined(OTHER_ABI) || defined(OTHER_LAYOUT)
extern "C" __attribute__((visibility("default"))) const DriverModule* kvmm_driver_module() {
#ifdef OTHER_ABI
  static const DriverModule module{kDriverAbi + 1, sizeof(DriverModule), 0, nullptr};
#else
  static const DriverModule module{kDriverAbi, sizeof(DriverModule), driver_layout() + 1, nullptr};
#endif
  return &module;
}
#elif defined(FACTORY_THROWS)
KVMM_DRIVER_MODULE(throw_from_factory)
#elif defined(NO_DRIVER)
KVMM_DRIVER_MODULE(make_nothing)
#elif defined(BY_OPTIONS)
KVMM_DRIVER_MODULE(make_bad_driver)
#endif
