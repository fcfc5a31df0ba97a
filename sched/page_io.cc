// SPDX-License-Identifier: Apache-2.0
//
// The operations on a page that touch its bytes or its slot: check, write, read; and the answers
// when a content cannot be had. See page_moves.cc.
#include <algorithm>
#include <bit>

#include "sched/mm.h"

namespace kvmm {
namespace {

constexpr uint8_t kReadTries = 2;

}  // namespace

// ------------------------------------------------------------------------------------ check, write

void Mm::begin_check(Page& p) {
  PageOp* op = take_op(p, PageEvent::kCheck);
  if (op == nullptr) {
    return;
  }
  p.apply(PageEvent::kCheck);
  p.hook.unlink();
  submit_parts(*op, DataOp::kChecksum, Bytes(0), p.object->page_size());
}

// Work on [begin, end) of the page's frame, in parts that several workers can share. Digests go to
// their places in the operation's list. REQUIRES: begin is a multiple of the page's part.
void Mm::submit_parts(PageOp& op, DataOp what, Bytes begin, Bytes end) {
  Page& p = *op.page;
  const uint64_t size = p.object->page_size().value();
  const uint64_t part = std::max(kPartMin.value(), size / kChunksMax);
  check(begin.value() % part == 0, "parts of a page begin where others end", begin, part);
  for (uint64_t at = begin.value(); at < end.value(); at += part) {
    DataRequest& d = op.chunks[at / part].sum;
    d = DataRequest();
    d.queue = completions_;
    d.owner = &op;
    d.kind = static_cast<uint32_t>(RequestKind::kPageData);
    d.op = what;
    d.addr = p.frame->addr + Bytes(at);
    d.length = Bytes(std::min(part, end.value() - at));
    const size_t pieces = (d.length.value() + kPieceSize.value() - 1) / kPieceSize.value();
    d.digests = std::span(op.digests).subspan(at / kPieceSize.value(), pieces);
    ++op.outstanding;
    push_data(d);
  }
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
  const bool violated = !same && p.has(Page::kSealSummed) && p.content == Content::kSealed;
  if (same && p.content == Content::kSealed) {
    p.set(Page::kSealSummed);
  }
  if (same && p.has(Page::kSlotCurrent)) {
    give_op(op);
    p.set(Page::kProvedClean);
    MmStats::add(stats_.clean_drops);
    trace_of(TraceEvent::clean_drop, p, p.slot);
    if (home != nullptr) {
      SpaceStats::add(home->stats.clean_drops);
    }
    advance(p);
    return;
  }
  if (violated) {
    p.clear(Page::kSealSummed);  // said once
    // The engine wrote to a page that it had declared finished. What it wrote last is kept.
    MmStats::add(stats_.seal_violations);
    if (home != nullptr) {
      SpaceStats::add(home->stats.seal_violations);
    }
    notice(MmNotice::Kind::kSealViolation, Errc::kSealViolation, p);
    trace_of(TraceEvent::seal_violation, p, p.checksum, found);
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
  auto slot = pager_->allocate(p.object->page_size());
  if (slot.code() == Errc::kAgain) {
    give_op(op);
    return wait_for_room(p);
  }
  if (!slot) {
    MmStats::add(stats_.swap_full);
    if (!swap_full_said_) {  // once, until there is room again
      swap_full_said_ = true;
      notice(slot.code() == Errc::kIo ? MmNotice::Kind::kWriteError : MmNotice::Kind::kSwapFull,
             slot.code(), p);
    }
    p.set(Page::kWriteBlocked);
    give_op(op);
    clear_want_out(p);
    clear_want_clean(p, slot.code());
    advance(p);
    return;
  }
  op.event = PageEvent::kWrite;
  op.slot = *slot;
  op.error = Errc::kOk;
  op.started = moment();
  p.apply(PageEvent::kWrite);
  const Backing at = pager_->backing(op.slot);
  plan_chunks(op, BlockOp::kWrite, at.offset, at.length_max);
  op.outstanding = op.chunks_used;
  for (uint32_t i = 0; i < op.chunks_used; ++i) {
    push_io(*at.device, op.chunks[i].io);
  }
}

void Mm::finish_write(PageOp& op) {
  Page& p = *op.page;
  AddressSpace* home = p.object->home();
  const uint64_t size = p.object->page_size().value();
  if (op.error != Errc::kOk) {
    const Errc why = op.error;
    write_ended(op, why);
    pager_->failed(op.slot, why);
    why == Errc::kIo ? pager_->retire(op.slot) : pager_->free(op.slot);
    give_op(op);
    p.apply(PageEvent::kWriteFailed);
    MmStats::add(stats_.write_errors);
    // A full disk is no attempt: the area gives out no slot now, so another one is asked, or all of
    // them are full.
    if (why != Errc::kNoSpace &&
        ++p.attempts >= config_.write_tries.load(std::memory_order_relaxed)) {
      notice(MmNotice::Kind::kWriteError, why, p);
      p.attempts = 0;
      p.set(Page::kWriteBlocked);
      clear_want_out(p);
      clear_want_clean(p, why);
    }
    advance(p);
    return;
  }
  if (!pager_->accepting(op.slot)) {
    // The area fails or is being emptied since: the frame must not be given up for what it says it
    // has. Another area is asked, or the page stays.
    pager_->free(op.slot);
    give_op(op);
    p.apply(PageEvent::kWriteFailed);
    advance(p);
    return;
  }
  if (p.slot != 0) {
    pager_->free(SlotId(p.slot));
  }
  p.slot = op.slot.value();
  p.generation = op.generation;
  p.checksum = op.checksum;
  p.set(Page::kHasChecksum);
  p.set(Page::kSlotCurrent);
  p.set(Page::kProvedClean);  // unmapped since before its checksum was taken
  p.clear(Page::kSealSummed);
  if (p.content == Content::kSealed) {
    p.set(Page::kSealSummed);
  }
  p.attempts = 0;
  pager_->stored(op.slot, p.object->identity_of(p), p.checksum, Bytes(size));
  p.apply(PageEvent::kWritten);
  MmStats::add(stats_.swap_out_bytes, size);
  if (home != nullptr) {
    SpaceStats::add(home->stats.swap_out_bytes, size);
  }
  stats_.write_ns.record(write_ended(op, Errc::kOk));
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
  const Backing at = pager_->backing(SlotId(p.slot));
  plan_chunks(*op, BlockOp::kRead, at.offset, at.length_max);
  read_began(*op);
  op->outstanding = op->chunks_used;
  op->io_left = op->chunks_used;
  reading_ += p.object->page_size();
  for (uint32_t i = 0; i < op->chunks_used; ++i) {
    push_io(*at.device, op->chunks[i].io);
  }
}

// A piece of a page has been read: its checksum is next, and the device may have another page.
void Mm::io_arrived(PageOp& op, const BlockRequest& io) {
  Page& p = *op.page;
  if (--op.io_left == 0) {
    reading_ -= p.object->page_size();
  }
  if (op.error == Errc::kOk) {
    const Bytes begin(reinterpret_cast<uint64_t>(io.data) - p.frame->addr.value());
    submit_parts(op, DataOp::kChecksum, begin, begin + io.length);
  } else if (op.outstanding == 0) {
    finish_read(op);
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
  if (auto ok = pager_->verify(SlotId(p.slot), id, p.checksum); !ok) {
    return read_failed(op, ok.code());
  }
  if (home != nullptr) {
    if (!fixed_frames_) {
      zones_.scrubbed(*p.frame, home->spec().tenant_number);
    }
    SpaceStats::add(home->stats.swap_in_bytes, size);
  }
  p.apply(PageEvent::kReadOk);
  p.set(Page::kSlotCurrent);
  p.set(Page::kProvedClean);
  p.attempts = 0;
  p.clear(Page::kWantResident);
  MmStats::add(stats_.swap_in_bytes, size);
  stats_.read_ns.record(read_ended(op, Errc::kOk));
  give_op(op);
  advance(p);
}

void Mm::read_failed(PageOp& op, Errc why) {
  Page& p = *op.page;
  AddressSpace* home = p.object->home();
  const uint64_t size = p.object->page_size().value();
  read_ended(op, why);
  if (why == Errc::kIo || why == Errc::kDeviceGone) {
    pager_->failed(SlotId(p.slot), why);
    MmStats::add(stats_.read_errors);
  } else {
    verify_failed(p, why);
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
  p.apply(PageEvent::kReadFailed);
  release_frame(p);
  const bool wrong = why == Errc::kCorrupt || why == Errc::kStale || why == Errc::kModelMismatch;
  notice(wrong ? MmNotice::Kind::kWrongPage : MmNotice::Kind::kReadError, why, p);
  content_lost(p, why);
}

// What was only in its slot cannot be had. REQUIRES: discarded, without a frame.
void Mm::content_lost(Page& p, Errc why) {
  AddressSpace* home = p.object->home();
  const uint64_t size = p.object->page_size().value();
  p.attempts = 0;
  p.clear(Page::kWantResident);
  release_slot(p, why);
  p.clear(Page::kHasChecksum);
  p.clear(Page::kSealSummed);
  ++p.generation;
  const bool wrong = why == Errc::kCorrupt || why == Errc::kStale || why == Errc::kModelMismatch;
  if (wrong) {
    MmStats::add(stats_.wrong_pages);
  }
  if (home != nullptr) {
    SpaceStats::add(home->stats.bytes_discarded, size);
    if (wrong) {
      SpaceStats::add(home->stats.wrong_pages);
    }
  }
  advance(p);
}

// ------------------------------------------------------------------------------------ errors to
// the engine

// The page's content cannot be had: pins are told to recompute, touches get an error.
void Mm::answer_lost(Page& p, Errc why) {
  if (p.has(Page::kUrgent) && held()) {
    p.hook.unlink();
    p.set(Page::kWaiting);
    retry_.push_back(p);
    return;
  }
  trace_of(TraceEvent::poison, p, static_cast<uint64_t>(why));
  const bool touched = p.has(Page::kUrgent);
  if (touched) {
    poison_wanted(p);
    fault_ended(p, why);
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
