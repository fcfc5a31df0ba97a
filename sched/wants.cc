// SPDX-License-Identifier: Apache-2.0
//
// What is wanted of a page, and the next operation towards it. See the table in sched/mm.h.
#include <bit>

#include "sched/mm.h"

namespace kvmm {
namespace {

size_t class_of(Bytes size) {
  return static_cast<size_t>(std::bit_width(size.value()) - 1);
}

void done_one(MmJob* job, Errc result) {
  if (job == nullptr) {
    return;
  }
  check(job->pending != 0, "a job counts its pages");
  --job->pending;
  if (result != Errc::kOk && job->result == Errc::kOk) {
    job->result = result;
  }
}

}  // namespace

// ------------------------------------------------------------------------------------ faults

void Mm::handle_fault(const FaultEvent& fault, Tick now) {
  now_ = now;
  Vma* vma = map_->find(fault.va);
  if (vma == nullptr) {
    // Outside every session: an error, never bytes.
    MmStats::add(stats_.faults_stray);
    trace(TraceEvent::stray, fault.va.value(), fault.thread);
    const VirtAddr page(round_down(fault.va.value(), kPageSizeMin.value()));
    poison_stray(fault.va, page, kPageSizeMin);
    return;
  }
  AddressSpace& space = *vma->space;
  if (space.closing) {  // its pages are being dropped: nothing may be started for it any more
    MmStats::add(stats_.faults_stray);
    trace(TraceEvent::stray, fault.va.value(), fault.thread);
    poison_stray(fault.va, vma->address_of(vma->page_at(fault.va)), vma->page_size);
    return;
  }
  Page& p = vma->object->page(vma->page_at(fault.va));
  Pte& pte = vma->pte_of(p.index);
  const std::optional<uint8_t> row = threads_.row_of(fault.thread, now);
  if (row) {
    space.home_touched = true;
    vote_home(space, *row);
  }
  if (p.has(Page::kHint)) {
    p.clear(Page::kHint);
    MmStats::add(stats_.hints_hit);
  }
  if (p.has(Page::kProbe)) {
    p.clear(Page::kProbe);
    const Tick wait = micros(config_.probe_wait_us.load(std::memory_order_relaxed));
    if (now < space.probed_at + Tick(wait.value() / 4)) {
      space.proved_running = now;  // at once: not one that is merely used now and then
    }
    MmStats::add(stats_.probes_hit);
  }
  touched(space, now);
  if (pte.has(Pte::kPresent)) {
    // Somebody else's fault was quicker; or the page is being unmapped right now: then it comes
    // back.
    MmStats::add(stats_.faults_spurious);
    fault_began(fault, *vma, p, FaultKind::kSpurious);
    if (p.place != Place::kUnmapping) {
      mmu_->wake({vma->address_of(p.index), vma->page_size});
      fault_ended(p, Errc::kOk);
      return;
    }
  } else if (p.place == Place::kNone) {
    MmStats::add(stats_.faults_zero);
    fault_began(fault, *vma, p, FaultKind::kZero);
    SpaceStats::add(space.stats.faults_zero);
  } else if (p.place == Place::kSwapped || p.place == Place::kReading) {
    const bool coming = p.place == Place::kReading || p.has(Page::kWaiting);
    if (coming && !p.has(Page::kUrgent)) {
      MmStats::add(stats_.prefetch_late);
    }
    MmStats::add(stats_.faults_major);
    SpaceStats::add(space.stats.faults_major);
    fault_began(fault, *vma, p, FaultKind::kMajor);
  } else {
    MmStats::add(stats_.faults_minor);
    SpaceStats::add(space.stats.faults_minor);
    fault_began(fault, *vma, p,
                p.place == Place::kDiscarded ? FaultKind::kLost : FaultKind::kMinor);
  }
  const bool major = p.place == Place::kSwapped && !p.has(Page::kUrgent);
  const bool minor = p.place == Place::kUnmapped;
  if (p.has(Page::kReadahead)) {
    p.clear(Page::kReadahead);
    MmStats::add(stats_.readahead_useful);
  }
  if (p.has(Page::kWantOut)) {
    MmStats::add(stats_.reclaim_cancelled);
    clear_want_out(p);
  }
  cancel_demotion(p);
  touched_from(p, row.value_or(space.home_row));
  const bool mark = p.has(Page::kReadaheadMark);
  p.clear(Page::kReadaheadMark);
  pte.set(Pte::kWanted);
  stop_waiting(p);  // it may wait with less urgency
  p.set(Page::kWantMapped);
  p.set(Page::kUrgent);
  advance(p);
  if (minor) {
    fault_around(*vma, p);
  }
  if (major || mark) {
    readahead(space, *vma, p, major);
  }
}

void Mm::want_mapped(Page& p) {
  if (p.place != Place::kMapped && !wanted_somewhere(p)) {
    // Who waited was let go before the page was taken away again; or a pin came while it still was
    // mapped, and wants it back.
    if (!p.has(Page::kPinWaited)) {
      clear_want_mapped(p);
      return advance(p);
    }
    p.object->for_each_pte(p.index, [&](Vma& v, Pte& pte) {
      if (v.space == p.object->home()) {
        pte.set(Pte::kWanted);
      }
      return true;
    });
  }
  switch (p.place) {
    case Place::kMapped: {
      bool more = false;
      p.object->for_each_pte(p.index, [&](Vma& v, Pte& pte) {
        if (pte.has(Pte::kWanted) && pte.has(Pte::kPresent)) {
          pte.clear(Pte::kWanted);
          mmu_->wake({v.address_of(p.index), v.page_size});
        }
        more = more || pte.has(Pte::kWanted);
        return true;
      });
      if (more) {
        return begin_map(p);  // another mapping of a shared page
      }
      clear_want_mapped(p);
      pin_arrived(p);
      return advance(p);
    }
    case Place::kNone:
      return begin_fill(p);
    case Place::kUnmapped:
      return p.has(Page::kWantPromoted) ? begin_migrate(p) : begin_map(p);
    case Place::kSwapped:
      return begin_read(p);
    case Place::kDiscarded:
      return answer_lost(p, Errc::kRecompute);
    default:
      check(false, "nothing is in flight here", p.place, p.flags);
  }
}

bool Mm::wanted_somewhere(Page& p) {
  bool wanted = false;
  p.object->for_each_pte(p.index, [&](Vma&, Pte& pte) {
    wanted = pte.has(Pte::kWanted);
    return !wanted;
  });
  return wanted;
}

void Mm::clear_want_mapped(Page& p) {
  fault_ended(p, p.place == Place::kMapped ? Errc::kOk : Errc::kDeviceGone);
  p.clear(Page::kWantMapped);
  p.clear(Page::kUrgent);
  p.object->for_each_pte(p.index, [](Vma&, Pte& pte) {
    pte.clear(Pte::kWanted);
    return true;
  });
}

// ------------------------------------------------------------------------------------ out, clean

bool Mm::reclaimable(const Page& p) const {
  constexpr auto kNot = static_cast<uint32_t>(Page::kWantMapped | Page::kWantOut | Page::kDoomed |
                                              Page::kWantResident | Page::kWantDemoted |
                                              Page::kWantPromoted | Page::kWaiting);
  return (p.place == Place::kMapped || p.place == Place::kUnmapped) && p.pins == 0 &&
         (p.flags & kNot) == 0;
}

void Mm::set_want_out(Page& p) {
  const bool demoted = p.has(Page::kWantDemoted) && !p.has(Page::kWaiting);
  if (!reclaimable(p) && !demoted) {
    return;
  }
  clear_want_moved(p);  // evicted while it was about to be demoted
  p.set(Page::kWantOut);
  out_of_tier_[p.frame->tier.value()] += p.object->page_size().value();
  ++out_of_[class_of(p.object->page_size())];
  advance(p);
}

void Mm::clear_want_out(Page& p) {
  if (p.has(Page::kWantOut)) {
    p.clear(Page::kWantOut);
    out_of_tier_[p.frame->tier.value()] -= p.object->page_size().value();
    --out_of_[class_of(p.object->page_size())];
  }
}

void Mm::want_out(Page& p) {
  if (p.pins != 0) {
    clear_want_out(p);
    return advance(p);
  }
  if (p.place == Place::kMapped) {
    return begin_unmap(p);
  }
  if (p.place == Place::kUnmapped) {
    if (p.has(Page::kProvedClean) && p.has(Page::kSlotCurrent)) {
      free_clean_frame(p);
      clear_want_clean(p, Errc::kOk);
      return advance(p);
    }
    if (p.has(Page::kWriteBlocked)) {
      clear_want_out(p);
      clear_want_clean(p, Errc::kNoSpace);
      return advance(p);
    }
    return begin_check(p);
  }
  clear_want_out(p);
  advance(p);
}

void Mm::clear_want_clean(Page& p, Errc result) {
  if (!p.has(Page::kWantClean)) {
    return;
  }
  p.clear(Page::kWantClean);
  AddressSpace* home = p.object->home();
  done_one(home != nullptr ? home->clean_job : nullptr, result);
}

void Mm::want_clean(Page& p) {
  if (p.pins != 0) {  // pinned since it was asked for: it stays mapped, and may be written again
    clear_want_clean(p, Errc::kBusy);
    return advance(p);
  }
  if (p.place == Place::kMapped) {
    return begin_unmap(p);
  }
  if (p.place == Place::kUnmapped && !p.has(Page::kProvedClean)) {
    if (p.has(Page::kWriteBlocked)) {
      clear_want_clean(p, Errc::kNoSpace);
      return advance(p);
    }
    return begin_check(p);
  }
  clear_want_clean(p, Errc::kOk);
  advance(p);
}

// ------------------------------------------------------------------------------------ doomed

void Mm::doom(Page& p, MmJob& job) {
  if (p.has(Page::kDoomed)) {
    return;
  }
  stop_waiting(p);
  p.set(Page::kDoomed);
  clear_want_out(p);
  clear_want_moved(p);
  ++job.pending;
  advance(p);
}

void Mm::clear_doomed(Page& p) {
  if (!p.has(Page::kDoomed)) {
    return;
  }
  p.clear(Page::kDoomed);
  AddressSpace* home = p.object->home();
  done_one(home != nullptr ? home->doom_job : nullptr, Errc::kOk);
}

}  // namespace kvmm
