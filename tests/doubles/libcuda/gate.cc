// SPDX-License-Identifier: Apache-2.0
#include "tests/doubles/libcuda/gate.h"

namespace kvmm::cuda_double {

std::recursive_mutex& lock() {
  static std::recursive_mutex m;
  return m;
}

std::unique_ptr<Double>& instance() {
  static std::unique_ptr<Double> d = std::make_unique<Double>(kDefault);
  return d;
}

std::vector<CuContext>& current_contexts() {
  static thread_local std::vector<CuContext> s;
  return s;
}

CuContext primary_context() {
  return reinterpret_cast<CuContext>(0x4100);
}

bool counts_as_any(const std::string& name) {
  return name != "cuCtxPopCurrent_v2" && name != "cuGetErrorName";
}

CuResult pass_gate(Double& d, const char* name, Needs needs) {
  ++d.calls[name];
  for (FailRule& rule : d.fail_rules) {
    if (rule.in != 0 && (rule.name.empty() ? counts_as_any(name) : rule.name == name) &&
        --rule.in == 0) {
      d.failed = name;
      return rule.result;
    }
  }
  if (needs != Needs::kNothing && !d.initialized) {
    return CuResult::kNotInitialized;
  }
  if (needs == Needs::kContext) {
    const std::vector<CuContext>& stack = current_contexts();
    if (stack.empty() || stack.back() != primary_context() || d.retains == 0) {
      return CuResult::kInvalidContext;
    }
    return d.lost;
  }
  return CuResult::kSuccess;
}

void run(Double& d, const Streams::Work& work) {
  const CuResult r = work();
  if (r != CuResult::kSuccess) {
    d.lost = r;
    d.streams.drop_all();
  }
}

CuResult drain(Double& d, CuStream stream) {
  const uint64_t s = reinterpret_cast<uint64_t>(stream);
  if (!d.streams.has_stream(s)) {
    return CuResult::kInvalidHandle;
  }
  Streams::Work work;
  while (d.streams.take(s, &work)) {
    run(d, work);
  }
  return d.lost;
}

}  // namespace kvmm::cuda_double
