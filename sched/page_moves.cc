// SPDX-License-Identifier: Apache-2.0
//
// The six operations on a page: how each is started and what its completion means. Every function
// ends with the page moved by the state table and `advance` called.
#include <algorithm>
#include <bit>

#include "sched/mm.h"

namespace kvmm {
namespace {

constexpr uint8_t kReadTries = 2;

}  // namespace

// ------------------------------------------------------------------------------------ frames,
// slots

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
    f = pool_->allocate_fixed(mmu_->fixed_frame(v.address_of(p.index)), size, tenant);
  } else {
    f = pool_->allocate(size, want_zeroed, tenant);
    if (f == nullptr && !want_zeroed) {
      f = pool_->allocate(size, true, tenant);  // a read overwrites another tenant's bytes too
    }
  }
  if (f == nullptr) {
    wait(p);
    return false;
  }
  p.hook.unlink();
  f->page = &p;
  p.frame = f;
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
  pool_->free(f, false);
  if (home != nullptr) {
    SpaceStats::sub(home->stats.bytes_resident, p.object->page_size().value());
  }
}

void Mm::release_slot(Page& p) {
  if (p.slot != 0) {
    swap_room_changed_ = swap_room_changed_ || swap_->area(SlotId(p.slot)).accepting();
    swap_->free(SlotId(p.slot));
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
  p.apply(PageEvent::kFreeFrame);
  release_frame(p);
  p.clear(Page::kProvedClean);
  clear_want_out(p);
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
    trace(TraceEvent::discard, home != nullptr ? home->id() : 0, p.index);
  }
  p.content = Content::kEmpty;
  p.attempts = 0;
  p.clear(Page::kHasChecksum);
  p.clear(Page::kWriteBlocked);
  p.clear(Page::kReadahead);
  p.clear(Page::kReadaheadMark);
  p.clear(Page::kWantResident);
  clear_want_out(p);
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
  DataRequest& d = op->chunks[0].sum;
  d = DataRequest();
  d.queue = completions_;
  d.owner = op;
  d.kind = static_cast<uint32_t>(RequestKind::kPageData);
  d.op = DataOp::kZero;
  d.addr = p.frame->addr;
  d.length = p.object->page_size();
  ++op->outstanding;
  push_data(d);
}

void Mm::finish_fill(PageOp& op) {
  Page& p = *op.page;
  const Errc error = op.error;
  give_op(op);
  check(error == Errc::kOk, "zeroing a frame does not fail", error, 0);
  AddressSpace* home = p.object->home();
  if (home != nullptr) {
    pool_->scrubbed(*p.frame, home->spec().tenant_number);
    home->newest = &p;
  }
  p.apply(PageEvent::kFilled);
  if (p.content == Content::kEmpty) {
    p.content = Content::kOpen;
  }
  trace(TraceEvent::zero_fill, home != nullptr ? home->id() : 0, p.index);
  advance(p);
}

