// SPDX-License-Identifier: Apache-2.0
//
// Work on whole swap areas: how they come and go, writing the index, flushing.
#include <algorithm>

#include "sched/mm.h"

namespace kvmm {

void Mm::area_added(SwapArea& area) {
  IoQueue q;
  q.device = &area.block();
  q.area = &area;
  q.rescue = std::make_unique<DrainJob>();
  q.waiting.reserve(kSubmitMax + kIndexOps);
  io_.push_back(std::move(q));
  drains_.reserve(2 * io_.size());  // a step allocates nothing
  unblock_writes();
}

void Mm::area_removed(SwapArea& area) {
  std::erase(drains_, queue_of(area).rescue.get());
  std::erase_if(io_, [&](const IoQueue& q) { return q.device == &area.block(); });
}

bool Mm::uses(const SwapArea& area) const {
  return std::any_of(index_ops_.begin(), index_ops_.end(),
                     [&](const IndexOp& op) { return op.area == &area; });
}

// ------------------------------------------------------------------------------------ index and
// flush

Mm::IndexOp& Mm::start_index_op(IndexOp& op, SwapArea& area, BlockOp what, RequestKind kind) {
  op.area = &area;
  ++index_ops_used_;
  op.io = BlockRequest();
  op.io.queue = completions_;
  op.io.owner = &op;
  op.io.kind = static_cast<uint32_t>(kind);
  op.io.op = what;
  op.io.urgency = Urgency::kBackground;
  push_io(area.block(), op.io);
  return op;
}

// From the end: the first ones are for the index. Null: all are in use.
Mm::IndexOp* Mm::free_index_op() {
  for (size_t i = index_ops_.size(); i > kIndexWrites; --i) {
    if (index_ops_[i - 1].area == nullptr) {
      return &index_ops_[i - 1];
    }
  }
  return nullptr;
}

void Mm::flush(FlushJob& job) {
  flushes_.push_back(&job);
  step_index();
}

void Mm::step_index() {
  if (flushes_.empty()) {
    return;
  }
  // What is only on a device that has gone is lost already, and told so.
  const auto gone = [](const SwapArea& area) {
    return area.health().verdict() == SwapHealth::Verdict::kGone;
  };
  bool clean = true;
  for (const auto& area : swap_->areas()) {
    if (gone(*area)) {
      continue;
    }
    for (IndexOp& op : std::span(index_ops_).first(kIndexWrites)) {
      IndexWrite w;
      if (op.area != nullptr || area->take_dirty_index(std::span(&w, 1)) == 0) {
        continue;
      }
      start_index_op(op, *area, BlockOp::kWrite, RequestKind::kIndex);
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
        if (op.area == nullptr && !gone(*area)) {
          op.flush = job;
          ++job->pending;
          start_index_op(op, *area, BlockOp::kFlush, RequestKind::kFlush);
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
  const auto kind = static_cast<RequestKind>(r.kind);
  op.area->health().finished(r, now_);
  if (kind == RequestKind::kDiscard) {
    op.area->discarded(op.discard, r.result);
    swap_room_changed_ = true;
  } else if (kind == RequestKind::kGrow) {
    op.area->grew(op.growth, r.result, now_);
    swap_room_changed_ = swap_room_changed_ || r.result == Errc::kOk;
  } else if (kind == RequestKind::kIndex) {
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

}  // namespace kvmm
