// SPDX-License-Identifier: Apache-2.0
//
// One GPU, opened: the loaded entry points, the device's primary context and what was asked of it.
//
//   Gpu --+-- CudaApi       30 function pointers of libcuda.so.1 (never unloaded)
//         +-- CuContext     the primary context, retained: the one an engine's runtime uses too
//         +-- granule       smallest unit of a mapping, as the driver says it (2 MiB today)
//         +-- AddressMap    which addresses are the GPU's and which are pinned host memory
//
// kvmm runs inside the engine's process: a thread that calls us may have any context current, so
// every use of the API stands inside a `ContextScope`, which pushes ours and pops it again.
//
// Invariants
//   1. Whatever `Gpu`, `GpuStream` and `GpuEvent` created is destroyed by them; an error on the way
//      undoes in reverse order.
//   2. Calls that undo or tear down cannot report; those that fail are counted
//      (`teardown_failures`), and what they should have freed is left to the driver.
//
// Thread safety: serialised by the caller, like the op tables. Ownership: the device owns its Gpu.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "drivers/cuda/cuda_api.h"
#include "runtime/base/result.h"
#include "runtime/base/units.h"

namespace kvmm::cuda {

// The errno-like code for a result of the driver. kSuccess is kOk; a lost context is kDeviceGone.
Errc to_errc(CuResult r) noexcept;

// Loads every entry point. `path` empty: "libcuda.so.1" by the loader's search.
// Errors: kNotSupported (no library, or it lacks an entry point; the text names it).
Result<CudaApi> load_cuda_api(const std::string& path);

// Which memory an address range belongs to. An address that is in neither kind is never handed to
// the driver: a copy from pageable memory would block the step.
class AddressMap {
 public:
  enum class Kind : uint8_t { kUnknown, kDevice, kHost };
  void add(uint64_t start, uint64_t length, Kind kind) { ranges_[start] = {length, kind}; }
  void remove(uint64_t start) { ranges_.erase(start); }
  // The kind of [start, start + length) if one range holds all of it, else kUnknown.
  Kind find(uint64_t start, uint64_t length) const;

 private:
  std::map<uint64_t, std::pair<uint64_t, Kind>> ranges_;
};

class Gpu {
 public:
  // BLOCKING. Errors: kNotSupported (no driver, no VMM support, an unusable granularity), kNotFound
  // (no such device), kNoMemory, kIo.
  static Result<std::unique_ptr<Gpu>> open(const std::string& library, int ordinal);
  ~Gpu();
  Gpu(const Gpu&) = delete;
  Gpu& operator=(const Gpu&) = delete;

  const CudaApi& api() const { return api_; }
  CuContext context() const { return context_; }
  Bytes granule() const { return granule_; }
  // Whether the driver accepts read-only mappings of device memory: tried once by `open`.
  bool read_only_mappings() const { return read_only_mappings_; }
  AddressMap& addresses() { return addresses_; }

  // Frames in this GPU's memory, and rights of this GPU.
  CuAllocationProp allocation_prop() const;
  CuAccessDesc access(int flags) const;

  // An `Error` for a failed call: "cuMemCreate: CUDA_ERROR_OUT_OF_MEMORY".
  Error error(const char* call, CuResult r) const;

  // Records the result of a call that undoes something.
  void torn_down(CuResult r) { teardown_failures_ += r == CuResult::kSuccess ? 0 : 1; }
  uint64_t teardown_failures() const { return teardown_failures_; }

 private:
  Gpu(const CudaApi& api, CuDevice device) : api_(api), device_(device) {}
  Result<void> retain_and_ask();
  Result<void> try_read_only();

  const CudaApi api_;
  const CuDevice device_;
  CuContext context_ = nullptr;      // constant after open
  Bytes granule_;                    // constant after open
  bool read_only_mappings_ = false;  // constant after open
  AddressMap addresses_;
  uint64_t teardown_failures_ = 0;
};

// Our context is current on this thread while the scope lives, if `result()` is kSuccess.
class ContextScope {
 public:
  explicit ContextScope(const Gpu& gpu)
      : api_(gpu.api()), result_(gpu.api().ctx_push_current(gpu.context())) {}
  ~ContextScope();
  ContextScope(const ContextScope&) = delete;
  ContextScope& operator=(const ContextScope&) = delete;
  CuResult result() const { return result_; }

 private:
  const CudaApi& api_;
  const CuResult result_;
};

// A stream of ours that does not synchronise with the engine's default stream.
class GpuStream {
 public:
  static Result<GpuStream> create(Gpu& gpu);
  GpuStream(GpuStream&& o) noexcept : gpu_(o.gpu_), stream_(std::exchange(o.stream_, nullptr)) {}
  GpuStream& operator=(GpuStream&&) = delete;
  ~GpuStream();  // waits for the work in the stream
  CuStream get() const { return stream_; }

 private:
  GpuStream(Gpu& gpu, CuStream stream) : gpu_(&gpu), stream_(stream) {}
  Gpu* gpu_;
  CuStream stream_;
};

// An event without a clock, recorded after work of ours.
class GpuEvent {
 public:
  static Result<GpuEvent> create(Gpu& gpu);
  GpuEvent(GpuEvent&& o) noexcept : gpu_(o.gpu_), event_(std::exchange(o.event_, nullptr)) {}
  GpuEvent& operator=(GpuEvent&&) = delete;
  ~GpuEvent();

  // After everything in `stream`, which must outlive the next query.
  void record(const GpuStream& stream);
  // kSuccess: that work is over. kNotReady. Else the error that ended it.
  //
  // If the driver cannot record or query, both wait for the stream instead (the one place where a
  // step may block, after an error only): work must never be reported finished while it may still
  // write.
  CuResult query();

 private:
  GpuEvent(Gpu& gpu, CuEvent event) : gpu_(&gpu), event_(event) {}
  Gpu* gpu_;
  CuEvent event_;
  CuStream stream_ = nullptr;             // recorded there last
  CuResult state_ = CuResult::kNotReady;  // not kNotReady: known without the driver
};

}  // namespace kvmm::cuda