void Mm::begin_map(Page& p) {
  PageOp* op = take_op(p, PageEvent::kMap);
  if (op == nullptr) {
    return;
  }
  p.object->for_each_pte(p.index, [&](Vma& v, Pte& pte) {
    if (pte.has(Pte::kWanted) && !pte.has(Pte::kPresent)) {
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
    if (op.entries[i].result == Errc::kOk) {
      pte.clear(Pte::kWanted);
      pte.set(Pte::kPresent);
      if (op.vmas[i]->prot == Prot::kReadWrite) {
        pte.set(Pte::kWritable);
      }
      any = true;
      trace(TraceEvent::map, op.vmas[i]->space->id(), p.index);
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
  if (failed == Errc::kOk) {
    p.attempts = 0;
    clear_want_mapped(p);
    pin_arrived(p);
    advance(p);
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
    if (op.entries[i].result == Errc::kOk) {
      Pte& pte = op.vmas[i]->pte_of(p.index);
      pte.clear(Pte::kPresent);
      pte.clear(Pte::kWritable);
      if (op.entries[i].split) {
        MmStats::add(stats_.frames_split);
        pool_->mark_split(*p.frame);
      }
      trace(TraceEvent::unmap, op.vmas[i]->space->id(), p.index);
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
  check(failed == Errc::kOk || failed == Errc::kBusy || failed == Errc::kAgain,
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
  clear_want_out(p);
  clear_want_clean(p, Errc::kBusy);
  advance(p);
}

// ------------------------------------------------------------------------------------ check, write

void Mm::begin_check(Page& p) {
  PageOp* op = take_op(p, PageEvent::kCheck);
  if (op == nullptr) {
    return;
  }
  p.apply(PageEvent::kCheck);
  p.hook.unlink();
  op->chunks_used = 1;
  op->chunks[0].io.length = p.object->page_size();
  submit_checksum(*op, 0);
}

// Digests of chunk `i` of the page's frame, into the operation's list.
void Mm::submit_checksum(PageOp& op, uint32_t i) {
  Page& p = *op.page;
  uint64_t before = 0;
  for (uint32_t k = 0; k < i; ++k) {
    before += op.chunks[k].io.length.value();
  }
  DataRequest& d = op.chunks[i].sum;
  d = DataRequest();
  d.queue = completions_;
  d.owner = &op;
  d.kind = static_cast<uint32_t>(RequestKind::kPageData);
  d.op = DataOp::kChecksum;
  d.addr = p.frame->addr + Bytes(before);
  d.length = op.chunks[i].io.length;
  const size_t first = before / kPieceSize.value();
  const size_t pieces = (d.length.value() + kPieceSize.value() - 1) / kPieceSize.value();
  d.digests = std::span(op.digests).subspan(first, pieces);
  ++op.outstanding;
  push_data(d);
}

void Mm::finish_check(PageOp& op) {
  Page& p = *op.page;
  AddressSpace* home = p.object->home();
  p.apply(PageEvent::kChecked);
  if (op.error != Errc::kOk) {
    give_op(op);
    clear_want_out(p);
    clear_want_clean(p, Errc::kIo);
    advance(p);
    return;
  }
  const std::span<const uint64_t> digests(op.digests.data(), piece_count(p.object->page_size()));
  const uint64_t found = page_checksum(digests, p.object->identity_of(p));
  const bool same = p.has(Page::kHasChecksum) && found == p.checksum;
  if (same && p.has(Page::kSlotCurrent)) {
    give_op(op);
    p.set(Page::kProvedClean);
    MmStats::add(stats_.clean_drops);
    if (home != nullptr) {
      SpaceStats::add(home->stats.clean_drops);
    }
    advance(p);
    return;
  }
  if (!same && p.has(Page::kHasChecksum) && p.content == Content::kSealed) {
    // The engine wrote to a page that it had declared finished. What it wrote last is kept.
    MmStats::add(stats_.seal_violations);
    if (home != nullptr) {
      SpaceStats::add(home->stats.seal_violations);
    }
    notice(MmNotice::Kind::kSealViolation, Errc::kSealViolation, p);
    trace(TraceEvent::seal_violation, home != nullptr ? home->id() : 0, p.index, p.checksum);
  }
  if (p.has(Page::kWantMapped) || p.has(Page::kDoomed) ||
      !(p.has(Page::kWantOut) || p.has(Page::kWantClean))) {
    give_op(op);
    advance(p);
    return;
  }
  // New content: a new generation, and its checksum under that identity.
  PageIdentity id = p.object->identity_of(p);
  op.generation = p.has(Page::kHasChecksum) && !same ? p.generation + 1 : p.generation;
  id.generation = op.generation;
  op.checksum = page_checksum(digests, id);
  begin_write(op);
}

// Cuts the page into chunks for I/O at `offset` of the device.
void Mm::plan_chunks(PageOp& op, BlockOp what, uint64_t offset, Bytes length_max) {
  Page& p = *op.page;
  const uint64_t size = p.object->page_size().value();
  uint64_t chunk =
      std::max<uint64_t>(config_.io_chunk.load(std::memory_order_relaxed), size / kChunksMax);
  chunk = std::bit_ceil(std::max<uint64_t>(chunk, kPieceSize.value()));
  chunk = std::min({chunk, size, std::bit_floor(length_max.value())});
  check(size / chunk <= kChunksMax, "a page fits the chunks of an operation", size, chunk);
  op.chunks_used = static_cast<uint8_t>(size / chunk);
  for (uint32_t i = 0; i < op.chunks_used; ++i) {
    BlockRequest& r = op.chunks[i].io;
    r = BlockRequest();
    r.queue = completions_;
    r.owner = &op;
    r.kind = static_cast<uint32_t>(RequestKind::kPageIo);
    r.op = what;
    const bool waited = p.has(Page::kUrgent) || p.pins != 0;
    r.urgency = what == BlockOp::kWrite ? Urgency::kWriteback
                : waited                ? Urgency::kFault
                                        : Urgency::kPrefetch;
    r.data = reinterpret_cast<std::byte*>(p.frame->addr.value() + i * chunk);
    r.offset = offset + i * chunk;
    r.length = Bytes(chunk);
  }
}

// REQUIRES: the frame is unmapped, op.checksum and op.generation describe its bytes.
void Mm::begin_write(PageOp& op) {
  Page& p = *op.page;
  auto slot = swap_->allocate(p.object->page_size());
  if (!slot) {
    MmStats::add(stats_.swap_full);
    if (!swap_full_said_) {  // once, until there is room again
      swap_full_said_ = true;
      notice(MmNotice::Kind::kSwapFull, slot.code(), p);
    }
    p.set(Page::kWriteBlocked);
    give_op(op);
    clear_want_out(p);
    clear_want_clean(p, Errc::kNoSpace);
    advance(p);
    return;
  }
  op.event = PageEvent::kWrite;
  op.slot = *slot;
  op.error = Errc::kOk;
  op.started = now_;
  p.apply(PageEvent::kWrite);
  SwapArea& area = swap_->area(op.slot);
  plan_chunks(op, BlockOp::kWrite, area.offset_of(op.slot).value(), area.block().info().length_max);
  op.outstanding = op.chunks_used;
  for (uint32_t i = 0; i < op.chunks_used; ++i) {
    push_io(area.block(), op.chunks[i].io);
  }
}

void Mm::finish_write(PageOp& op) {
  Page& p = *op.page;
  AddressSpace* home = p.object->home();
  SwapArea& area = swap_->area(op.slot);
  const uint64_t size = p.object->page_size().value();
  if (op.error != Errc::kOk) {
    const Errc why = op.error;
    area.note_io_error();
    if (why == Errc::kNoSpace) {
      area.note_no_space();
    }
    swap_->free(op.slot);
    give_op(op);
    p.apply(PageEvent::kWriteFailed);
    MmStats::add(stats_.write_errors);
    if (++p.attempts >= config_.write_tries.load(std::memory_order_relaxed)) {
      notice(MmNotice::Kind::kWriteError, why, p);
      p.attempts = 0;
      p.set(Page::kWriteBlocked);
      clear_want_out(p);
      clear_want_clean(p, why);
    }
    advance(p);
    return;
  }
  if (p.slot != 0) {
    swap_->free(SlotId(p.slot));
  }
  p.slot = op.slot.value();
  p.generation = op.generation;
  p.checksum = op.checksum;
  p.set(Page::kHasChecksum);
  p.set(Page::kSlotCurrent);
  p.set(Page::kProvedClean);  // unmapped since before its checksum was taken
  p.attempts = 0;
  area.record(op.slot, p.object->identity_of(p), p.checksum, Bytes(size));
  p.apply(PageEvent::kWritten);
  stats_.write_ns.record((now_ - op.started).value());
  MmStats::add(stats_.swap_out_bytes, size);
  if (home != nullptr) {
    SpaceStats::add(home->stats.swap_out_bytes, size);
  }
  trace(TraceEvent::swap_out, home != nullptr ? home->id() : 0, p.index, p.slot);
  give_op(op);
  advance(p);
}

// ------------------------------------------------------------------------------------ read

void Mm::begin_read(Page& p) {
  PageOp* op = take_op(p, PageEvent::kRead);
  if (op == nullptr) {
    return;
  }
  if (!get_frame(p, false)) {
    give_op(*op);
    return;
  }
  AddressSpace* home = p.object->home();
  p.apply(PageEvent::kRead);
  if (home != nullptr) {
    SpaceStats::sub(home->stats.bytes_swapped, p.object->page_size().value());
  }
  SwapArea& area = swap_->area(SlotId(p.slot));
  plan_chunks(*op, BlockOp::kRead, area.offset_of(SlotId(p.slot)).value(),
              area.block().info().length_max);
  op->outstanding = op->chunks_used;
  for (uint32_t i = 0; i < op->chunks_used; ++i) {
    push_io(area.block(), op->chunks[i].io);
  }
}

void Mm::finish_read(PageOp& op) {
  Page& p = *op.page;
  AddressSpace* home = p.object->home();
  const uint64_t size = p.object->page_size().value();
  if (op.error != Errc::kOk) {
    return read_failed(op, op.error);
  }
  const PageIdentity id = p.object->identity_of(p);
  const std::span<const uint64_t> digests(op.digests.data(), piece_count(p.object->page_size()));
  if (!p.has(Page::kHasChecksum) || page_checksum(digests, id) != p.checksum) {
    return read_failed(op, Errc::kCorrupt);
  }
  if (auto ok = swap_->area(SlotId(p.slot)).verify(SlotId(p.slot), id, p.checksum); !ok) {
    return read_failed(op, ok.code());
  }
  if (home != nullptr) {
    if (!fixed_frames_) {
      pool_->scrubbed(*p.frame, home->spec().tenant_number);
    }
    SpaceStats::add(home->stats.swap_in_bytes, size);
  }
  p.apply(PageEvent::kReadOk);
  p.set(Page::kSlotCurrent);
  p.set(Page::kProvedClean);
  p.attempts = 0;
  p.clear(Page::kWantResident);
  stats_.read_ns.record((now_ - op.started).value());
  MmStats::add(stats_.swap_in_bytes, size);
  trace(TraceEvent::swap_in, home != nullptr ? home->id() : 0, p.index, p.slot);
  give_op(op);
  advance(p);
}

void Mm::read_failed(PageOp& op, Errc why) {
  Page& p = *op.page;
  AddressSpace* home = p.object->home();
  const uint64_t size = p.object->page_size().value();
  SwapArea& area = swap_->area(SlotId(p.slot));
  if (why == Errc::kIo || why == Errc::kDeviceGone) {
    area.note_io_error();
    MmStats::add(stats_.read_errors);
  }
  give_op(op);
  if (++p.attempts < kReadTries) {
    // Once more: a flipped bit in flight or a passing I/O error is healed by another read.
    p.apply(PageEvent::kReadGivenUp);
    release_frame(p);
    if (home != nullptr) {
      SpaceStats::add(home->stats.bytes_swapped, size);
    }
    advance(p);
    return;
  }
  p.attempts = 0;
  p.clear(Page::kWantResident);
  p.apply(PageEvent::kReadFailed);
  release_frame(p);
  release_slot(p);
  p.clear(Page::kHasChecksum);
  ++p.generation;
  const bool wrong = why == Errc::kCorrupt || why == Errc::kStale || why == Errc::kModelMismatch;
  if (wrong) {
    MmStats::add(stats_.wrong_pages);
    trace(TraceEvent::verify_fail, home != nullptr ? home->id() : 0, p.index, p.checksum);
  }
  if (home != nullptr) {
    SpaceStats::add(home->stats.bytes_discarded, size);
    if (wrong) {
      SpaceStats::add(home->stats.wrong_pages);
    }
  }
  notice(wrong ? MmNotice::Kind::kWrongPage : MmNotice::Kind::kReadError, why, p);
  advance(p);
}

// ------------------------------------------------------------------------------------ errors to
// the engine

// The page's content cannot be had: pins are told to recompute, touches get an error.
void Mm::answer_lost(Page& p, Errc why) {
  trace(TraceEvent::poison, 0, p.index, static_cast<uint64_t>(why));
  const bool touched = p.has(Page::kUrgent);
  if (touched) {
    poison_wanted(p);
  }
  clear_want_mapped(p);
  pin_arrived(p);
  advance(p);
}

// Every PTE that somebody waits at becomes an error.
void Mm::poison_wanted(Page& p) {
  AddressSpace* home = p.object->home();
  p.object->for_each_pte(p.index, [&](Vma& v, Pte& pte) {
    if (!pte.has(Pte::kWanted) || pte.has(Pte::kPresent)) {
      return true;
    }
    pte.clear(Pte::kWanted);
    pte.set(Pte::kPoisoned);
    p.set(Page::kPoisoned);
    MmStats::add(stats_.poisoned);
    if (home != nullptr) {
      SpaceStats::add(home->stats.pages_poisoned);
    }
    mmu_now(MmuOp::kPoison, v.address_of(p.index), v.page_size);
    return true;
  });
}

void Mm::unpoison(Page& p) {
  p.clear(Page::kPoisoned);
  p.object->for_each_pte(p.index, [&](Vma& v, Pte& pte) {
    if (pte.has(Pte::kPoisoned)) {
      pte.clear(Pte::kPoisoned);
      mmu_now(MmuOp::kClear, v.address_of(p.index), v.page_size);
    }
    return true;
  });
}

// Poison or clear one address; nothing waits for its completion.
void Mm::mmu_now(MmuOp what, VirtAddr va, Bytes size) {
  if (!mmu_->info().asynchronous) {
    CompletionQueue local;
    MapEntry entry{va, FrameAddr(0)};
    MmuRequest request;
    request.queue = &local;
    request.op = what;
    request.page_size = size;
    request.entries = std::span(&entry, 1);
    MmuRequest* r = &request;
    check(mmu_->submit(std::span(&r, 1)) == 1 && local.pop() != nullptr,
          "a synchronous MMU finishes inside submit");
    return;
  }
  check(!free_ops_.empty(), "operations are kept back for errors");
  PageOp& op = free_ops_.front();
  free_ops_.pop_front();
  --free_count_;
  ++ops_in_flight_;
  op.page = nullptr;
  op.event = PageEvent::kLose;
  op.outstanding = 0;
  op.entries_used = 1;
  op.entries[0] = MapEntry{va, FrameAddr(0)};
  op.mmu.page_size = size;
  submit_mmu(op, what);
}

}  // namespace kvmm
