// SPDX-License-Identifier: Apache-2.0
//
// The frame of the memory manager: completions, advance, waiting lists, submission.
#include "sched/mm.h"

#include <algorithm>
#include <bit>

namespace kvmm {
namespace {

uint32_t class_of(Bytes size) {
  return static_cast<uint32_t>(std::bit_width(size.value()) - 1);
}

uint32_t piece_of(const PageOp& op, const Request& sum) {
  uint32_t i = 0;
  while (i + 1 < kChunksMax && &op.chunks[i].sum != &sum) {  // parts, whatever the I/O was cut into
    ++i;
  }
  return i;
}

}  // namespace

Mm::Mm(const Deps& deps, MmConfig& config)
    : zones_(*deps.tiers),
      swap_(deps.swap),
      pager_(deps.swap),
      map_(deps.map),
      data_(deps.data),
      trace_(deps.trace),
      clock_(deps.clock),
      completions_(deps.completions),
      mmu_(&zones_.mmu()),
      fixed_frames_(zones_.mmu().info().fixed_frames),
      config_(config),
      ops_(kOps),
      notice_time_(deps.notice_time) {
  for (PageOp& op : ops_) {
    free_ops_.push_back(op);
    ++free_count_;
  }
  data_waiting_.reserve(kSubmitMax);
}

Mm::~Mm() {
  check(spaces_.empty(), "sessions are closed before the memory manager goes");
  check(ops_in_flight_ == 0 && ready_.empty(),
        "no operation is in flight when the memory manager goes");
  free_ops_.clear();
}

bool Mm::busy() const {
  return ops_in_flight_ != 0 || index_ops_used_ != 0 || !waiting_urgent_.empty() ||
         !waiting_.empty() || !retry_.empty() || !room_wait_.empty();
}

void Mm::notice(MmNotice::Kind kind, Errc code, Page& p) {
  MmNotice n{kind, code, 0, 0, p.index, 0};
  for (Vma& v : p.object->vmas()) {
    n.space = v.space->id();
    n.va = v.maps(p.index) ? v.address_of(p.index).value() : 0;
    n.plane = v.plane;
    break;
  }
  say(n);
}

void Mm::say(const MmNotice& n) {
  const uint32_t next = (notice_head_ + 1) % kNotices;
  if (next == notice_tail_) {
    return;  // the counters have it all the same
  }
  notices_[notice_head_] = n;
  notice_head_ = next;
  if (!untold_) {  // not anew for each of many that nobody reads
    untold_ = true;
    hold_until_ = now_ + notice_time_;
  }
}

void Mm::notices_told() {
  untold_ = has_notice();
  hold_until_ = untold_ ? now_ + notice_time_ : Tick(0);
}

bool Mm::take_notice(MmNotice* out) {
  if (notice_tail_ == notice_head_) {
    return false;
  }
  *out = notices_[notice_tail_];
  notice_tail_ = (notice_tail_ + 1) % kNotices;
  return true;
}

// ------------------------------------------------------------------------------------ the step

void Mm::step(Tick now, bool with_io, uint32_t pages_max) {
  now_ = now;
  next_due_ = Tick(0);
  ++step_number_;
  health_woke();
  // Each round finishes what has completed and starts what that made possible. Devices that finish
  // inside submit make a second round useful; the bound keeps one step short.
  for (int round = 0; round < 16; ++round) {
    mmu_->poll();
    data_->poll();
    for (const auto& area : swap_->areas()) {
      if (with_io) {  // a poll submits what was short
        area->block().poll();
      }
    }
    while (Request* r = completions_->pop()) {
      complete(*r);
    }
    for (; pages_max != 0 && !ready_.empty(); --pages_max) {
      PageOp& op = ready_.front();
      ready_.pop_front();
      finish_data(op);
    }
    if (!retry_.empty()) {
      PageList again;
      again.splice(again.end(), retry_);
      while (!again.empty()) {
        Page& p = again.front();
        again.pop_front();
        p.clear(Page::kWaiting);
        advance(p);
      }
    }
    pump_waiting();
    step_prefetch();
    step_health();
    step_drain();
    reclaim();
    step_room();
    hint();
    step_index();
    flush_io(with_io);
    step_fences();
    if (completions_->empty()) {
      break;
    }
  }
  write_ahead();
  zero_ahead();
  flush_io(with_io);
  answer_hopeless();
  Tick soon;
  if (!completions_->empty() || !ready_.empty() || !retry_.empty()) {
    soon = now + micros(100);
  } else if (!fenced_.empty() || !waiting_.empty() || !waiting_urgent_.empty()) {
    soon = now + millis(1);
  }
  if (soon != Tick(0)) {
    next_due_ = next_due_ == Tick(0) ? soon : std::min(next_due_, soon);
  }
}

void Mm::complete(Request& r) {
  switch (static_cast<RequestKind>(r.kind)) {
    case RequestKind::kPageMmu: {
      auto& op = *static_cast<PageOp*>(r.owner);
      --op.outstanding;
      if (op.event == PageEvent::kMap) {
        finish_map(op);
      } else {
        finish_unmap(op);
      }
      return;
    }
    case RequestKind::kPageIo: {
      auto& op = *static_cast<PageOp*>(r.owner);
      auto& io = static_cast<BlockRequest&>(r);
      --op.outstanding;
      pager_->done(op.event == PageEvent::kWrite ? op.slot : SlotId(op.page->slot), io, now_);
      trace_piece(TraceEvent::io_done, io);
      if (r.result != Errc::kOk && op.error == Errc::kOk) {
        op.error = r.result;
        op.os_error = r.os_error;
        trace_of(TraceEvent::io_error, *op.page, io.offset, io.length.value(),
                 static_cast<uint64_t>(r.os_error));
      }
      if (op.event == PageEvent::kWrite) {
        if (op.outstanding == 0) {
          finish_write(op);
        }
        return;
      }
      return io_arrived(op, io);
    }
    case RequestKind::kPageData: {
      auto& op = *static_cast<PageOp*>(r.owner);
      --op.outstanding;
      if (r.result != Errc::kOk && op.error == Errc::kOk) {
        op.error = r.result;
      }
      if (op.event == PageEvent::kRead) {
        trace_of(TraceEvent::checksummed, *op.page, piece_of(op, r));
      }
      if (op.outstanding == 0) {
        ready_.push_back(op);
      }
      return;
    }
    case RequestKind::kPoisonStray:
      give_op(*static_cast<PageOp*>(r.owner));
      return;
    case RequestKind::kZeroAhead: {
      auto& op = *static_cast<PageOp*>(r.owner);
      auto* frame = static_cast<Frame*>(op.chunks[0].io.owner);
      zones_.put_back(*frame, r.result == Errc::kOk);
      give_op(op);
      return;
    }
    case RequestKind::kIndex:
    case RequestKind::kFlush:
    case RequestKind::kDiscard:
    case RequestKind::kGrow:
      finish_index(static_cast<BlockRequest&>(r));
      return;
  }
  check(false, "a completion has a known kind", r.kind, 0);
}

// All bytes of an operation have been worked on.
void Mm::finish_data(PageOp& op) {
  switch (op.event) {
    case PageEvent::kFill:
      return finish_fill(op);
    case PageEvent::kCheck:
      return finish_check(op);
    case PageEvent::kMigrate:
      return finish_migrate(op);
    default:
      return finish_read(op);
  }
}

// ------------------------------------------------------------------------------------ advance

void Mm::advance(Page& p) {
  if (place_in_flight(p.place) || p.has(Page::kWaiting)) {
    return;
  }
  if (p.has(Page::kDoomed)) {
    return drop(p);
  }
  if (p.has(Page::kWantMapped)) {
    return want_mapped(p);
  }
  if (p.has(Page::kWantResident)) {
    if (p.place == Place::kSwapped) {
      return begin_read(p);
    }
    p.clear(Page::kWantResident);
  }
  if (p.has(Page::kWantDemoted) || p.has(Page::kWantPromoted)) {
    return want_moved(p);
  }
  if (p.has(Page::kWantOut)) {
    return want_out(p);
  }
  if (p.has(Page::kWantClean)) {
    return want_clean(p);
  }
  settle(p);
}

// Puts a page that nothing is wanted of on the list where reclaim finds it.
void Mm::settle(Page& p) {
  AddressSpace* home = p.object->home();
  if (home == nullptr || p.hook.is_linked()) {
    return;
  }
  if (p.place == Place::kMapped) {
    home->list_active(p);
  } else if (p.place == Place::kUnmapped) {
    home->list_inactive(p);
  }
}

bool Mm::needs_frame(const Page& p) const {
  return p.place == Place::kNone || p.place == Place::kSwapped;
}

// Notes that a page waits for an operation, a frame, or both.
void Mm::wait(Page& p) {
  p.hook.unlink();
  p.set(Page::kWaiting);
  if (is_urgent(p)) {
    waiting_urgent_.push_back(p);
    p.set(Page::kCounted);
    ++waiting_of_[class_of(p.object->page_size())];
  } else {
    waiting_.push_back(p);
  }
}

void Mm::stop_waiting(Page& p) {
  if (!p.has(Page::kWaiting)) {
    return;
  }
  p.hook.unlink();
  p.clear(Page::kWaiting);
  if (p.has(Page::kCounted)) {
    p.clear(Page::kCounted);
    --waiting_of_[class_of(p.object->page_size())];
  }
}

// What nobody waits for leaves the frames below the low watermark to those that are waited for;
// else a prefetch would push out the page that a thread is about to touch.
bool Mm::leaves_reserve(Bytes size) const {
  return zones_.free_bytes() >= size + zones_.watermarks().low;
}

bool Mm::can_start(const Page& p) const {
  if (free_count_ <= kOpsKept) {
    return false;
  }
  if (!needs_frame(p)) {
    return true;
  }
  const Bytes size = p.object->page_size();
  if (!is_urgent(p) && !leaves_reserve(size)) {
    return false;
  }
  if (fixed_frames_) {
    return zones_.free_bytes() >= size;
  }
  return zones_.free_blocks() != 0 || zones_.class_stats(size).free != 0;
}

void Mm::pump_waiting() {
  for (PageList* list : {&waiting_urgent_, &waiting_}) {
    PageList kept;  // pages of a class that has nothing yet, in order
    while (!list->empty() && free_count_ > kOpsKept) {
      Page& p = list->front();
      if (can_start(p)) {
        stop_waiting(p);
        advance(p);
      } else {
        list->pop_front();
        kept.push_back(p);
      }
    }
    list->splice(list->begin(), kept);
  }
}

PageOp* Mm::take_op(Page& p, PageEvent event) {
  if (free_count_ <= kOpsKept) {
    wait(p);
    return nullptr;
  }
  PageOp& op = free_ops_.front();
  free_ops_.pop_front();
  --free_count_;
  ++ops_in_flight_;
  op.page = &p;
  op.event = event;
  op.started = moment();
  op.outstanding = 0;
  op.chunks_used = 0;
  op.entries_used = 0;
  op.error = Errc::kOk;
  op.os_error = 0;
  op.slot = SlotId();
  return &op;
}

void Mm::give_op(PageOp& op) {
  op.page = nullptr;
  --ops_in_flight_;
  free_ops_.push_front(op);
  ++free_count_;
}

// ------------------------------------------------------------------------------------ submission

void Mm::submit_mmu(PageOp& op, MmuOp what) {
  op.mmu.queue = completions_;
  op.mmu.owner = &op;
  op.mmu.kind =
      static_cast<uint32_t>(op.page != nullptr ? RequestKind::kPageMmu : RequestKind::kPoisonStray);
  op.mmu.result = Errc::kOk;
  op.mmu.op = what;
  op.mmu.fence = {};
  op.mmu.entries = std::span(op.entries.data(), op.entries_used);
  for (MapEntry& e : op.mmu.entries) {
    e.result = Errc::kOk;
    e.split = false;
  }
  ++op.outstanding;
  MmuRequest* r = &op.mmu;
  const size_t taken = mmu_->submit(std::span(&r, 1));
  if (taken == 0) {  // as if it had failed at once: the operation is tried again
    op.mmu.result = Errc::kBusy;
    for (MapEntry& e : op.mmu.entries) {
      e.result = Errc::kBusy;
    }
    completions_->push(op.mmu);
  }
}

void Mm::push_io(BlockOps& device, BlockRequest& r) {
  for (IoQueue& q : io_) {
    if (q.device == &device) {
      q.waiting.push_back(&r);
      return;
    }
  }
  // A new swap area: its queue is made outside the fault path, by area_added().
  check(false, "a swap area has its queue");
}

bool Mm::io_waits() const {
  return std::any_of(io_.begin(), io_.end(), [](const IoQueue& q) { return !q.waiting.empty(); });
}

void Mm::flush_io(bool devices) {
  for (IoQueue& q : io_) {
    if (q.waiting.empty() || !devices) {
      continue;
    }
    // Faults before write-back. An insertion sort: stable, allocates nothing, nearly sorted input.
    for (size_t i = 1; i < q.waiting.size(); ++i) {
      for (size_t j = i; j > 0 && q.waiting[j]->urgency < q.waiting[j - 1]->urgency; --j) {
        std::swap(q.waiting[j], q.waiting[j - 1]);
      }
    }
    const size_t taken = q.device->submit(std::span<BlockRequest* const>(q.waiting));
    for (BlockRequest* r : std::span(q.waiting).first(taken)) {
      r->submitted = now_;
      q.area->health().started(*r, now_);
      trace_piece(TraceEvent::io_submit, *r);
    }
    q.waiting.erase(q.waiting.begin(), q.waiting.begin() + static_cast<ptrdiff_t>(taken));
  }
  if (!data_waiting_.empty()) {
    const size_t taken = data_->submit(std::span<DataRequest* const>(data_waiting_));
    data_waiting_.erase(data_waiting_.begin(),
                        data_waiting_.begin() + static_cast<ptrdiff_t>(taken));
  }
}

// At the end of the round, with all others of it: workers are woken once for them.
void Mm::push_data(DataRequest& r) {
  data_waiting_.push_back(&r);
}

void Mm::check_invariants() {
  zones_.check_invariants();
  check_swap();
  uint64_t moving = 0;
  for (AddressSpace& s : spaces_) {
    s.check_invariants();
    for (AddressSpace::Mapping& m : s.planes()) {
      for (uint32_t i = 0; i < m.object->used_end(); ++i) {
        const Page& p = m.object->page(i);
        const bool wants = p.has(Page::kWantMapped) || p.has(Page::kWantResident) ||
                           p.has(Page::kDoomed) || p.has(Page::kWantOut) ||
                           p.has(Page::kWantDemoted) || p.has(Page::kWantPromoted) ||
                           p.has(Page::kWantClean);
        check(!wants || place_in_flight(p.place) || p.has(Page::kWaiting),
              "a want is in flight or waits: page flags, place", p.flags, p.place);
        const bool moves = p.has(Page::kWantDemoted) || p.has(Page::kWantPromoted);
        moving += moves ? m.object->page_size().value() : 0;
      }
    }
  }
  check(moving == moving_bytes_, "bytes that change their tier add up", moving, moving_bytes_);
}

}  // namespace kvmm
