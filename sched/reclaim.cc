// SPDX-License-Identifier: Apache-2.0
//
// Reclaim: which pages give their frames up, and when.
//
//   pass 0   sessions that were said to be idle
//   pass 1   sessions that are proved idle: their probe page was not touched for probe_wait
//   pass 2   sessions without a fault for probe_wait whose probe is still out, and that touched no
//            earlier one a moment ago
//   pass 3   sessions that did not just prove that they run, by touching their probe (direct
//            reclaim only, as the next one)
//   pass 4   every session
//
// Least recently active first. A session that is all in memory has no faults: without pass 3 one
// that decodes would look older than those that are read in and put down beside it.
//
// Inside a session inactive pages go before active ones, those mapped longest ago first. A waiting
// fault needs a frame of one size: a victim of that size goes alone, a victim of another size takes
// its whole block with it, so that the block can be carved anew.
#include <algorithm>
#include <bit>

#include "sched/mm.h"

namespace kvmm {

void Mm::touched(AddressSpace& space, Tick now) {
  space.last_active = now;
  space.probed_at = Tick(0);
  if (&spaces_.front() != &space && space.hook.is_linked()) {
    spaces_.erase(spaces_.iterator_to(space));
    spaces_.push_front(space);
  }
}

uint64_t Mm::out_bytes() const {
  uint64_t bytes = 0;
  for (size_t i = 0; i < out_of_.size(); ++i) {
    bytes += out_of_[i] << i;
  }
  return bytes;
}

bool Mm::looks_idle(const AddressSpace& s) const {
  const Tick wait = micros(config_.probe_wait_us.load(std::memory_order_relaxed));
  return now_ >= s.last_active + wait && s.advice != Advice::kRunning;
}

bool Mm::in_pass(const AddressSpace& s, int pass) const {
  if (s.lists_nothing()) {
    return false;
  }
  const Tick wait = micros(config_.probe_wait_us.load(std::memory_order_relaxed));
  // A session that touched its probe is asked again after `wait`, and has as long to answer.
  const bool runs = s.advice == Advice::kRunning ||
                    (s.proved_running != Tick(0) && now_ < s.proved_running + wait + wait);
  switch (pass) {
    case 0:
      return s.advice == Advice::kIdle;
    case kPassProved:
      return looks_idle(s) && s.probed_at != Tick(0) && now_ >= s.probed_at + wait;
    case kPassIdle:
      return looks_idle(s) && !runs;
    case kPassNotProvedRunning:
      return !runs;
    default:
      return true;
  }
}

// Unmaps the newest page of sessions that look quiet: a session that runs touches it soon. This is
// done before memory is short, so that reclaim knows by then who runs; a session costs one minor
// fault a probe_wait while it runs, and nothing once it is proved idle.
void Mm::probe_spaces() {
  const auto& tiers = zones_.tiers();
  if (std::all_of(tiers.begin(), tiers.end(), [](const Tier* t) {
        return t->pool().used_bytes() < Bytes(t->pool().capacity().value() / 2);
      })) {
    return;
  }
  const Tick wait = micros(config_.probe_wait_us.load(std::memory_order_relaxed));
  if (now_ >= next_probe_) {
    next_probe_ = Tick(0);
    for (AddressSpace& s : spaces_) {
      if (s.advice == Advice::kIdle || s.lists_nothing()) {
        continue;
      }
      if (s.probed_at == Tick(0) && looks_idle(s)) {
        s.probed_at = std::max(now_, Tick(1));
        Page* p = s.newest;
        if (p == nullptr || p->place != Place::kMapped || !reclaimable(*p)) {
          p = nullptr;
          for (AddressSpace::Lists& l : s.lists) {
            p = p == nullptr && !l.active.empty() ? &l.active.front() : p;
          }
        }
        if (p != nullptr && reclaimable(*p)) {
          p->set(Page::kProbe);
          MmStats::add(stats_.probes);
          begin_unmap(*p);
        }
      }
      if (s.probed_at == Tick(0) && s.advice != Advice::kRunning) {
        const Tick due = s.last_active + wait;
        next_probe_ = next_probe_ == Tick(0) ? due : std::min(next_probe_, due);
      }
    }
    if (next_probe_ == Tick(0)) {
      next_probe_ = now_ + wait;  // all are known: look again then, without being woken for it
      return;
    }
  }
  due_at(next_probe_);
}

// Frames of `size` that are free, or on their way: nobody needs to be reclaimed for those.
uint64_t Mm::coming_frames(Bytes size) {
  const auto cls = static_cast<size_t>(std::bit_width(size.value()) - 1);
  if (fixed_frames_) {
    return zones_.free_bytes() / size + out_bytes() / size.value();
  }
  const uint64_t per_block = zones_.block_size() / size;
  uint64_t blocks = zones_.free_blocks();
  for (Frame*& f : blocks_out_) {
    if (f == nullptr) {
      continue;
    }
    bool going = false;
    zones_.for_each_frame_in_block(
        *f, [&](Frame& g) { going = going || (g.page != nullptr && g.page->has(Page::kWantOut)); });
    if (going) {
      ++blocks;
    } else {
      f = nullptr;
    }
  }
  return zones_.class_stats(size).free + blocks * per_block + out_of_[cls];
}

// Who waited for a page has not run since it was mapped in this very step. Were it the next victim,
// a session whose other pages cannot go (swap is full) would read it for ever and never get on.
bool Mm::just_mapped(const Page& p) {
  const bool just = p.place == Place::kMapped && p.mapped_in == step_number_;
  passed_over_ = passed_over_ || just;
  return just;
}

bool Mm::block_reclaimable(Page& p) {
  bool all = true;
  zones_.for_each_frame_in_block(*p.frame, [&](Frame& f) {
    all = all && !f.working &&
          (f.page == nullptr || f.page->has(Page::kWantOut) ||
           (reclaimable(*f.page) && !f.page->has(Page::kWriteBlocked) && !just_mapped(*f.page)));
  });
  return all;
}

// Starts the reclaim of one page of the session, or of one block, so that a frame of `size` comes
// free. `size` 0: any page.
bool Mm::reclaim_from(AddressSpace& space, Bytes size, const Tier* only) {
  auto take = [&](Page& p) {
    if (!reclaimable(p) || p.has(Page::kWriteBlocked) || just_mapped(p)) {
      return false;
    }
    if (size.value() == 0 || fixed_frames_ || p.object->page_size() == size) {
      victim_chosen(p);
      set_want_out(p);
      return true;
    }
    auto slot = std::find(blocks_out_.begin(), blocks_out_.end(), nullptr);
    if (slot == blocks_out_.end() || !block_reclaimable(p)) {
      return false;
    }
    *slot = p.frame;
    std::array<Page*, kFramesPerBlockMax> pages{};
    size_t n = 0;
    zones_.for_each_frame_in_block(*p.frame, [&](Frame& f) {
      if (f.page != nullptr) {
        pages[n++] = f.page;
      }
    });
    for (size_t i = 0; i < n; ++i) {
      victim_chosen(*pages[i]);
      set_want_out(*pages[i]);
    }
    return true;
  };
  const auto& tiers = zones_.tiers();
  return std::any_of(tiers.rbegin(), tiers.rend(), [&](const Tier* t) {
    return (only == nullptr || t == only) && for_each_of_tier(space, t->id(), take);
  });
}

bool Mm::reclaim_one(Bytes size, int last_pass, const Tier* only) {
  for (int pass = 0; pass <= last_pass; ++pass) {
    if (pass > kPassNotProvedRunning && (passed_over_ || out_bytes() != 0)) {
      return false;  // first what is on its way, or can be had in the next step
    }
    reclaim_pass_ = static_cast<uint64_t>(pass);
    for (auto it = spaces_.rbegin(); it != spaces_.rend(); ++it) {
      if (in_pass(*it, pass) && reclaim_from(*it, size, only)) {
        return true;
      }
    }
  }
  return false;
}

void Mm::unblock_writes() {
  swap_room_changed_ = false;
  swap_full_said_ = false;
  retry_.splice(retry_.end(), room_wait_);  // it is not only the area that they wait for
  for (AddressSpace& s : spaces_) {
    for (AddressSpace::Lists& l : s.lists) {
      for (PageList* list : {&l.active, &l.inactive}) {
        for (Page& p : *list) {
          p.clear(Page::kWriteBlocked);
        }
      }
    }
  }
}

// Direct reclaim: frames of the sizes that pages wait for.
void Mm::reclaim_for_waiting(uint64_t window) {
  for (size_t cls = 0; cls < waiting_of_.size(); ++cls) {
    const Bytes size(uint64_t{1} << cls);
    while (waiting_of_[cls] != 0 && waiting_of_[cls] > coming_frames(size) &&
           out_bytes() < std::max(window, size.value()) && reclaim_one(size, kPasses - 1)) {
      MmStats::add(stats_.direct_reclaim);
    }
  }
  if (!waiting_.empty() && waiting_urgent_.empty()) {
    // Prefetch takes from idle sessions only; swapoff from everybody, it has to come to its end.
    const int last_pass = drains_.empty() ? kPassIdle : kPasses - 1;
    const Bytes size = waiting_.front().object->page_size();
    while (out_bytes() < window &&
           (coming_frames(size) == 0 ||
            zones_.free_bytes() + Bytes(out_bytes()) < size + zones_.watermarks().low) &&
           reclaim_one(size, last_pass)) {
    }
  }
}

void Mm::reclaim() {
  passed_over_ = false;
  if (swap_room_changed_) {
    unblock_writes();
  }
  probe_spaces();
  demote();
  const bool low = zones_.below_low();
  if (waiting_urgent_.empty() && waiting_.empty() && !low) {
    return;
  }
  const AddressSpace* by =
      waiting_urgent_.empty() ? nullptr : waiting_urgent_.front().object->home();
  reclaim_by_ = by != nullptr ? by->id() : 0;  // for those who look
  const uint64_t window = config_.reclaim_window.load(std::memory_order_relaxed);
  reclaim_for_waiting(window);
  // reclaimd: each tier up to its high watermark, from sessions that nobody uses. To swap only when
  // no other tier takes pages: all of them together are short.
  const auto& tiers = zones_.tiers();
  const int last_pass = zones_.below_min() ? kPassIdle : kPassProved;
  for (auto t = tiers.rbegin(); low && t != tiers.rend(); ++t) {
    while ((*t)->below_low() && free_soon(**t) < (*t)->watermarks().high && out_bytes() < window &&
           reclaim_one(Bytes(0), last_pass, *t)) {
    }
  }
  // A running session that outgrows the tier: a batch ahead, so that its faults do not wait in
  // turn.
  const bool pressed = !waiting_urgent_.empty() || zones_.below_min();
  while (pressed && zones_.free_bytes() + Bytes(out_bytes()) < zones_.watermarks().low &&
         out_bytes() < window && reclaim_one(Bytes(0), kPasses - 1)) {
  }
}

// Writes pages of idle sessions before their frames are needed: reclaim then only frees.
void Mm::write_ahead() {
  auto budget = static_cast<int64_t>(config_.writeback_ahead.load(std::memory_order_relaxed));
  if (budget == 0 || pager_->empty() || ops_in_flight_ > kOps / 4) {
    return;
  }
  for (auto it = spaces_.rbegin(); it != spaces_.rend() && budget > 0; ++it) {
    if (!in_pass(*it, 0) && !in_pass(*it, kPassProved) && it->advice != Advice::kDurable) {
      continue;
    }
    auto clean_it = [&](Page& p) {
      budget -= static_cast<int64_t>(p.object->page_size().value());
      if (!p.has(Page::kProvedClean) && !p.has(Page::kWantClean) && reclaimable(p) &&
          !p.has(Page::kWriteBlocked)) {
        p.set(Page::kWantClean);
        advance(p);
      }
      return budget <= 0 || free_count_ <= kOpsKept;
    };
    bool enough = false;
    for (AddressSpace::Lists& l : it->lists) {
      enough = enough || for_each_from_tail(l.inactive, clean_it);
    }
    for (AddressSpace::Lists& l : it->lists) {
      enough = enough || it->advice == Advice::kDurable || for_each_from_tail(l.active, clean_it);
    }
  }
}

// Zeroes free frames and heals split blocks while nobody waits for a frame.
void Mm::zero_ahead() {
  if (fixed_frames_ || !waiting_.empty() || !waiting_urgent_.empty()) {
    return;
  }
  const uint64_t target = config_.zero_ahead.load(std::memory_order_relaxed);
  auto start = [&](Frame* frame, DataOp what) {
    PageOp& op = free_ops_.front();
    free_ops_.pop_front();
    --free_count_;
    ++ops_in_flight_;
    op.page = nullptr;
    op.event = PageEvent::kLose;
    op.outstanding = 1;
    op.chunks[0].io.owner = frame;
    DataRequest& d = op.chunks[0].sum;
    d = DataRequest();
    d.queue = completions_;
    d.owner = &op;
    d.kind = static_cast<uint32_t>(RequestKind::kZeroAhead);
    d.op = what;
    d.addr = frame->addr;
    d.length = frame->size();
    push_data(d);
  };
  for (uint64_t size = zones_.page_size_min().value(); size <= zones_.block_size().value();
       size *= 2) {
    const FrameClassStats c = zones_.class_stats(Bytes(size));
    if (c.used == 0) {
      continue;
    }
    for (uint64_t n = c.zeroed + c.working; n < target && free_count_ > kOpsKept * 2; ++n) {
      Frame* f = zones_.take_to_zero(Bytes(size));
      if (f == nullptr) {
        break;
      }
      start(f, DataOp::kZero);
    }
  }
  if (free_count_ > kOpsKept * 2 && zones_.class_stats(zones_.block_size()).used != 0) {
    if (Frame* f = zones_.take_to_rebuild()) {
      start(f, DataOp::kRebuild);
    }
  }
}

// Nothing is in flight, nothing can be reclaimed, and still pages wait: they get an answer.
void Mm::answer_hopeless() {
  if (ops_in_flight_ != 0 || !completions_->empty() || !retry_.empty() || !drains_.empty() ||
      !room_wait_.empty() || passed_over_) {
    return;
  }
  while (!waiting_.empty()) {  // prefetch and readahead: they are given up
    Page& p = waiting_.front();
    if (can_start(p)) {
      break;
    }
    stop_waiting(p);
    clear_want_mapped(p);
    p.clear(Page::kWantResident);
    p.clear(Page::kReadahead);
    p.clear(Page::kReadaheadMark);
    advance(p);
  }
  // One after another, because each answer may let an engine unpin: batches that all wait, wait for
  // each other; one that waits for nothing any more will be unpinned, and so will what is fenced.
  while (pins_open_ == pin_table_.open.size() && fenced_.empty() && !waiting_urgent_.empty() &&
         !can_start(waiting_urgent_.front())) {
    // A pin can be told; a touch can only be poisoned.
    auto victim = std::find_if(waiting_urgent_.begin(), waiting_urgent_.end(), [&](const Page& p) {
      return !p.has(Page::kUrgent) && !can_start(p);
    });
    Page& p = victim != waiting_urgent_.end() ? *victim : waiting_urgent_.front();
    if (hopeless_said_ != &p) {
      hopeless_said_ = &p;
      notice(MmNotice::Kind::kNoMemory, Errc::kNoMemory, p);
    }
    if (p.has(Page::kUrgent) && held()) {
      return;
    }
    hopeless_said_ = nullptr;
    stop_waiting(p);
    MmStats::add(stats_.no_memory);
    if (p.has(Page::kUrgent)) {
      poison_wanted(p);
      fault_ended(p, Errc::kNoMemory);
    }
    clear_want_mapped(p);
    p.clear(Page::kWantResident);
    pin_arrived(p);
  }
}

}  // namespace kvmm
