// SPDX-License-Identifier: Apache-2.0
//
// A cuda device over the libcuda double, and the double's controls, for tests.
//
//   Rig rig;                       a fresh double, the driver bound to it
//   rig.mmu().submit(...)          through the op tables
//   rig.step(n), rig.settle(cq)    GPU time passes only here
//   rig.engine_stream()            an engine's stream and events, by the API itself
//
// Invariant: the destructor unbinds the device and checks that nothing is left at the double.
#pragma once

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "drivers/cuda/cuda_driver.h"
#include "drivers/cuda/gpu.h"
#include "tests/doubles/libcuda/kvmm_double.h"

namespace kvmm::cuda {

inline constexpr Bytes kPage = mib(2);

// The controls of the double.
struct Controls {
  KvmmDoubleReset reset;
  KvmmDoubleGetCounts counts;
  KvmmDoubleStep step;
  KvmmDoubleStepStream step_stream;
  KvmmDoubleFail fail;
  KvmmDoubleFailed failed;
  KvmmDoubleCalls calls;
  KvmmDoubleLaunch launch;

  static Controls load() {
    void* library = dlopen(KVMM_CUDA_DOUBLE, RTLD_NOW | RTLD_LOCAL);
    EXPECT_NE(library, nullptr) << dlerror();
    Controls c{};
    const auto bind = [&](auto& member, const char* name) {
      member = reinterpret_cast<std::remove_reference_t<decltype(member)>>(dlsym(library, name));
      EXPECT_NE(member, nullptr) << name;
    };
    bind(c.reset, "kvmm_double_reset");
    bind(c.counts, "kvmm_double_counts");
    bind(c.step, "kvmm_double_step");
    bind(c.step_stream, "kvmm_double_step_stream");
    bind(c.fail, "kvmm_double_fail");
    bind(c.failed, "kvmm_double_failed");
    bind(c.calls, "kvmm_double_calls");
    bind(c.launch, "kvmm_double_launch");
    return c;
  }
};

inline DeviceInfo double_info(const std::string& more = "") {
  DeviceInfo info;
  info.name = "gpu0";
  info.bus = "cuda";
  info.options = std::string("lib=") + KVMM_CUDA_DOUBLE + more;
  return info;
}

inline KvmmDoubleCounts counts_of(const Controls& c) {
  KvmmDoubleCounts n{};
  c.counts(&n);
  return n;
}

inline uint64_t leaks(const KvmmDoubleCounts& n) {
  return n.allocations + n.mappings + n.reservations + n.host_areas + n.streams + n.events +
         n.contexts + n.pushed;
}

class Rig {
 public:
  explicit Rig(const KvmmDoubleConfig* config = nullptr) : controls(Controls::load()) {
    controls.reset(config);
    Result<std::unique_ptr<Device>> bound = make_cuda_driver()->bind(double_info(), nullptr);
    EXPECT_TRUE(bound) << bound.error().message();
    device.reset(static_cast<CudaDevice*>(bound->release()));
    Result<CudaApi> loaded = load_cuda_api(KVMM_CUDA_DOUBLE);
    EXPECT_TRUE(loaded);
    api = *loaded;
    // The engine shares the primary context, as an engine on the CUDA runtime does.
    EXPECT_EQ(api.primary_ctx_retain(&context_, 0), CuResult::kSuccess);
    EXPECT_EQ(api.ctx_push_current(context_), CuResult::kSuccess);
    EXPECT_EQ(api.stream_create(&stream_, kStreamNonBlocking), CuResult::kSuccess);
    EXPECT_EQ(api.event_create(&event_, kEventDisableTiming), CuResult::kSuccess);
  }

