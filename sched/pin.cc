// SPDX-License-Identifier: Apache-2.0
#include "sched/pin.h"

#include <algorithm>

#include "sched/mm.h"

namespace kvmm {
namespace {

template <class Fn>
void for_each_page(const std::vector<PinRange>& ranges, Fn&& fn) {
  for (const PinRange& r : ranges) {
    for (const PinSpan& s : r.spans) {
      for (uint32_t i = s.begin; i < s.end; ++i) {
        fn(s.object->page(i));
      }
    }
  }
}

bool fence_is_done(const Fence& f) {
  return f.kind == Fence::Kind::kNone ||
         (f.kind == Fence::Kind::kCallback && f.done != nullptr && f.done(f.handle) != 0);
}

PinAnswer answer_of(const PinRange& r) {
  if (r.answer == PinAnswer::kRecompute || r.answer == PinAnswer::kFailed) {
    return r.answer;
  }
  return r.missing == 0 ? PinAnswer::kReady : PinAnswer::kComing;
}

}  // namespace

Result<void> Mm::pin(PinBatch& batch, Tick now) {
  now_ = now;
  check(!batch.pinned, "a batch is pinned once");
  uint64_t bytes = 0;
  bool sealed = false;
  bool full = false;
  for (const PinRange& r : batch.ranges) {
    for (const PinSpan& s : r.spans) {
      if (s.begin > s.end || s.end > s.object->pages()) {
        return Errc::kRange;
      }
      bytes += (s.end - s.begin) * s.object->page_size().value();
      for (uint32_t i = s.begin; i < s.end; ++i) {
        const Page& p = s.object->page(i);
        sealed =
            sealed || (r.write && p.content == Content::kSealed && p.place != Place::kDiscarded);
        full = full || p.pins == UINT16_MAX;
      }
    }
  }
  if (sealed) {
    return Errc::kSealed;
  }
  if (bytes > zones_.capacity().value() || full) {
    return full ? Errc::kLimit : Errc::kNoMemory;
  }
  batch.pinned = true;
  ++pins_open_;
  pin_table_.open.push_back(batch);
  for (PinRange& r : batch.ranges) {
    r.missing = 0;
    r.answer = PinAnswer::kComing;
    touched(*r.space, now);
    std::erase_if(r.spans, [](const PinSpan& s) { return s.begin == s.end; });
    for (const PinSpan& s : r.spans) {
      for (uint32_t i = s.begin; i < s.end; ++i) {
        Page& p = s.object->page(i);
        ++p.pins;
        clear_want_out(p);
        cancel_demotion(p);
        if (p.place == Place::kMapped && !p.has(Page::kDoomed)) {
          continue;
        }
        if (p.place == Place::kDiscarded) {
          r.answer = PinAnswer::kRecompute;
          continue;
        }
        ++r.missing;
        p.set(Page::kPinWaited);
      }
    }
  }
  // Only now are pages moved: an answer that comes at once finds every count complete.
  for_each_page(batch.ranges, [&](Page& p) {
    if (p.has(Page::kPinWaited)) {
      stop_waiting(p);
      p.object->for_each_pte(p.index, [&](Vma& v, Pte& pte) {
        if (v.space == p.object->home() && !pte.has(Pte::kPresent)) {
          pte.set(Pte::kWanted);
        }
        return true;
      });
      if (p.object->home() != nullptr) {
        touched_from(p, p.object->home()->home_row);
      }
      p.set(Page::kWantMapped);
      advance(p);
    }
  });
  pin_poll(batch);
  trace(TraceEvent::pin, batch.ranges.empty() ? 0 : batch.ranges[0].space->id(), bytes);
  return {};
}

// A page that pins wait for is mapped, or will never be.
void Mm::pin_arrived(Page& p) {
  if (!p.has(Page::kPinWaited)) {
    return;
  }
  p.clear(Page::kPinWaited);
  for (auto it = pin_table_.open.begin(); it != pin_table_.open.end();) {
    PinBatch& batch = *it++;
    bool concerns = false;
    for (PinRange& r : batch.ranges) {
      for (const PinSpan& s : r.spans) {
        if (s.object == p.object && p.index >= s.begin && p.index < s.end && r.missing != 0) {
          --r.missing;
          concerns = true;
          if (p.place == Place::kDiscarded) {
            r.answer = PinAnswer::kRecompute;
          } else if (p.place != Place::kMapped) {
            r.answer = PinAnswer::kFailed;
          }
        }
      }
    }
    if (concerns) {
      pin_poll(batch);
    }
  }
}

void Mm::pin_poll(PinBatch& batch) {
  bool coming = false;
  for (PinRange& r : batch.ranges) {
    r.answer = answer_of(r);
    coming = coming || r.missing != 0;
  }
  if (!coming && batch.hook.is_linked()) {
    pin_table_.open.erase(pin_table_.open.iterator_to(batch));
    if (batch.settled != nullptr) {
      batch.settled(batch.context);
    }
  }
}

Result<void> Mm::unpin(PinBatch& batch, const Fence& fence) {
  if (fence.kind == Fence::Kind::kEvent) {
    return Error(Errc::kNotSupported, "this tier has no events: use a callback fence");
  }
  if (fence.kind == Fence::Kind::kCallback && fence.done == nullptr) {
    return Errc::kInvalid;
  }
  check(batch.pinned, "only a pinned batch is unpinned");
  if (batch.hook.is_linked()) {
    pin_table_.open.erase(pin_table_.open.iterator_to(batch));
  }
  batch.pinned = false;
  --pins_open_;
  fenced_.push_back({std::move(batch.ranges), fence});
  step_fences();
  return {};
}

void Mm::step_fences() {
  for (size_t i = 0; i < fenced_.size();) {
    if (!fence_is_done(fenced_[i].fence)) {
      ++i;
      continue;
    }
    for_each_page(fenced_[i].ranges, [&](Page& p) {
      check(p.pins != 0, "pins are counted", p.index, p.flags);
      --p.pins;
      if (p.pins == 0) {
        p.clear(Page::kPinWaited);
      }
      advance(p);
    });
    for (const PinRange& r : fenced_[i].ranges) {
      if (!r.spans.empty()) {  // else nothing kept the session open: it may be gone
        trace(TraceEvent::unpin, r.space->id());
      }
    }
    fenced_.erase(fenced_.begin() + static_cast<ptrdiff_t>(i));
  }
}

}  // namespace kvmm
