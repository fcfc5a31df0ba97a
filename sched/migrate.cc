// SPDX-License-Identifier: Apache-2.0
//
// Moves of pages between tiers: down when a tier is short of frames, up when a page is used.
//
//   down (demotion)   a tier is below its low watermark, or somebody near to it had to take a frame
//                     farther away: pages of idle sessions, coldest first, to the next tier in its
//                     order that has room; up to the high watermark. A touch
//                     in the middle cancels it. No room anywhere: reclaim.cc writes them to swap
//   up (promotion)    a page that is touched twice from one node and lies in a farther tier than
//                     that node has room for: the second touch waits for the copy
//   hints             a page that stays mapped is never touched in kvmm's sight: a few that lie far
//                     from sessions that run are unmapped, to see whether they are used
//
// One page: unmap, digests of the old frame (unless proved), copy, digests of the new frame read
// back, compare, then the new one is the page's frame (docs/page_states.md, "Migration"). Both
// directions have their own rate in bytes a second.
#include <algorithm>
#include <utility>

#include "sched/mm.h"

namespace kvmm {
namespace {

constexpr uint8_t kHeatToMove = 2;  // touches from one node
constexpr uint8_t kVotesMax = 8;
constexpr uint32_t kHintsAtOnce = 16;

enum Phase : uint8_t { kSource, kCopied, kReadBack };

}  // namespace

// ------------------------------------------------------------------------------------ who is near

void Mm::vote_home(AddressSpace& space, uint8_t row) {
  if (space.home_row == row) {
    space.home_votes = std::min<uint8_t>(space.home_votes + 1, kVotesMax);
  } else if (space.home_votes == 0) {
    space.home_row = row;
    space.home_votes = 1;
  } else {
    --space.home_votes;
  }
}

void Mm::called_from(AddressSpace& space, NodeId node) {
  if (const uint8_t row = zones_.row_of(node); row != 0 && !space.home_touched) {
    vote_home(space, row);
  }
}

// A touch, from `row`: of a page that has a frame, or is about to get one.
void Mm::touched_from(Page& p, uint8_t row) {
  p.heat = p.near == row ? p.heat : uint8_t{0};
  p.near = row;
  if (p.place != Place::kUnmapped || zones_.tiers().size() == 1) {
    return;
  }
  far_ = far_ || p.frame->tier != zones_.order(row).front()->id();
  p.heat = std::min<uint8_t>(p.heat + 1, UINT8_MAX - 1);
  if (p.heat >= kHeatToMove) {
    promote(p);
  }
}

// A page has got a frame. Nearer tiers that had none are to make room.
void Mm::note_tier(const Page& p) {
  for (const Tier* t : zones_.order(p.near)) {
    if (t->id() == p.frame->tier) {
      return;
    }
    crowded_ |= 1u << t->id().value();
    far_ = true;
  }
}

// Is there room nearer to the page's row than where it lies?
void Mm::promote(Page& p) {
  constexpr auto kNot = static_cast<uint32_t>(Page::kWantDemoted | Page::kWantPromoted |
                                              Page::kWantOut | Page::kDoomed | Page::kStays);
  if ((p.flags & kNot) != 0 || free_count_ <= kOps / 4) {
    return;
  }
  const Bytes size = p.object->page_size();
  const uint64_t rate = config_.promote_rate.load(std::memory_order_relaxed);
  for (Tier* t : zones_.order(p.near)) {
    if (t->id() == p.frame->tier || rate == 0) {
      return;
    }
    // Above the low watermark, so that it is not demoted again at once. Where there is none, idle
    // pages are asked to make room.
    if (t->pool().free_bytes() < t->watermarks().low + Bytes(moving_to_[t->id().value()]) + size) {
      crowded_ |= 1u << t->id().value();
      continue;
    }
    if (promotions_.take(now_, rate, size)) {
      set_want_moved(p, *t, Page::kWantPromoted);
    }
    return;
  }
}

// ------------------------------------------------------------------------------------ down

void Mm::demote() {
  const auto& tiers = zones_.tiers();
  if (tiers.size() == 1) {
    return;
  }
  for (auto it = tiers.rbegin(); it != tiers.rend(); ++it) {  // slowest first: it makes room
    Tier& t = **it;
    const uint32_t bit = 1u << t.id().value();
    if ((!t.below_low() && (crowded_ & bit) == 0) || t.demotes_to().empty()) {
      continue;
    }
    const int last_pass = t.below_min() ? kPassIdle : kPassProved;
    while (free_soon(t) < t.watermarks().high && demote_one(t, last_pass)) {
    }
    if (free_soon(t) >= t.watermarks().high) {
      crowded_ &= ~bit;
    }
  }
}

// Starts one page of the tier downwards.
bool Mm::demote_one(Tier& from, int last_pass) {
  const uint64_t rate = config_.demote_rate.load(std::memory_order_relaxed);
  const uint64_t window = config_.reclaim_window.load(std::memory_order_relaxed);
  if (rate == 0 || moving_bytes_ >= window || free_count_ <= kOps / 4) {
    return false;
  }
  bool more = true;
  auto take = [&](Page& p) {
    if (!reclaimable(p) || p.has(Page::kStays) || just_mapped(p)) {
      return false;
    }
    const Bytes size = p.object->page_size();
    for (const TierId id : from.demotes_to()) {
      Tier& to = zones_.table().tier(id);
      if (!to.takes_demoted(from, size, Bytes(moving_to_[id.value()]))) {
        continue;
      }
      if (demotions_.take(now_, rate, size)) {
        set_want_moved(p, to, Page::kWantDemoted);
        more = p.has(Page::kWantDemoted);  // else its frame was gone: not the same page for ever
      } else {
        due_at(demotions_.due(now_, rate, size));
        more = false;
      }
      return true;
    }
    more = false;  // no tier has room for a page of this size
    return true;
  };
  for (int pass = 0; pass <= last_pass; ++pass) {
    for (auto it = spaces_.rbegin(); it != spaces_.rend(); ++it) {
      if (in_pass(*it, pass) && for_each_of_tier(*it, from.id(), take)) {
        return more;
      }
    }
  }
  return false;
}

// Frames of the tier that are free or soon will be.
Bytes Mm::free_soon(const Tier& t) const {
  const size_t i = t.id().value();
  return t.pool().free_bytes() + Bytes(out_of_tier_[i] + moving_from_[i]);
}

// ------------------------------------------------------------------------------------ hints

// Unmaps a few pages that lie farther from a running session than they need to.
void Mm::hint() {
  if (!far_ || config_.promote_rate.load(std::memory_order_relaxed) == 0) {
    return;
  }
  if (now_ < next_hint_) {
    return due_at(next_hint_);
  }
  far_ = false;
  next_hint_ = now_ + micros(config_.hint_wait_us.load(std::memory_order_relaxed));
  for (AddressSpace& s : spaces_) {
    if (in_pass(s, 0) || in_pass(s, kPassProved)) {
      continue;
    }
    const Tier* best = zones_.order(s.home_row).front();
    uint32_t left = kHintsAtOnce;
    for (const Tier* t : zones_.order(s.home_row)) {
      if (t == best) {
        continue;
      }
      far_ = far_ || !s.lists[t->id().value()].active.empty();
      if (best->below_low()) {
        continue;
      }
      for_each_from_tail(s.lists[t->id().value()].active, [&](Page& p) {
        if (left == 0 || free_count_ <= kOps / 2) {
          return true;
        }
        if (reclaimable(p) && p.mapped_in != step_number_ && !p.has(Page::kWantClean) &&
            !p.has(Page::kStays)) {
          --left;
          p.set(Page::kHint);
          MmStats::add(stats_.hints);
          begin_unmap(p);
        }
        return false;
      });
    }
  }
  if (far_) {
    due_at(next_hint_);
  }
}

// ------------------------------------------------------------------------------------ one page

void Mm::set_want_moved(Page& p, Tier& to, Page::Flag how) {
  const uint64_t size = p.object->page_size().value();
  p.set(how);
  p.move_to = static_cast<uint8_t>(to.id().value());
  moving_from_[p.frame->tier.value()] += size;
  moving_to_[p.move_to] += size;
  moving_bytes_ += size;
  if (how == Page::kWantDemoted) {
    advance(p);
  }
}

void Mm::clear_want_moved(Page& p) {
  if (!p.has(Page::kWantDemoted) && !p.has(Page::kWantPromoted)) {
    return;
  }
  const uint64_t size = p.object->page_size().value();
  p.clear(Page::kWantDemoted);
  p.clear(Page::kWantPromoted);
  moving_from_[p.frame->tier.value()] -= size;
  moving_bytes_ -= size;
  if (p.place != Place::kMigrating) {
    moving_to_[p.move_to] -= size;
  }
}

// A touch or a pin wants the page where it is.
void Mm::cancel_demotion(Page& p) {
  if (p.has(Page::kWantDemoted)) {
    MmStats::add(stats_.migrate_cancelled);
    clear_want_moved(p);
  }
}

void Mm::want_moved(Page& p) {
  if (p.place == Place::kMapped && p.pins == 0) {
    return begin_unmap(p);
  }
  if (p.place == Place::kUnmapped) {
    return begin_migrate(p);
  }
  clear_want_moved(p);
  advance(p);
}

void Mm::begin_migrate(Page& p) {
  PageOp* op = take_op(p, PageEvent::kMigrate);
  if (op == nullptr) {
    return;
  }
  AddressSpace* home = p.object->home();
  const Bytes size = p.object->page_size();
  Tier& to = zones_.table().tier(TierId(p.move_to));
  op->to = zones_.allocate_on(to, size, home != nullptr ? home->spec().tenant_number : 1);
  if (op->to == nullptr) {  // somebody else was quicker
    give_op(*op);
    clear_want_moved(p);
    return advance(p);
  }
  op->to->page = &p;
  moving_to_[p.move_to] -= size.value();
  p.apply(PageEvent::kMigrate);
  p.hook.unlink();
  const bool proved = p.has(Page::kProvedClean) && p.has(Page::kHasChecksum);
  op->checksum = p.checksum;
  submit_migrate(*op, proved ? kCopied : kSource);
}

void Mm::submit_migrate(PageOp& op, uint8_t phase) {
  op.phase = phase;
  DataRequest& d = op.chunks[0].sum;
  d = DataRequest();
  d.queue = completions_;
  d.owner = &op;
  d.kind = static_cast<uint32_t>(RequestKind::kPageData);
  d.op = phase == kCopied ? DataOp::kCopy : DataOp::kChecksum;
  d.addr = phase == kSource ? op.page->frame->addr : op.to->addr;
  d.from = op.page->frame->addr;
  d.length = op.page->object->page_size();
  d.digests = std::span(op.digests).first(piece_count(d.length));
  ++op.outstanding;
  push_data(d);
}

void Mm::finish_migrate(PageOp& op) {
  Page& p = *op.page;
  const bool demoted = p.has(Page::kWantDemoted);
  const bool wanted = (demoted || p.has(Page::kWantPromoted)) && !p.has(Page::kDoomed);
  const std::span<const uint64_t> digests(op.digests.data(), piece_count(p.object->page_size()));
  if (wanted && op.error == Errc::kOk && op.phase != kReadBack) {
    if (op.phase == kSource) {
      op.checksum = page_checksum(digests, p.object->identity_of(p));
    }
    return submit_migrate(op, op.phase + 1);
  }
  const bool same = wanted && op.error == Errc::kOk &&
                    page_checksum(digests, p.object->identity_of(p)) == op.checksum;
  clear_want_moved(p);
  AddressSpace* home = p.object->home();
  const uint64_t size = p.object->page_size().value();
  Frame* unused = op.to;
  if (same) {
    Tier& from = zones_.table().tier(p.frame->tier);
    std::swap(p.frame, unused);
    zones_.scrubbed(*p.frame, home != nullptr ? home->spec().tenant_number : 1);
    if (p.has(Page::kHasChecksum) && p.has(Page::kSlotCurrent) && op.checksum == p.checksum) {
      p.set(Page::kProvedClean);
    }
    p.heat = 0;
    far_ = far_ || demoted;
    MmStats::add(demoted ? stats_.pages_demoted : stats_.pages_promoted);
    MmStats::add(stats_.migrated_bytes, size);
    ++(demoted ? from.stats().demoted : from.stats().promoted);
    trace_of(TraceEvent::migrate, p, p.frame->tier.value());
  } else if (wanted) {
    p.set(Page::kStays);
    MmStats::add(stats_.migrate_failed);
  }
  unused->page = nullptr;
  zones_.free(*unused, false);
  give_op(op);
  p.apply(same ? PageEvent::kMigrated : PageEvent::kMigrateFailed);
  advance(p);
}

}  // namespace kvmm
