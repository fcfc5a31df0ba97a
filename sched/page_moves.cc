// SPDX-License-Identifier: Apache-2.0
//
// Frames and slots of a page, and the operations that fill, map and unmap it: how each is started
// and what its completion means. Every finish moves the page by the state table and calls
// `advance`. The operations that do I/O are in page_io.cc.
#include <algorithm>
#include <bit>

#include "sched/mm.h"

namespace kvmm {

// ---------------------------------------------------------------------------- frames and slots

// Gives the page a frame. False: there is none now (the page waits).
bool Mm::get_frame(Page& p, bool want_zeroed) {
  AddressSpace* home = p.object->home();
  const uint32_t tenant = home != nullptr ? home->spec().tenant_number : 1;
  const Bytes size = p.object->page_size();
  Frame* f = nullptr;
  if (!is_urgent(p) && !leaves_reserve(size)) {
    wait(p);
    return false;
  }
  if (fixed_frames_) {
    Vma& v = p.object->vmas().front();
    f = zones_.allocate_fixed(mmu_->fixed_frame(v.address_of(p.index)), size, tenant);
  } else {
    f = zones_.allocate(size, want_zeroed, tenant, p.near);
    if (f == nullptr && !want_zeroed) {
      f = zones_.allocate(size, true, tenant,
                          p.near);  // a read overwrites another tenant's bytes too
    }
  }
  if (f == nullptr) {
    wait(p);
    return false;
  }
  p.hook.unlink();
  f->page = &p;
  p.frame = f;
  p.heat = 0;
  p.clear(Page::kStays);
  note_tier(p);
  trace_of(TraceEvent::frame, p, f->addr.value(), f->zeroed ? 1 : 0);
  if (home != nullptr) {
    SpaceStats::add(home->stats.bytes_resident, size.value());
  }
  return true;
}

void Mm::release_frame(Page& p) {
  check(p.frame != nullptr, "a frame to release");
  AddressSpace* home = p.object->home();
  p.hook.unlink();
  Frame& f = *p.frame;
  f.page = nullptr;
  p.frame = nullptr;
  if (fixed_frames_) {
    // The device finishes this inside submit: the next page of this address starts with zeros.
    CompletionQueue local;
    MapEntry entry{p.object->vmas().front().address_of(p.index), f.addr};
    MmuRequest request;
    request.queue = &local;
    request.op = MmuOp::kFree;
    request.page_size = p.object->page_size();
    request.entries = std::span(&entry, 1);
    MmuRequest* r = &request;
    check(mmu_->submit(std::span(&r, 1)) == 1 && local.pop() != nullptr,
          "fixed frames are freed at once");
  }
  zones_.free(f, false);
  if (home != nullptr) {
    SpaceStats::sub(home->stats.bytes_resident, p.object->page_size().value());
  }
}

void Mm::release_slot(Page& p, Errc lost) {
  if (p.slot != 0) {
    swap_room_changed_ = swap_room_changed_ || pager_->accepting(SlotId(p.slot));
    lost == Errc::kOk ? pager_->free(SlotId(p.slot)) : pager_->lost(SlotId(p.slot), lost);
    p.slot = 0;
  }
  p.clear(Page::kSlotCurrent);
  p.clear(Page::kProvedClean);
}

// Frame proved equal to its slot: give it up.
void Mm::free_clean_frame(Page& p) {
  check(p.has(Page::kProvedClean) && p.has(Page::kSlotCurrent) && p.slot != 0,
        "only a frame that its slot repeats is freed", p.flags, p.slot);
  AddressSpace* home = p.object->home();
  if (p.has(Page::kReadahead)) {
    MmStats::add(stats_.readahead_useless);
    p.clear(Page::kReadahead);
  }
  clear_want_out(p);
  p.apply(PageEvent::kFreeFrame);
  release_frame(p);
  p.clear(Page::kProvedClean);
  p.attempts = 0;
  MmStats::add(stats_.reclaimed);
  if (home != nullptr) {
    SpaceStats::add(home->stats.bytes_swapped, p.object->page_size().value());
  }
}

// Drops a doomed page, or brings it to where it can be dropped.
void Mm::drop(Page& p) {
  if (p.place == Place::kMapped) {
    return begin_unmap(p);
  }
  AddressSpace* home = p.object->home();
  const Place was = p.place;
  const uint64_t size = p.object->page_size().value();
  check(p.apply(PageEvent::kDropAll) == Errc::kOk, "a page without work in flight can be dropped");
  if (p.frame != nullptr) {
    release_frame(p);
  }
  release_slot(p);
  p.hook.unlink();
  if (home != nullptr && was == Place::kSwapped) {
    SpaceStats::sub(home->stats.bytes_swapped, size);
  }
  if (home != nullptr && was == Place::kDiscarded) {
    SpaceStats::sub(home->stats.bytes_discarded, size);
  }
  if (p.has(Page::kPoisoned)) {
    unpoison(p);
  }
  if (was != Place::kNone) {
    ++p.generation;  // whatever is written there next is other content
    MmStats::add(stats_.pages_dropped);
    trace_of(TraceEvent::discard, p);
  }
  p.content = Content::kEmpty;
  p.attempts = 0;
  p.clear(Page::kHasChecksum);
  p.clear(Page::kSealSummed);
  p.clear(Page::kWriteBlocked);
  p.clear(Page::kReadahead);
  p.clear(Page::kReadaheadMark);
  p.clear(Page::kWantResident);
  clear_want_out(p);
  if (!is_urgent(p)) {
    clear_want_mapped(p);  // a prefetch: there is nothing to bring any more
  }
  clear_want_clean(p, Errc::kOk);
  clear_doomed(p);
  advance(p);  // a touch that came meanwhile gets zeros
}

// ------------------------------------------------------------------------------------ fill, map,
// unmap

void Mm::begin_fill(Page& p) {
  PageOp* op = take_op(p, PageEvent::kFill);
  if (op == nullptr) {
    return;
  }
  if (!get_frame(p, true)) {
    give_op(*op);
    return;
  }
  p.apply(PageEvent::kFill);
  if (p.frame->zeroed && !fixed_frames_) {
    finish_fill(*op);
    return;
  }
  submit_parts(*op, DataOp::kZero, Bytes(0), p.object->page_size());
}

void Mm::finish_fill(PageOp& op) {
  Page& p = *op.page;
  const Errc error = op.error;
  give_op(op);
  check(error == Errc::kOk, "zeroing a frame does not fail", error, 0);
  AddressSpace* home = p.object->home();
  if (home != nullptr) {
    zones_.scrubbed(*p.frame, home->spec().tenant_number);
    home->newest = &p;
  }
  p.apply(PageEvent::kFilled);
  if (p.content == Content::kEmpty) {
    p.content = Content::kOpen;
  }
  trace_of(TraceEvent::zero_fill, p);
  advance(p);
}

void Mm::begin_map(Page& p) {
  PageOp* op = take_op(p, PageEvent::kMap);
  if (op == nullptr) {
    return;
  }
  p.object->for_each_pte(p.index, [&](Vma& v, Pte& pte) {
    // A request has one protection: mappings with another one are wanted still when it is done.
    const bool fits = op->entries_used == 0 || op->vmas[0]->prot == v.prot;
    if (pte.has(Pte::kWanted) && !pte.has(Pte::kPresent) && fits) {
      pte.set(Pte::kMapping);
      op->vmas[op->entries_used] = &v;
      op->entries[op->entries_used++] = MapEntry{v.address_of(p.index), p.frame->addr};
    }
    return op->entries_used < kEntriesMax;
  });
  check(op->entries_used != 0, "a page to be mapped is wanted somewhere", p.index, p.flags);
  p.apply(PageEvent::kMap);
  p.hook.unlink();
  op->mmu.page_size = p.object->page_size();
  op->mmu.prot = op->vmas[0]->prot;
  submit_mmu(*op, MmuOp::kMap);
}

void Mm::finish_map(PageOp& op) {
  Page& p = *op.page;
  bool any = false;
  Errc failed = Errc::kOk;
  for (uint32_t i = 0; i < op.entries_used; ++i) {
    Pte& pte = op.vmas[i]->pte_of(p.index);
    pte.clear(Pte::kMapping);
    trace(TraceEvent::map, op.vmas[i]->space->id(), trace_page(op.vmas[i]->plane, p.index),
          p.frame->addr.value(), static_cast<uint64_t>(op.entries[i].result));
    if (op.entries[i].result == Errc::kOk) {
      pte.clear(Pte::kWanted);
      pte.set(Pte::kPresent);
      if (op.vmas[i]->prot == Prot::kReadWrite) {
        pte.set(Pte::kWritable);
      }
      any = true;
    } else {
      failed = op.entries[i].result;
    }
  }
  give_op(op);
  // What the engine may have changed since is not proved any more.
  p.clear(Page::kProvedClean);
  bool present = any;
  p.object->for_each_pte(p.index, [&](Vma&, Pte& pte) {
    present = present || pte.has(Pte::kPresent);
    return !present;
  });
  p.apply(present ? PageEvent::kMapped : PageEvent::kMapFailed);
  p.mapped_in = step_number_;
  if (failed == Errc::kOk) {
    p.attempts = 0;
    advance(p);  // answers who waits; another mapping of a shared page may be wanted by now
    return;
  }
  check(failed != Errc::kExists, "the page table knows what is mapped", p.index, p.flags);
  if (failed == Errc::kBusy || failed == Errc::kAgain || failed == Errc::kNoMemory) {
    // I/O still holds the frame for a moment, or page tables are short: again at the next step.
    MmStats::add(stats_.map_retries);
    p.hook.unlink();
    p.set(Page::kWaiting);
    retry_.push_back(p);
    return;
  }
  answer_lost(p, failed);
}

void Mm::begin_unmap(Page& p) {
  PageOp* op = take_op(p, PageEvent::kUnmap);
  if (op == nullptr) {
    return;
  }
  p.object->for_each_pte(p.index, [&](Vma& v, Pte& pte) {
    if (pte.has(Pte::kPresent)) {
      op->vmas[op->entries_used] = &v;
      op->entries[op->entries_used++] = MapEntry{v.address_of(p.index), p.frame->addr};
    }
    return op->entries_used < kEntriesMax;
  });
  check(op->entries_used != 0, "a mapped page has a PTE", p.index, p.flags);
  p.apply(PageEvent::kUnmap);
  p.hook.unlink();
  op->mmu.page_size = p.object->page_size();
  submit_mmu(*op, MmuOp::kUnmap);
}

void Mm::finish_unmap(PageOp& op) {
  Page& p = *op.page;
  Errc failed = Errc::kOk;
  for (uint32_t i = 0; i < op.entries_used; ++i) {
    trace(TraceEvent::unmap, op.vmas[i]->space->id(), trace_page(op.vmas[i]->plane, p.index),
          p.frame->addr.value(), static_cast<uint64_t>(op.entries[i].result));
    if (op.entries[i].result == Errc::kOk) {
      Pte& pte = op.vmas[i]->pte_of(p.index);
      pte.clear(Pte::kPresent);
      pte.clear(Pte::kWritable);
      if (op.entries[i].split) {
        MmStats::add(stats_.frames_split);
        zones_.mark_split(*p.frame);
      }
    } else {
      failed = op.entries[i].result;
    }
  }
  give_op(op);
  bool present = false;
  p.object->for_each_pte(p.index, [&](Vma&, Pte& pte) {
    present = present || pte.has(Pte::kPresent);
    return !present;
  });
  // kNoMemory: the kernel is short of page tables for a moment.
  check(failed == Errc::kOk || failed == Errc::kBusy || failed == Errc::kAgain ||
            failed == Errc::kNoMemory,
        "an unmap succeeds or finds the page busy", failed, p.index);
  if (!present) {
    p.apply(PageEvent::kUnmapped);
    p.clear(Page::kWriteBlocked);
    p.attempts = 0;
    advance(p);
    return;
  }
  p.apply(PageEvent::kUnmapFailed);
  if (failed == Errc::kOk) {
    advance(p);  // a shared page with more mappings than one request holds
    return;
  }
  // Somebody holds the page (a pin, I/O of the engine): another victim; doomed pages try again.
  MmStats::add(stats_.reclaim_busy);
  if (p.has(Page::kDoomed)) {
    p.set(Page::kWaiting);
    retry_.push_back(p);
    return;
  }
  p.clear(Page::kHint);
  clear_want_out(p);
  clear_want_moved(p);
  clear_want_clean(p, Errc::kBusy);
  advance(p);
}

}  // namespace kvmm
