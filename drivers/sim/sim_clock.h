// SPDX-License-Identifier: Apache-2.0
//
// The virtual clock of simulated devices: it stands until somebody moves it.
//
//   device: clock.alarm(due)         "something happens then"
//   loop:   while (work left) {
//             step everything;                        at clock.now()
//             if (nothing moved) clock.advance_to_alarm();
//           }
//
// Invariants: now() never goes back. Every alarm that has been set and not passed is in the heap;
// alarms are hints, several may stand at one tick.
//
// Thread safety: one thread.
#pragma once

#include <functional>
#include <optional>
#include <queue>
#include <vector>

#include "runtime/base/check.h"
#include "runtime/base/clock.h"

namespace kvmm {

class SimClock final : public Clock {
 public:
  Tick now() noexcept override { return now_; }

  void advance(Tick by) { advance_to(now_ + by); }
  void advance_to(Tick when) {
    check(when >= now_, "time does not go back", when, now_);
    now_ = when;
  }

  // Asks to be polled at `when`; in the past: at once.
  void alarm(Tick when) { alarms_.push(when); }
  // The next alarm that has not passed; none: no simulated device has work in flight.
  std::optional<Tick> next_alarm() {
    while (!alarms_.empty() && alarms_.top() <= now_) {
      alarms_.pop();
    }
    return alarms_.empty() ? std::nullopt : std::optional<Tick>(alarms_.top());
  }
  // Jumps to it. False: there is none, and nothing happened.
  bool advance_to_alarm() {
    const std::optional<Tick> next = next_alarm();
    if (next) {
      now_ = *next;
    }
    return next.has_value();
  }

 private:
  Tick now_;
  std::priority_queue<Tick, std::vector<Tick>, std::greater<>> alarms_;
};

}  // namespace kvmm
