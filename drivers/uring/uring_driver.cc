// SPDX-License-Identifier: Apache-2.0
#include "drivers/uring/uring_driver.h"

#include <liburing.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <unistd.h>

#include "drivers/options.h"
#include "drivers/uring/uring_block.h"

namespace kvmm {
namespace {

constexpr uint64_t kDepthDefault = 32;
constexpr uint64_t kDepthMax = 4096;

class UringDevice final : public Device {
 public:
  UringDevice(DeviceInfo info, std::unique_ptr<UringBlock> block)
      : Device(std::move(info)), block_(std::move(block)) {}
  const char* driver_name() const override { return "uring"; }
  BlockOps* block() override { return block_.get(); }

 private:
  std::unique_ptr<UringBlock> block_;
};

class UringDriver final : public Driver {
 public:
  explicit UringDriver(const UringCalls& calls) : calls_(calls) {}
  const char* name() const override { return "uring"; }
  const char* help() const override {
    return "files and block devices through io_uring with O_DIRECT; depth=32, size=BYTES, "
           "prealloc=0";
  }
  bool probe(const DeviceInfo& info) const override {
    return info.cls == DeviceClass::kBlock && info.bus == "file" && !info.path.empty();
  }
  Result<std::unique_ptr<Device>> bind(DeviceInfo info, std::unique_ptr<Device> below) override {
    if (below != nullptr || info.path.empty()) {
      return Error(Errc::kInvalid, "uring: needs a path, and stacks over nothing");
    }
    auto options = Options::parse(name(), info.options, {"depth", "size", "prealloc"});
    if (!options) {
      return options.error();
    }
    auto depth = options->number("depth", kDepthDefault, 1, kDepthMax);
    auto size = options->bytes("size", info.capacity);
    auto prealloc = options->flag("prealloc", false);
    if (!depth) {
      return depth.error();
    }
    if (!size) {
      return size.error();
    }
    if (!prealloc) {
      return prealloc.error();
    }
    auto block =
        UringBlock::create(calls_, {info.path, *size, *prealloc}, static_cast<uint32_t>(*depth));
    if (!block) {
      return block.error();
    }
    return std::unique_ptr<Device>(
        std::make_unique<UringDevice>(std::move(info), std::move(*block)));
  }

 private:
  UringCalls calls_;
};

}  // namespace

UringCalls uring_system_calls() {
  UringCalls c{};
  c.open = [](const char* path, int flags, mode_t mode) { return ::open(path, flags, mode); };
  c.flock = ::flock;
  c.statx = [](int fd, unsigned mask, struct statx* out) {
    return ::statx(fd, "", AT_EMPTY_PATH, mask, out);
  };
  c.ftruncate = ::ftruncate;
  c.fallocate = ::fallocate;
  c.eventfd = ::eventfd;
  c.ring_init = io_uring_queue_init_params;
  c.ring_eventfd = io_uring_register_eventfd;
  c.ring_submit = io_uring_submit;
  return c;
}

std::unique_ptr<Driver> make_uring_driver(const UringCalls& calls) {
  return std::make_unique<UringDriver>(calls);
}

}  // namespace kvmm
