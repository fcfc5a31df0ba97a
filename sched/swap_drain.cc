// SPDX-License-Identifier: Apache-2.0
//
// Emptying a swap area: for swapoff, or because its device fails or has gone.
//
//   the page is      the area works                      its device has gone
//   resident         gives its slot back                 likewise
//   swapped          is read, then gives its slot back   lost: recompute, or SIGBUS at a touch
//   in flight        is looked at again                  likewise; its I/O comes back with an error
//
// A page that was read needs a frame; if there is none, reclaim writes others out, to other areas.
// Nothing else is special: verification, retries and lost content are those of every read.
#include <algorithm>

#include "sched/mm.h"

namespace kvmm {
namespace {

constexpr uint32_t kReadsAtOnce = 16;
constexpr Tick kRescueWait = millis(1000);

bool has_gone(const SwapArea& area) {
  return area.health().verdict() == SwapHealth::Verdict::kGone;
}

bool is_out_of_use(const SwapArea& area) {
  return has_gone(area) || area.health().verdict() == SwapHealth::Verdict::kFailing;
}

}  // namespace

void Mm::drain(DrainJob& job) {
  IoQueue& q = queue_of(*job.area);
  std::erase(drains_, q.rescue.get());  // this one takes over
  q.leaving = true;
  job.area->set_accepting(false);
  job.lost_before = job.area->stats().lost_pages;
  drains_.push_back(&job);
}

bool Mm::draining(const SwapArea& area) {
  return queue_of(area).leaving;
}

bool Mm::emptied(const SwapArea& area) {
  const IoQueue& q = queue_of(area);
  return is_out_of_use(area) && area.used_bytes() == Bytes(0) && !area.io_in_flight() &&
         !uses(area) && !q.leaving && q.waiting.empty();
}

void Mm::step_drain() {
  for (size_t n = 0; n < drains_.size();) {
    DrainJob& job = *drains_[n];
    IoQueue& q = queue_of(*job.area);
    const bool rescue = q.rescue.get() == &job;
    const bool goes_on = step_drain(job);
    if (!job.done && !goes_on) {  // nothing more can be done for it
      if (rescue) {
        q.rescue_at = now_ + kRescueWait;
      } else {
        explain(job);
        job.done = true;
        q.leaving = false;
        job.area->set_accepting(!is_out_of_use(*job.area));
        swap_room_changed_ = true;  // pages that found no room meanwhile may try again
      }
    }
    job.lost_pages = job.area->stats().lost_pages - job.lost_before;
    if (job.done || !goes_on) {
      drains_.erase(drains_.begin() + static_cast<ptrdiff_t>(n));
    } else {
      ++n;
    }
  }
}

// False: it is stuck. Sets `done` when the area is empty.
bool Mm::step_drain(DrainJob& job) {
  uint32_t started = 0;
  bool moved = false;
  for (AddressSpace& s : spaces_) {
    for (AddressSpace::Mapping& m : s.planes()) {
      for (uint32_t i = 0; i < m.object->used_end(); ++i) {
        Page& p = m.object->page(i);
        if (p.slot != 0 && SlotId(p.slot).area() == job.area->id()) {
          moved = drain_page(job, p, &started) || moved;
        }
      }
    }
  }
  // A slot whose page's write is in flight is used as well.
  job.done = job.area->used_bytes() == Bytes(0);
  return moved || passed_over_ || ops_in_flight_ != 0 || !completions_->empty() ||
         out_bytes() != 0 || !room_wait_.empty() || !retry_.empty();
}

// A page with a slot there. True: something was done for it.
bool Mm::drain_page(DrainJob& job, Page& p, uint32_t* started) {
  switch (p.place) {
    case Place::kMapped:
    case Place::kUnmapped:
    case Place::kMapping:
    case Place::kUnmapping:
    case Place::kFilling:
    case Place::kChecking:
      release_slot(p);
      return true;
    case Place::kSwapped:
      break;
    default:
      return false;  // in flight
  }
  if (has_gone(*job.area)) {
    stop_waiting(p);
    p.apply(PageEvent::kLose);
    if (AddressSpace* home = p.object->home()) {
      SpaceStats::sub(home->stats.bytes_swapped, p.object->page_size().value());
    }
    content_lost(p, Errc::kDeviceGone);
    return true;
  }
  if (p.has(Page::kWaiting) || *started == kReadsAtOnce || !waiting_.empty()) {
    return false;
  }
  ++*started;
  p.set(Page::kWantResident);
  advance(p);
  return true;
}

// What is left, whose it is, and what it lacks.
void Mm::explain(DrainJob& job) {
  for (AddressSpace& s : spaces_) {
    DrainJob::Holder h{s.id(), 0};
    for (AddressSpace::Mapping& m : s.planes()) {
      for (uint32_t i = 0; i < m.object->used_end(); ++i) {
        const Page& p = m.object->page(i);
        if (p.slot != 0 && SlotId(p.slot).area() == job.area->id()) {
          ++h.pages;
        }
      }
    }
    if (h.pages == 0) {
      continue;
    }
    ++job.sessions_left;
    job.pages_left += h.pages;
    for (DrainJob::Holder& other : job.holders) {
      if (h.pages > other.pages) {
        std::swap(h, other);
      }
    }
  }
  job.bytes_left = job.area->used_bytes();
  job.dram_free = zones_.free_bytes();
  for (const auto& area : swap_->areas()) {
    if (area.get() != job.area) {
      job.other_areas_free += area->free_bytes();
    }
  }
  job.result = swap_->areas().size() > 1 ? Errc::kNoSpace : Errc::kNoMemory;
}

// An area that fails is emptied without being asked; what finds no room is tried again.
void Mm::step_rescue(IoQueue& q) {
  SwapArea& area = *q.area;
  if (!is_out_of_use(area) || q.leaving) {
    return;
  }
  if (area.used_bytes() == Bytes(0)) {
    if (!q.emptied_said && emptied(area)) {
      q.emptied_said = true;
      say_swap(MmNotice::Kind::kSwapEmptied, area, Errc::kOk, area.stats().lost_pages);
    }
    return;
  }
  if (std::find(drains_.begin(), drains_.end(), q.rescue.get()) != drains_.end()) {
    return;
  }
  if (now_ < q.rescue_at) {
    return due_at(q.rescue_at);
  }
  *q.rescue = DrainJob();
  q.rescue->area = &area;
  q.rescue->lost_before = area.stats().lost_pages;
  drains_.push_back(q.rescue.get());
}

}  // namespace kvmm
