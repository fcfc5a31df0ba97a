// SPDX-License-Identifier: Apache-2.0
#include "sched/thread_rows.h"

#include <algorithm>

namespace kvmm {

std::span<ThreadRows::Slot> ThreadRows::ways(uint32_t thread) {
  constexpr uint32_t kGolden = 2654435769;  // Knuth's multiplicative hash
  const uint32_t set = (thread * kGolden >> 16) % (kSlots / kWays);
  return std::span(slots_).subspan(size_t{set} * kWays, kWays);
}

ThreadRows::Slot* ThreadRows::find(uint32_t thread) {
  for (Slot& s : ways(thread)) {
    if (s.thread == thread) {
      return &s;
    }
  }
  return nullptr;
}

std::optional<uint8_t> ThreadRows::row_of(uint32_t thread, Tick now) {
  if (thread == 0) {
    return std::nullopt;
  }
  Slot* s = find(thread);
  if (s == nullptr) {
    const auto all = ways(thread);
    s = &*std::min_element(all.begin(), all.end(), [](const Slot& a, const Slot& b) {
      return a.thread == 0 ? b.thread != 0 : b.thread != 0 && a.used < b.used;
    });
    *s = Slot();
    s->thread = thread;
  }
  s->used = now;
  s->touched = true;
  any_due_ = any_due_ || is_due(*s, now);
  return s->known ? std::optional(s->row) : std::nullopt;
}

bool ThreadRows::is_due(const Slot& s, Tick now) {
  return s.thread != 0 && s.touched && (!s.looked_at || now >= s.looked + kAge);
}

size_t ThreadRows::due(std::span<uint32_t> out, Tick now) {
  size_t n = 0;
  for (const Slot& s : slots_) {
    if (n < out.size() && is_due(s, now)) {
      out[n++] = s.thread;
    }
  }
  any_due_ = n == out.size();
  return n;
}

void ThreadRows::learnt(uint32_t thread, uint8_t row, Tick now) {
  unknown(thread, now);
  if (Slot* s = find(thread)) {
    s->row = row;
    s->known = true;
  }
}

void ThreadRows::unknown(uint32_t thread, Tick now) {
  if (Slot* s = find(thread)) {
    s->known = false;
    s->looked_at = true;
    s->looked = now;
    s->touched = false;
  }
}

}  // namespace kvmm
