// SPDX-License-Identifier: Apache-2.0
//
// What tests may ask of the libcuda double beyond the driver API.
//
//   test ----dlsym("kvmm_double_step")----+
//                                         v
//   cuda driver --dlsym("cuMemMap")--> libcuda.so.1 (the double): memfds, mmap, queues
//
// The cuda driver must not use any of these names: tests/drivers/cuda/api_test.cc searches its
// object files for them. The GPU's addresses are addresses of this process, so that a test plays
// the GPU's kernels with plain loads and stores: where the GPU would have no access, they die.
//
// Time passes only by `step`: one queued operation of one stream is done, or everything up to the
// end of a stream by cuStreamSynchronize. The bytes of a copy are taken then.
//
// Thread safety: every entry point takes one recursive lock; `launch`ed functions run under it.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

// What is alive. All zero after everything was given back.
struct KvmmDoubleCounts {
  uint64_t allocations;   // handles not released, or memory kept alive by a mapping
  uint64_t mappings;      // cuMemMap without cuMemUnmap
  uint64_t reservations;  // address ranges
  uint64_t host_areas;    // cuMemHostAlloc without cuMemFreeHost
  uint64_t streams;
  uint64_t events;
  uint64_t contexts;         // retains of the primary context
  uint64_t pushed;           // contexts on the calling thread's stack
  uint64_t pageable_copies;  // copies from or to host memory that is not pinned, since the reset
};

struct KvmmDoubleConfig {
  uint64_t granularity;  // bytes
  uint64_t memory;       // bytes of device memory
  int devices;
  int vmm;                 // value of the attribute
  int read_only_mappings;  // 0: cuMemSetAccess(PROT_READ) answers CUDA_ERROR_NOT_SUPPORTED
};

// Forgets everything, as after a start of the process, and takes a configuration (null: one GPU of
// 128 MiB with 2 MiB granularity).
using KvmmDoubleReset = void (*)(const KvmmDoubleConfig*);
using KvmmDoubleGetCounts = void (*)(KvmmDoubleCounts*);
// Runs at most `max` operations, each the oldest of its stream, streams in turn. Returns how many.
using KvmmDoubleStep = size_t (*)(size_t max);
// Runs at most one operation of one stream.
using KvmmDoubleStepStream = size_t (*)(void* stream);
// The `nth` (from 1) call counted from now, of the named entry point or of any (null), fails with
// `result` and does nothing else. Rules add up; nth 0 drops all of them. "Any" leaves out
// cuCtxPopCurrent and cuGetErrorName: the real ones fail on misuse only.
using KvmmDoubleFail = void (*)(const char* entry_point, uint64_t nth, int result);
// The name of the entry point that was made to fail last, or null.
using KvmmDoubleFailed = const char* (*)();
// Calls since the reset of the named entry point, or of any (null) as above.
using KvmmDoubleCalls = uint64_t (*)(const char* entry_point);
// Queues a "kernel": `run(argument)` is called by a step, in stream order.
using KvmmDoubleLaunch = int (*)(void* stream, void (*run)(void*), void* argument);

}  // extern "C"
