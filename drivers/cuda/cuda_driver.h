// SPDX-License-Identifier: Apache-2.0
//
// The `cuda` driver: binds NVIDIA GPUs through libcuda.so.1, which is opened when a device is bound
// and never linked. One binary serves machines with and without a GPU.
//
//   CudaDevice --+-- CudaMmu         frames in HBM, their direct map, pages of sessions
//                +-- CudaCopy        copy engines: host <-> GPU, inside HBM
//                +-- CudaData        checksum, zero, scrub
//                +-- HostDmaFrames   pinned host memory, where copies start and end
//
// Options of a device, "key=value,key=value":
//   lib=PATH     the library instead of the loader's libcuda.so.1
//   device=N     ordinal of the GPU among those that the driver shows; default 0
//
// All of them finish asynchronously and are polled; there is no event_fd. The device REQUIRES at
// its end what its op tables require.
#pragma once

#include <memory>

#include "drivers/cuda/host_dma_frames.h"
#include "drivers/driver.h"

namespace kvmm {

std::unique_ptr<Driver> make_cuda_driver();

namespace cuda {

class CudaDevice : public Device {
 public:
  const char* driver_name() const override { return "cuda"; }
  // Host memory that this device's CopyOps takes; lives as long as the device.
  virtual HostDmaFrames& host_frames() = 0;
  // Calls that failed while something was being undone or torn down; 0 on a healthy driver.
  virtual uint64_t teardown_failures() const = 0;

 protected:
  using Device::Device;
};

}  // namespace cuda
}  // namespace kvmm
