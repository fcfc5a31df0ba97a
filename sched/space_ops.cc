// SPDX-License-Identifier: Apache-2.0
//
// What sessions ask for: append, truncate, discard, recompute, advice, and their end.
#include <algorithm>

#include "sched/mm.h"

namespace kvmm {
namespace {

template <class Fn>
void for_each_page(AddressSpace& space, Fn&& fn) {
  for (AddressSpace::Mapping& m : space.planes()) {
    for (uint32_t i = 0; i < m.object->used_end(); ++i) {
      fn(m.object->page(i));
    }
  }
}

}  // namespace

void Mm::attach(AddressSpace& space, Tick now) {
  now_ = now;
  space.last_active = now;
  spaces_.push_front(space);
  for (const AddressSpace::Mapping& m : space.planes()) {
    welcome(*m.vma);
  }
  trace(TraceEvent::session_open, space.id(), space.arena().spec.id, space.spec().lane);
}

void Mm::poison_stray(VirtAddr touched, VirtAddr page, Bytes size) {
  if (stray_count_ < kStrays) {
    strays_[stray_count_] = page;
  }
  stray_count_ = std::min(stray_count_ + 1, kStrays + 1);
  say({MmNotice::Kind::kStrayTouch, Errc::kRange, 0, touched.value(), 0, 0});
  mmu_now(MmuOp::kPoison, page, size);
}

void Mm::welcome(const Vma& vma) {
  if (stray_count_ == 0 || mmu_->info().asynchronous) {
    return;
  }
  if (stray_count_ > kStrays) {  // an engine that strays all the time pays for all of its pages
    for (uint32_t i = 0; i < vma.pages; ++i) {
      mmu_now(MmuOp::kClear, vma.address_of(i), vma.page_size);
    }
    return;
  }
  for (uint32_t i = 0; i < stray_count_;) {
    if (strays_[i] < vma.start || strays_[i] >= vma.end()) {
      ++i;
      continue;
    }
    mmu_now(MmuOp::kClear, vma.address_of(vma.page_at(strays_[i])), vma.page_size);
    strays_[i] = strays_[--stray_count_];
  }
}

Result<void> Mm::detach_begin(AddressSpace& space, MmJob& job) {
  bool pinned = false;
  for_each_page(space, [&](Page& p) { pinned = pinned || p.pins != 0; });
  if (pinned) {
    return Errc::kBusy;
  }
  if (space.doom_job != nullptr || space.clean_job != nullptr) {
    return Errc::kAgain;
  }
  space.closing = true;
  for (PrefetchJob& j : prefetch_) {
    if (j.space == &space) {
      j.space = nullptr;
    }
  }
  space.doom_job = &job;
  ++job.pending;  // held until every page has been looked at
  for_each_page(space, [&](Page& p) {
    clear_want_mapped(p);
    doom(p, job);
  });
  --job.pending;
  return {};
}

void Mm::detach_end(AddressSpace& space) {
  space.doom_job = nullptr;
  for (AddressSpace::Mapping& m : space.planes()) {
    // A thread that waits here although the session is closed gets an error, not an endless wait.
    mmu_->wake({m.vma->start, m.vma->page_size * m.vma->pages});
  }
  spaces_.erase(spaces_.iterator_to(space));
  trace(TraceEvent::session_close, space.id(), space.arena().spec.id, space.spec().lane);
}

Result<void> Mm::append(AddressSpace& space, uint64_t n) {
  if (space.raw()) {
    return Error(Errc::kInvalid, "a raw session has no tokens: kvmm_append needs a structured one");
  }
  if (n > space.token_capacity() - std::min(space.tokens, space.token_capacity())) {
    return Errc::kRange;
  }
  const uint64_t before = space.tokens;
  space.tokens += n;
  space.stats.tokens.store(space.tokens, std::memory_order_relaxed);
  touched(space, now_);
  seal(space, before, space.tokens, space.tokens);
  return {};
}

// Seals the pages of [a, b) that no token from `written` on has a byte in.
void Mm::seal(AddressSpace& space, uint64_t a, uint64_t b, uint64_t written) {
  for (uint32_t plane = 0; plane < space.planes().size(); ++plane) {
    if (space.arena().planes[plane].window != 0) {
      continue;  // a ring is rewritten: its pages never seal
    }
    Object& o = *space.planes()[plane].object;
    const auto touched_pages = space.pages_of_tokens(plane, a, b);
    const auto whole = space.whole_pages_of_tokens(plane, 0, written);
    for (uint32_t i = touched_pages.begin; i < std::min(touched_pages.end, whole.end); ++i) {
      Page& p = o.page(i);
      if (p.content != Content::kSealed && p.place != Place::kDiscarded) {
        p.content = Content::kSealed;
        // The checksum may be of bytes from before, unless no engine reached the page since.
        const bool same = p.place == Place::kSwapped || p.place == Place::kReading ||
                          (p.place == Place::kUnmapped && p.has(Page::kProvedClean));
        p.clear(Page::kSealSummed);
        if (same && p.has(Page::kHasChecksum)) {
          p.set(Page::kSealSummed);
        }
        trace_of(TraceEvent::seal, p, p.generation);
      }
    }
  }
}

Result<void> Mm::truncate(AddressSpace& space, uint64_t tokens, MmJob& job) {
  if (space.raw()) {
    return Error(Errc::kInvalid, "a raw session has no tokens: use kvmm_arena_clear");
  }
  if (tokens > space.tokens) {
    return Errc::kRange;
  }
  auto first_dropped = [&](uint32_t plane) { return space.pages_of_tokens(plane, 0, tokens).end; };
  for (uint32_t plane = 0; plane < space.planes().size(); ++plane) {
    Object& o = *space.planes()[plane].object;
    for (uint32_t i = first_dropped(plane); i < o.used_end(); ++i) {
      if (o.page(i).pins != 0) {
        return Errc::kBusy;
      }
    }
  }
  if (space.doom_job != nullptr) {
    return Errc::kAgain;
  }
  space.tokens = tokens;
  space.stats.tokens.store(tokens, std::memory_order_relaxed);
  space.doom_job = &job;
  ++job.pending;
  for (uint32_t plane = 0; plane < space.planes().size(); ++plane) {
    Object& o = *space.planes()[plane].object;
    const uint32_t end = first_dropped(plane);
    if (end != 0 && end - 1 < o.used_end()) {
      Page& last = o.page(end - 1);
      const auto whole = space.whole_pages_of_tokens(plane, 0, tokens);
      if (whole.end < end && last.content == Content::kSealed) {
        last.content = Content::kOpen;  // its next rewrite is a new generation
      }
    }
    for (uint32_t i = end; i < o.used_end(); ++i) {
      doom(o.page(i), job);
    }
  }
  --job.pending;
  return {};
}

Result<void> Mm::discard_tokens(AddressSpace& space, uint64_t a, uint64_t b, MmJob& job) {
  if (a > b || (!space.raw() && b > space.tokens)) {
    return Errc::kRange;
  }
  const bool all = a == 0 && b == UINT64_MAX;
  for (const PlaneSpec& p : space.arena().planes) {
    if (p.token_stride.value() == 0 && !all && a != b) {
      return Error(Errc::kInvalid, "plane '" + p.name +
                                       "' has no token_stride: only all of its tokens, "
                                       "[0, KVMM_ALL_TOKENS), can be discarded");
    }
  }
  if (space.doom_job != nullptr) {
    return Errc::kAgain;
  }
  for (int pass = 0; pass < 2; ++pass) {
    if (pass == 1) {
      space.doom_job = &job;
      ++job.pending;
    }
    for (uint32_t plane = 0; plane < space.planes().size(); ++plane) {
      Object& o = *space.planes()[plane].object;
      const auto r = space.whole_pages_of_tokens(plane, a, b);
      for (uint32_t i = r.begin; i < std::min(r.end, o.used_end()); ++i) {
        if (pass == 0 && o.page(i).pins != 0) {
          return Errc::kBusy;
        }
        if (pass == 1) {
          doom(o.page(i), job);
        }
      }
    }
  }
  --job.pending;
  return {};
}

Result<void> Mm::clear_range(AddressRange range, MmJob& job) {
  auto each = [&](auto&& fn) {
    for (Vma* v = map_->first_ending_after(range.start); v != nullptr && v->start < range.end();
         v = map_->first_ending_after(v->end())) {
      const uint64_t size = v->page_size.value();
      const uint64_t from = std::max(range.start.value(), v->start.value()) - v->start.value();
      const uint64_t to = std::min(range.end().value(), v->end().value()) - v->start.value();
      const auto begin = static_cast<uint32_t>((from + size - 1) / size);
      const auto end = std::min(static_cast<uint32_t>(to / size), v->object->used_end());
      for (uint32_t i = begin; i < end; ++i) {
        fn(*v, v->object->page(i));
      }
    }
  };
  Errc refused = Errc::kOk;
  each([&](Vma& v, Page& p) {
    refused = p.pins != 0 ? Errc::kBusy : refused;
    const MmJob* other = v.space->doom_job;
    refused = other != nullptr && other != &job && refused == Errc::kOk ? Errc::kAgain : refused;
  });
  if (refused != Errc::kOk) {
    return refused;
  }
  ++job.pending;
  each([&](Vma& v, Page& p) {
    v.space->doom_job = &job;
    doom(p, job);
  });
  --job.pending;
  return {};
}

void Mm::end_job(MmJob& job) {
  for (AddressSpace& s : spaces_) {
    s.doom_job = s.doom_job == &job ? nullptr : s.doom_job;
    s.clean_job = s.clean_job == &job ? nullptr : s.clean_job;
  }
}

Result<void> Mm::recompute_begin(AddressSpace& space, uint64_t a, uint64_t b) {
  if (space.raw() || a >= b || b > space.tokens) {
    return space.raw() ? Errc::kInvalid : Errc::kRange;
  }
  bool any = false;
  bool partly = false;
  auto each = [&](auto&& fn) {
    for (uint32_t plane = 0; plane < space.planes().size(); ++plane) {
      Object& o = *space.planes()[plane].object;
      const auto r = space.pages_of_tokens(plane, a, b);
      for (uint32_t i = r.begin; i < std::min(r.end, o.used_end()); ++i) {
        fn(plane, o.page(i));
      }
    }
  };
  each([&](uint32_t plane, const Page& p) {
    if (p.place == Place::kDiscarded) {
      uint64_t first = 0;
      uint64_t end = 0;
      space.tokens_of_page(plane, p.index, &first, &end);
      any = true;
      partly = partly || first < a || std::min(end, space.tokens) > b;
    }
  });
  if (!any) {
    return Error(Errc::kInvalid, "nothing of these tokens is gone");
  }
  if (partly) {  // its other tokens would read as zeros, and nobody would know
    return Error(Errc::kRange, "a page that is gone holds tokens outside of these as well");
  }
  each([&](uint32_t, Page& p) {
    if (p.place == Place::kDiscarded) {
      drop(p);  // reads as zeros, a new generation, no poison
    } else if (p.content == Content::kSealed) {
      p.content = Content::kOpen;  // a plane that is whole: the engine writes every plane again
    }
  });
  trace(TraceEvent::recompute, space.id(), a, b);
  return {};
}

Result<void> Mm::recompute_end(AddressSpace& space, uint64_t a, uint64_t b) {
  if (space.raw() || a >= b || b > space.tokens) {
    return space.raw() ? Errc::kInvalid : Errc::kRange;
  }
  seal(space, a, b, space.tokens);
  return {};
}

void Mm::for_each_gone(AddressSpace& space, const std::function<void(uint64_t, uint64_t)>& fn) {
  for (uint32_t plane = 0; plane < space.planes().size(); ++plane) {
    Object& o = *space.planes()[plane].object;
    for (uint32_t i = 0; i < o.used_end(); ++i) {
      if (o.page(i).place == Place::kDiscarded) {
        uint64_t first = 0;
        uint64_t end = 0;
        space.tokens_of_page(plane, i, &first, &end);
        fn(first, std::min(end, std::max(space.tokens, first)));
      }
    }
  }
}

void Mm::advise(AddressSpace& space, Advice advice) {
  space.advice = advice;
  if (advice == Advice::kRunning) {
    touched(space, now_);
  }
}

void Mm::evict(AddressSpace& space) {
  for (PrefetchJob& j : prefetch_) {
    if (j.space == &space) {
      j.space = nullptr;
    }
  }
  for_each_page(space, [&](Page& p) {
    if (p.has(Page::kWaiting) && !p.has(Page::kUrgent) && p.pins == 0 &&
        p.place == Place::kSwapped) {
      stop_waiting(p);  // was to be prefetched: not any more
      clear_want_mapped(p);
      p.clear(Page::kWantResident);
    }
    set_want_out(p);
  });
}

void Mm::clean(AddressSpace& space, MmJob& job) {
  space.clean_job = &job;
  ++job.pending;
  for_each_page(space, [&](Page& p) {
    const bool has_content = place_has_frame(p.place) && p.place != Place::kReading;
    if (p.has(Page::kWantClean)) {
      ++job.pending;  // begun by write-back ahead: it reports to this job now
    } else if (has_content && !p.has(Page::kDoomed)) {
      if (p.pins != 0) {
        job.result = Errc::kBusy;
        return;
      }
      p.set(Page::kWantClean);
      p.clear(Page::kWriteBlocked);
      ++job.pending;
      advance(p);
    }
  });
  --job.pending;
}

}  // namespace kvmm
