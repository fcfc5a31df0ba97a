// SPDX-License-Identifier: Apache-2.0
#include "drivers/null/null_driver.h"

#include <cstring>

#include "drivers/block_request.h"
#include "drivers/options.h"

namespace kvmm {
namespace {

constexpr Bytes kAlignment = Bytes(4096);  // as strict as a disk, so that nothing works only here

class NullBlock final : public BlockOps {
 public:
  explicit NullBlock(Bytes capacity) : capacity_(capacity) {}

  BlockInfo info() const override {
    BlockInfo i;
    i.name = "null";
    i.capacity = capacity_;
    i.alignment = kAlignment;
    i.length_max = kBlockLengthMax;
    i.depth = 1;
    i.discards = true;
    i.volatile_content = true;
    return i;
  }

  size_t submit(std::span<BlockRequest* const> requests) override {
    const BlockInfo limits = info();
    for (BlockRequest* r : requests) {
      const Errc result = check_block_request(*r, limits);
      if (result == Errc::kOk && r->op == BlockOp::kRead) {
        std::memset(r->data, 0, r->length.value());
      }
      finish_block_request(*r, result);
    }
    return requests.size();
  }

  void poll() override {}

  Result<void> resize(Bytes capacity) override {
    if (capacity < capacity_ || capacity.value() % kAlignment.value() != 0) {
      return Error(Errc::kInvalid, "null: a device grows by multiples of 4096 and never shrinks");
    }
    capacity_ = capacity;
    return {};
  }

 private:
  Bytes capacity_;
};

class NullDevice final : public Device {
 public:
  NullDevice(DeviceInfo info, Bytes capacity) : Device(std::move(info)), block_(capacity) {}
  const char* driver_name() const override { return "null"; }
  BlockOps* block() override { return &block_; }

 private:
  NullBlock block_;
};

class NullDriver final : public Driver {
 public:
  const char* name() const override { return "null"; }
  const char* help() const override {
    return "block devices of bus 'null': forget writes, read zeros; size=BYTES";
  }
  bool probe(const DeviceInfo& info) const override {
    return info.cls == DeviceClass::kBlock && info.bus == "null";
  }
  Result<std::unique_ptr<Device>> bind(DeviceInfo info, std::unique_ptr<Device> below) override {
    if (below != nullptr) {
      return Error(Errc::kInvalid, "null: stacks over nothing");
    }
    auto options = Options::parse(name(), info.options, {"size"});
    if (!options) {
      return options.error();
    }
    auto size = options->bytes("size", info.capacity);
    if (!size) {
      return size.error();
    }
    if (size->value() == 0 || size->value() % kAlignment.value() != 0) {
      return Error(Errc::kInvalid, "null: size= must be a multiple of 4096 above 0");
    }
    return std::unique_ptr<Device>(std::make_unique<NullDevice>(std::move(info), *size));
  }
};

}  // namespace

std::unique_ptr<Driver> make_null_driver() {
  return std::make_unique<NullDriver>();
}

}  // namespace kvmm
