// SPDX-License-Identifier: Apache-2.0
//
// Work on whole swap areas: writing the index, flushing, and emptying an area for swapoff.
#include <algorithm>

#include "sched/mm.h"

namespace kvmm {

void Mm::area_added(SwapArea& area) {
  IoQueue q;
  q.device = &area.block();
  q.waiting.reserve(kSubmitMax + kIndexOps);
  io_.push_back(std::move(q));
  unblock_writes();
}

void Mm::area_removed(SwapArea& area) {
  std::erase_if(io_, [&](const IoQueue& q) { return q.device == &area.block(); });
}

bool Mm::uses(const SwapArea& area) const {
  return std::any_of(index_ops_.begin(), index_ops_.end(),
                     [&](const IndexOp& op) { return op.area == &area; });
}

// ------------------------------------------------------------------------------------ index and
// flush

void Mm::flush(FlushJob& job) {
  flushes_.push_back(&job);
  step_index();
}

void Mm::step_index() {
  if (flushes_.empty()) {
    return;
  }
  auto start = [&](IndexOp& op, SwapArea& area, BlockOp what, RequestKind kind) {
    op.area = &area;
    ++index_ops_used_;
    op.io = BlockRequest();
    op.io.queue = completions_;
    op.io.owner = &op;
    op.io.kind = static_cast<uint32_t>(kind);
    op.io.op = what;
    op.io.urgency = Urgency::kBackground;
    push_io(area.block(), op.io);
  };
  bool clean = true;
  for (const auto& area : swap_->areas()) {
    for (IndexOp& op : std::span(index_ops_).first(kIndexWrites)) {
      IndexWrite w;
      if (op.area != nullptr || area->take_dirty_index(std::span(&w, 1)) == 0) {
        continue;
      }
      start(op, *area, BlockOp::kWrite, RequestKind::kIndex);
      op.write = w;
      op.io.data = w.data;
      op.io.offset = w.offset;
      op.io.length = w.length;
    }
    clean = clean && area->index_clean();
  }
  if (!clean) {
    return;
  }
  for (FlushJob* job : flushes_) {
    if (job->started) {
      continue;
    }
    if (index_ops_.size() - index_ops_used_ < swap_->areas().size()) {
      break;
    }
    job->started = true;
    for (const auto& area : swap_->areas()) {
      for (IndexOp& op : index_ops_) {
        if (op.area == nullptr) {
          op.flush = job;
          ++job->pending;
          start(op, *area, BlockOp::kFlush, RequestKind::kFlush);
          break;
        }
      }
    }
    if (job->pending == 0) {
      job->done = true;
    }
  }
  std::erase_if(flushes_, [](const FlushJob* j) { return j->done; });
}

void Mm::finish_index(BlockRequest& r) {
  IndexOp& op = *static_cast<IndexOp*>(r.owner);
  if (static_cast<RequestKind>(r.kind) == RequestKind::kIndex) {
    op.area->index_written(op.write, r.result == Errc::kOk);
    if (r.result != Errc::kOk) {
      // The sector stays dirty; those who wait for it are told instead of trying for ever.
      op.area->note_io_error();
      for (FlushJob* job : flushes_) {
        job->result = r.result;
        job->done = true;
      }
      flushes_.clear();
      for (IndexOp& other : index_ops_) {
        other.flush = nullptr;  // their jobs are gone, and the next one may lie at the same address
      }
    }
  } else {
    FlushJob* job = op.flush;
    if (job != nullptr) {
      if (r.result != Errc::kOk && job->result == Errc::kOk) {
        job->result = r.result;
      }
      if (--job->pending == 0) {
        job->done = true;
        std::erase(flushes_, job);
      }
    }
    op.flush = nullptr;
  }
  op.area = nullptr;
  --index_ops_used_;
}

// ------------------------------------------------------------------------------------ swapoff

void Mm::drain(DrainJob& job) {
  job.area->set_accepting(false);
  drains_.push_back(&job);
}

// Empties areas: a resident page gives its slot back, a swapped one is read first. With no frame
// and no room elsewhere the job ends with an error and the area stays, read-only.
void Mm::step_drain() {
  for (size_t n = 0; n < drains_.size();) {
    DrainJob& job = *drains_[n];
    uint32_t started = 0;
    bool left = false;
    bool stuck = true;
    for (AddressSpace& s : spaces_) {
      for (AddressSpace::Mapping& m : s.planes()) {
        for (uint32_t i = 0; i < m.object->used_end(); ++i) {
          Page& p = m.object->page(i);
          if (p.slot == 0 || SlotId(p.slot).area() != job.area->id()) {
            stuck = stuck && !(place_in_flight(p.place) && p.place == Place::kWriting);
            left = left || p.place == Place::kWriting;  // may be on its way into the area
            continue;
          }
          if (p.place == Place::kMapped || p.place == Place::kUnmapped ||
              p.place == Place::kMapping || p.place == Place::kUnmapping ||
              p.place == Place::kFilling || p.place == Place::kChecking) {
            release_slot(p);
            stuck = false;
            continue;
          }
          left = true;
          if (place_in_flight(p.place) || p.has(Page::kWaiting)) {
            stuck = stuck && !place_in_flight(p.place);
            continue;
          }
          if (started < 16 && waiting_.empty()) {
            ++started;
            p.set(Page::kWantResident);
            advance(p);
            stuck = false;
          }
        }
      }
    }
    if (!left) {
      job.done = true;
    } else if (stuck && !passed_over_ && ops_in_flight_ == 0 && completions_->empty() &&
               out_bytes() == 0) {
      job.done = true;
      job.result = swap_->areas().size() > 1 ? Errc::kNoSpace : Errc::kNoMemory;
      job.area->set_accepting(true);
      swap_room_changed_ = true;  // pages that found no room meanwhile may try again
    }
    if (job.done) {
      drains_.erase(drains_.begin() + static_cast<ptrdiff_t>(n));
    } else {
      ++n;
    }
  }
}

}  // namespace kvmm
