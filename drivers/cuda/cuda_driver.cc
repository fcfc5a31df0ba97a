// SPDX-License-Identifier: Apache-2.0
#include "drivers/cuda/cuda_driver.h"

#include "drivers/cuda/cuda_copy.h"
#include "drivers/cuda/cuda_data.h"
#include "drivers/cuda/cuda_mmu.h"
#include "drivers/options.h"

namespace kvmm {

namespace cuda {
namespace {

class BoundDevice final : public CudaDevice {
 public:
  BoundDevice(DeviceInfo info, std::unique_ptr<Gpu> gpu)
      : CudaDevice(std::move(info)), gpu_(std::move(gpu)), host_(*gpu_), mmu_(*gpu_) {}

  Result<void> create_queues() {
    Result<std::unique_ptr<CudaCopy>> copy = CudaCopy::create(*gpu_);
    if (!copy) {
      return copy.error();
    }
    copy_ = *std::move(copy);
    Result<std::unique_ptr<CudaData>> data = CudaData::create(*gpu_, host_);
    if (!data) {
      return data.error();
    }
    data_ = *std::move(data);
    return {};
  }

  MmuOps* mmu() override { return &mmu_; }
  CopyOps* copy() override { return copy_.get(); }
  DataOps* data() override { return data_.get(); }
  HostDmaFrames& host_frames() override { return host_; }
  uint64_t teardown_failures() const override { return gpu_->teardown_failures(); }

 private:
  // The order of destruction matters, the last first: nothing may copy while frames go.
  std::unique_ptr<Gpu> gpu_;
  HostDmaFrames host_;
  CudaMmu mmu_;
  std::unique_ptr<CudaCopy> copy_;
  std::unique_ptr<CudaData> data_;
};

class CudaDriver final : public Driver {
 public:
  const char* name() const override { return "cuda"; }
  const char* help() const override {
    return "NVIDIA GPUs by libcuda.so.1; options: lib=PATH of the library, device=N ordinal";
  }
  bool probe(const DeviceInfo& info) const override {
    return info.cls == DeviceClass::kMemory && info.bus == "cuda";
  }
  Result<std::unique_ptr<Device>> bind(DeviceInfo info, std::unique_ptr<Device> below) override {
    if (below != nullptr) {
      return Error(Errc::kInvalid, "cuda does not stack on another device");
    }
    const Result<Options> options = Options::parse(name(), info.options, {"lib", "device"});
    if (!options) {
      return options.error();
    }
    const Result<uint64_t> ordinal = options->number("device", 0, 0, 1023);
    if (!ordinal) {
      return ordinal.error();
    }
    const std::vector<std::string> library = options->all("lib");
    Result<std::unique_ptr<Gpu>> gpu =
        Gpu::open(library.empty() ? std::string() : library.back(), static_cast<int>(*ordinal));
    if (!gpu) {
      return std::move(gpu).error();
    }
    auto device = std::make_unique<BoundDevice>(std::move(info), *std::move(gpu));
    if (Result<void> r = device->create_queues(); !r) {
      return std::move(r).error();
    }
    return std::unique_ptr<Device>(std::move(device));
  }
};

}  // namespace
}  // namespace cuda

std::unique_ptr<Driver> make_cuda_driver() {
  return std::make_unique<cuda::CudaDriver>();
}

}  // namespace kvmm