  ~Rig() {
    if (lost) {
      return;  // nothing can be given back to a lost context
    }
    device.reset();
    EXPECT_EQ(api.event_destroy(event_), CuResult::kSuccess);
    EXPECT_EQ(api.stream_destroy(stream_), CuResult::kSuccess);
    CuContext popped = nullptr;
    EXPECT_EQ(api.ctx_pop_current(&popped), CuResult::kSuccess);
    EXPECT_EQ(api.primary_ctx_release(0), CuResult::kSuccess);
    const KvmmDoubleCounts n = counts_of(controls);
    EXPECT_EQ(leaks(n), 0U) << "allocations " << n.allocations << " mappings " << n.mappings
                            << " reservations " << n.reservations << " host " << n.host_areas
                            << " streams " << n.streams << " events " << n.events << " contexts "
                            << n.contexts << " pushed " << n.pushed;
    EXPECT_EQ(n.pageable_copies, 0U);
  }

  MmuOps& mmu() { return *device->mmu(); }
  CopyOps& copy() { return *device->copy(); }
  DataOps& data() { return *device->data(); }
  CuStream engine_stream() { return stream_; }
  CuEvent engine_event() { return event_; }

  void poll() {
    mmu().poll();
    copy().poll();
    data().poll();
  }

  // Steps and polls until a request is finished; null if nothing more can happen.
  Request* settle(CompletionQueue& cq) {
    for (int idle = 0; idle < 16;) {
      if (Request* r = cq.pop(); r != nullptr) {
        return r;
      }
      idle = controls.step(1) == 0 ? idle + 1 : 0;
      poll();
    }
    return cq.pop();
  }

  // One request through its table, to the end.
  Errc run(MmuOps& ops, MmuRequest& r) { return run_one<MmuRequest>(ops, r); }
  Errc run(CopyOps& ops, CopyRequest& r) { return run_one<CopyRequest>(ops, r); }
  Errc run(DataOps& ops, DataRequest& r) { return run_one<DataRequest>(ops, r); }

  Errc map(VirtAddr va, FrameAddr frame, Prot prot = Prot::kReadWrite) {
    return page_op(MmuOp::kMap, va, frame, prot);
  }
  Errc unmap(VirtAddr va, FrameAddr frame) { return page_op(MmuOp::kUnmap, va, frame); }
  Errc page_op(MmuOp op, VirtAddr va, FrameAddr frame, Prot prot = Prot::kReadWrite) {
    std::array<MapEntry, 1> e{MapEntry{.va = va, .frame = frame}};
    MmuRequest r;
    r.op = op;
    r.prot = prot;
    r.page_size = kPage;
    r.entries = e;
    return run(mmu(), r);
  }
  Errc copy_now(FrameAddr to, FrameAddr from, Bytes length = kPage) {
    CopyRequest r;
    r.to = to;
    r.from = from;
    r.length = length;
    return run(copy(), r);
  }

  const Controls controls;
  CudaApi api{};
  std::unique_ptr<CudaDevice> device;
  bool lost = false;  // set by a test that loses the context

 private:
  template <class R, class Ops>
  Errc run_one(Ops& ops, R& r) {
    CompletionQueue cq;
    r.queue = &cq;
    std::array<R*, 1> one{&r};
    EXPECT_EQ(ops.submit(one), 1U);
    Request* done = settle(cq);
    EXPECT_EQ(done, &r) << "the request is never finished";
    return done == &r ? r.result : Errc::kAgain;
  }

  CuContext context_ = nullptr;
  CuStream stream_ = nullptr;
  CuEvent event_ = nullptr;
};

inline std::byte* bytes_at(uint64_t addr) {
  return reinterpret_cast<std::byte*>(addr);
}

// Content that differs from page to page and from piece to piece.
inline void fill_pattern(std::byte* p, uint64_t length, uint64_t seed) {
  uint64_t x = seed * 0x9e3779b97f4a7c15U + 1;
  for (uint64_t i = 0; i + 8 <= length; i += 8) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    std::memcpy(p + i, &x, 8);
  }
}

}  // namespace kvmm::cuda
