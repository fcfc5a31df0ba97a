// SPDX-License-Identifier: Apache-2.0
//
// The double's whole state, and the gate that every entry point passes.
//
//   entry point -> count -> injected failure? -> cuInit done? -> context current? -> lost? -> body
//
// A library has one state for a process, like the real one; `kvmm_double_reset` makes a new one.
//
// Thread safety: everything under `lock()`, which is recursive: work that a step runs may call the
// API. The stack of current contexts is the thread's own.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "tests/doubles/libcuda/device_memory.h"
#include "tests/doubles/libcuda/kvmm_double.h"
#include "tests/doubles/libcuda/streams.h"

#define KVMM_EXPORT extern "C" __attribute__((visibility("default")))

namespace kvmm::cuda_double {

using cuda::CuContext;
using cuda::CuStream;

inline constexpr KvmmDoubleConfig kDefault{2 << 20, 128 << 20, 1, 1, 1};

// What a call needs before it may do anything. The real driver lets a few more calls pass without
// a context; the double does not.
enum class Needs { kNothing, kInit, kContext };

struct FailRule {
  std::string name;  // empty: any
  uint64_t in;       // calls until it fails; 0: it has
  CuResult result;
};

struct Double {
  explicit Double(const KvmmDoubleConfig& c)
      : config(c), memory(c.granularity, c.memory, c.devices, c.read_only_mappings != 0) {}
  const KvmmDoubleConfig config;
  DeviceMemory memory;
  Streams streams;
  std::map<uint64_t, uint64_t> host_areas;  // start -> bytes
  bool initialized = false;
  uint64_t retains = 0;                // of the primary context
  CuResult lost = CuResult::kSuccess;  // the sticky error of the context
  uint64_t pageable_copies = 0;
  std::map<std::string, uint64_t> calls;
  std::vector<FailRule> fail_rules;
  std::string failed;  // the entry point that a rule failed last
};

std::recursive_mutex& lock();
std::unique_ptr<Double>& instance();
std::vector<CuContext>& current_contexts();
CuContext primary_context();
bool counts_as_any(const std::string& name);

// Counts the call; what it answers if its body must not run.
CuResult pass_gate(Double& d, const char* name, Needs needs);

template <class Body>
CuResult enter(const char* name, Needs needs, Body body) {
  const std::lock_guard<std::recursive_mutex> hold(lock());
  Double& d = *instance();
  const CuResult r = pass_gate(d, name, needs);
  return r != CuResult::kSuccess ? r : body(d);
}

// Runs one operation; its failure is that of the context.
void run(Double& d, const Streams::Work& work);
// Runs all of a stream.
CuResult drain(Double& d, CuStream stream);

}  // namespace kvmm::cuda_double
