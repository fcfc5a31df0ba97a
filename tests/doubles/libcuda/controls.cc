// SPDX-License-Identifier: Apache-2.0
//
// The controls of tests: see kvmm_double.h.
#include <sys/mman.h>

#include "tests/doubles/libcuda/gate.h"

namespace kvmm::cuda_double {

KVMM_EXPORT void kvmm_double_reset(const KvmmDoubleConfig* config) {
  const std::lock_guard<std::recursive_mutex> hold(lock());
  for (const auto& [start, bytes] : instance()->host_areas) {
    munmap(reinterpret_cast<void*>(start), bytes);
  }
  instance() = std::make_unique<Double>(config != nullptr ? *config : kDefault);
  current_contexts().clear();
}

KVMM_EXPORT void kvmm_double_counts(KvmmDoubleCounts* out) {
  const std::lock_guard<std::recursive_mutex> hold(lock());
  const Double& d = *instance();
  *out = {d.memory.allocations(),
          d.memory.mappings(),
          d.memory.reservations(),
          d.host_areas.size(),
          d.streams.streams(),
          d.streams.events(),
          d.retains,
          current_contexts().size(),
          d.pageable_copies};
}

KVMM_EXPORT size_t kvmm_double_step(size_t max) {
  const std::lock_guard<std::recursive_mutex> hold(lock());
  Double& d = *instance();
  Streams::Work work;
  size_t ran = 0;
  while (ran < max && d.streams.take_any(&work)) {
    run(d, work);
    ++ran;
  }
  return ran;
}

KVMM_EXPORT size_t kvmm_double_step_stream(void* stream) {
  const std::lock_guard<std::recursive_mutex> hold(lock());
  Streams::Work work;
  if (!instance()->streams.take(reinterpret_cast<uint64_t>(stream), &work)) {
    return 0;
  }
  run(*instance(), work);
  return 1;
}

KVMM_EXPORT void kvmm_double_fail(const char* entry_point, uint64_t nth, int result) {
  const std::lock_guard<std::recursive_mutex> hold(lock());
  Double& d = *instance();
  d.failed.clear();
  if (nth == 0) {
    d.fail_rules.clear();
  } else {
    d.fail_rules.push_back(
        {entry_point != nullptr ? entry_point : "", nth, static_cast<CuResult>(result)});
  }
}

KVMM_EXPORT const char* kvmm_double_failed() {
  const std::lock_guard<std::recursive_mutex> hold(lock());
  return instance()->failed.empty() ? nullptr : instance()->failed.c_str();
}

KVMM_EXPORT uint64_t kvmm_double_calls(const char* entry_point) {
  const std::lock_guard<std::recursive_mutex> hold(lock());
  uint64_t n = 0;
  for (const auto& [name, count] : instance()->calls) {
    n += (entry_point == nullptr ? counts_as_any(name) : name == entry_point) ? count : 0;
  }
  return n;
}

KVMM_EXPORT int kvmm_double_launch(void* stream, void (*fn)(void*), void* argument) {
  return static_cast<int>(enter("kvmm_double_launch", Needs::kContext, [&](Double& d) {
    return d.streams.push(reinterpret_cast<uint64_t>(stream), [fn, argument] {
      fn(argument);
      return CuResult::kSuccess;
    });
  }));
}

}  // namespace kvmm::cuda_double
