// SPDX-License-Identifier: Apache-2.0
//
// What swap areas need besides their pages' I/O: to be judged, to grow, to give back what is free.
//
//   each step, each area:  judge -> failing or gone: no new slots, a rescue empties it
//                          grow  -> before the room is needed; who found none waits on room_wait_
//                          discard -> a second after something became free, when nobody waits
#include <algorithm>

#include "sched/mm.h"

namespace kvmm {
namespace {

// What is free for a moment only is given out again, and needs no discard.
constexpr Tick kDiscardWait = millis(1000);
constexpr size_t kDiscardsAtOnce = 4;

}  // namespace

Mm::IoQueue& Mm::queue_of(const SwapArea& area) {
  const auto it =
      std::find_if(io_.begin(), io_.end(), [&](const IoQueue& q) { return q.area == &area; });
  check(it != io_.end(), "a swap area has its queue");
  return *it;
}

void Mm::due_at(Tick when) {
  if (when != Tick(0)) {
    next_due_ = next_due_ == Tick(0) ? when : std::min(next_due_, when);
  }
}

void Mm::say_swap(MmNotice::Kind kind, const SwapArea& area, Errc code, uint64_t pages) {
  MmNotice n{kind, code, 0, 0, static_cast<uint32_t>(std::min<uint64_t>(pages, UINT32_MAX)), 0, {}};
  area.config().name.copy(n.swap.data(), n.swap.size() - 1);
  say(n);
}

SwapHealthLimits Mm::health_limits() const {
  return {micros(config_.swap_slow_us.load(std::memory_order_relaxed)),
          micros(config_.swap_fail_us.load(std::memory_order_relaxed)),
          config_.swap_fail_errors.load(std::memory_order_relaxed)};
}

void Mm::health_woke() {
  const SwapHealthLimits limits = health_limits();
  for (IoQueue& q : io_) {
    q.area->health().woke(now_, limits);
  }
}

void Mm::step_health() {
  const SwapHealthLimits limits = health_limits();
  for (IoQueue& q : io_) {
    if (q.area->health().judge(now_, limits)) {
      judged(q);
    }
    due_at(q.area->health().judge_due(limits));
    step_rescue(q);
  }
}

void Mm::step_room() {
  bool coming = false;
  for (IoQueue& q : io_) {
    if (upkeep_) {
      step_growth(*q.area);
      step_discards(q);
    }
    coming = coming || q.area->room_coming();
  }
  if (!coming) {  // whatever they waited for has come, or will not
    retry_.splice(retry_.end(), room_wait_);
  }
}

void Mm::judged(IoQueue& q) {
  SwapArea& area = *q.area;
  switch (area.health().verdict()) {
    case SwapHealth::Verdict::kOk:
    case SwapHealth::Verdict::kSlow:
      return;
    case SwapHealth::Verdict::kFailing:
      say_swap(MmNotice::Kind::kSwapFailing, area, Errc::kIo, 0);
      break;
    case SwapHealth::Verdict::kGone:
      say_swap(MmNotice::Kind::kSwapGone, area, Errc::kDeviceGone, 0);
      break;
  }
  area.set_accepting(false);
  q.rescue_at = Tick(0);
}

void Mm::step_growth(SwapArea& area) {
  IndexOp* op = free_index_op();
  Growth g;
  if (op != nullptr && area.take_growth(now_, &g)) {
    start_index_op(*op, area, BlockOp::kGrow, RequestKind::kGrow);
    op->growth = g;
    op->io.offset = g.offset;
    op->io.length = g.length;
  }
  due_at(area.growth_due());
}

void Mm::step_discards(IoQueue& q) {
  if (!q.area->has_discards()) {
    q.discard_at = Tick(0);
    return;
  }
  if (q.discard_at == Tick(0)) {
    q.discard_at = now_ + kDiscardWait;
  }
  if (now_ < q.discard_at) {
    return due_at(q.discard_at);
  }
  if (!waiting_urgent_.empty() || !waiting_.empty()) {
    return;  // who waits is looked after first, and leads to another step
  }
  for (size_t i = 0; i < kDiscardsAtOnce; ++i) {
    IndexOp* op = free_index_op();
    Discard d;
    if (op == nullptr || q.area->take_discards(std::span(&d, 1)) == 0) {
      break;
    }
    start_index_op(*op, *q.area, BlockOp::kDiscard, RequestKind::kDiscard);
    op->discard = d;
    op->io.offset = d.offset;
    op->io.length = d.length;
  }
  q.discard_at = Tick(0);
}

// A page that is to be written, while an area grows or discards.
void Mm::wait_for_room(Page& p) {
  p.hook.unlink();
  p.set(Page::kWaiting);
  room_wait_.push_back(p);
}

void Mm::check_swap() {
  for (const IoQueue& q : io_) {
    const SwapHealth::Verdict v = q.area->health().verdict();
    check(!q.area->accepting() || v == SwapHealth::Verdict::kOk || v == SwapHealth::Verdict::kSlow,
          "a failing area takes no pages", v, q.area->accepting());
  }
  for (const Page& p : room_wait_) {
    check(p.has(Page::kWaiting) && p.place == Place::kUnmapped, "who waits for room: flags, place",
          p.flags, p.place);
  }
}

}  // namespace kvmm
