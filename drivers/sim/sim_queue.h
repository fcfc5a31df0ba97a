// SPDX-License-Identifier: Apache-2.0
//
// Requests that wait for their tick, for the simulated copy engine and data workers.
//
//   submit -> (inline: performed and finished at once) | waits until its due tick -> poll performs
//
// Bytes move when the request is performed, so that whoever changes them in between is seen.
//
// Invariants: order of due time, equal ones in order of submit; never more than `depth` wait.
// Thread safety: one thread.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "drivers/request.h"
#include "drivers/sim/sim_clock.h"
#include "runtime/base/check.h"

namespace kvmm {

struct SimTiming {
  bool asynchronous = false;  // false: everything happens inside submit
  Tick latency;               // of one request
  uint64_t bytes_per_s = 0;   // one after another; 0: takes no time
  uint32_t depth = 64;
};

// Nanoseconds that `bytes` take at `bytes_per_s`, in two parts so that nothing overflows.
constexpr Tick transfer_time(uint64_t bytes, uint64_t bytes_per_s) {
  constexpr uint64_t kNanos = 1'000'000'000;
  return bytes_per_s == 0
             ? Tick(0)
             : Tick(bytes / bytes_per_s * kNanos + bytes % bytes_per_s * kNanos / bytes_per_s);
}

template <class R>
class SimQueue {
 public:
  SimQueue(SimClock& clock, const SimTiming& timing) : clock_(clock), timing_(timing) {
    pending_.reserve(timing.depth);
  }

  // `perform(R&)` does the work and returns its Errc.
  template <class Perform>
  size_t submit(std::span<R* const> requests, Perform perform) {
    size_t taken = 0;
    for (R* r : requests) {
      if (!timing_.asynchronous) {
        finish(*r, perform(*r));
      } else if (pending_.size() == timing_.depth) {
        break;
      } else {
        engine_free_ = std::max(engine_free_, clock_.now()) +
                       transfer_time(r->length.value(), timing_.bytes_per_s);
        // One latency for all: due times never fall, and the vector stays sorted.
        pending_.push_back({engine_free_ + timing_.latency, r});
        clock_.alarm(pending_.back().due);
      }
      ++taken;
    }
    return taken;
  }

  template <class Perform>
  void poll(Perform perform) {
    while (!pending_.empty() && pending_.front().due <= clock_.now()) {
      R* r = pending_.front().request;
      pending_.erase(pending_.begin());
      finish(*r, perform(*r));
    }
  }

  bool idle() const { return pending_.empty(); }

 private:
  struct Pending {
    Tick due;
    R* request;
  };
  void finish(R& r, Errc result) {
    check(r.queue != nullptr, "a request names the queue that it returns to");
    r.result = result;
    r.os_error = 0;
    r.queue->push(r);
  }

  SimClock& clock_;
  SimTiming timing_;
  Tick engine_free_;
  std::vector<Pending> pending_;  // sorted by due
};

}  // namespace kvmm
