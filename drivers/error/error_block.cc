// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "drivers/block_request.h"
#include "drivers/error/error_driver.h"
#include "runtime/base/check.h"

namespace kvmm {
namespace {

constexpr auto kTransfers =
    static_cast<BlockOpMask>(mask_of(BlockOp::kRead) | mask_of(BlockOp::kWrite));

}  // namespace

void ErrorBlock::AlignedFree::operator()(std::byte* p) const {
  std::free(p);
}

ErrorBlock::ErrorBlock(BlockOps& below, uint64_t seed, uint32_t depth)
    : below_(below), depth_(depth), random_(seed), slots_(std::make_unique<Slot[]>(depth)) {
  check(depth > 0, "an error device works on at least one request");
  for (uint32_t i = depth; i > 0; --i) {
    Slot& s = slots_[i - 1];
    s.inner.queue = &finished_;
    s.inner.owner = &s;
    free_.push_back(&s);
  }
}

ErrorBlock::~ErrorBlock() {
  drain();
  check(free_.size() == depth_, "nothing is in flight at the end", free_.size(), depth_);
}

BlockInfo ErrorBlock::info() const {
  BlockInfo i = below_.info();
  i.name = "error";
  i.depth = std::min(i.depth, depth_);
  return i;
}

Result<uint32_t> ErrorBlock::add_rule(const ErrorRule& rule) {
  ErrorRule r = rule;
  switch (r.action) {
    case ErrorAction::kFlip:
    case ErrorAction::kStale:
      r.ops &= mask_of(BlockOp::kRead);
      break;
    case ErrorAction::kLose:
      r.ops &= static_cast<BlockOpMask>(~mask_of(BlockOp::kRead));
      break;
    case ErrorAction::kTear:
      r.ops &= mask_of(BlockOp::kWrite);
      break;
    case ErrorAction::kShorten:
    case ErrorAction::kMisdirect:
      r.ops &= kTransfers;
      break;
    case ErrorAction::kFail:
    case ErrorAction::kRefuse:
      break;
  }
  if (r.ops == 0) {
    return Error(Errc::kInvalid, "error: no request of these kinds can fail in this way");
  }
  if (r.action == ErrorAction::kLose) {
    // Unless told so, only writes are lost; a flush that lies is asked for by name.
    r.ops = rule.ops == kAllBlockOps ? mask_of(BlockOp::kWrite) : r.ops;
  }
  const BlockInfo i = below_.info();
  if (r.action == ErrorAction::kMisdirect &&
      (r.distance % i.alignment.value() != 0 || r.distance % i.capacity.value() == 0)) {
    return Error(Errc::kInvalid,
                 "error: distance must be a multiple of the alignment, and lead elsewhere");
  }
  if (r.from >= r.to || r.nth == 0 || r.per_million > 1'000'000 || r.result == Errc::kOk) {
    return Error(Errc::kInvalid, "error: an empty range, nth 0, a chance above 1 or no error");
  }
  rules_.push_back({next_number_, r});
  return next_number_++;
}

Result<void> ErrorBlock::remove_rule(uint32_t number) {
  const size_t n =
      std::erase_if(rules_, [number](const ActiveRule& r) { return r.number == number; });
  return n == 0 ? Errc::kNotFound : Errc::kOk;
}

void ErrorBlock::clear_rules() {
  rules_.clear();
  old_.clear();
}

uint64_t ErrorBlock::fired(uint32_t number) const {
  for (const ActiveRule& r : rules_) {
    if (r.number == number) {
      return r.fired;
    }
  }
  return 0;
}

ErrorBlock::ActiveRule* ErrorBlock::decide(const BlockRequest& r) {
  const uint64_t length = r.op == BlockOp::kFlush ? 0 : r.length.value();
  const uint64_t offset = r.op == BlockOp::kFlush ? 0 : r.offset;
  for (ActiveRule& a : rules_) {
    const ErrorRule& rule = a.rule;
    const bool touches = offset < rule.to && offset + std::max<uint64_t>(length, 1) > rule.from;
    if ((rule.ops & mask_of(r.op)) == 0 || !touches) {
      continue;
    }
    ++a.matched;
    if (a.matched < rule.nth || (rule.count != 0 && a.matched - rule.nth >= rule.count) ||
        !random_.chance(rule.per_million, 1'000'000)) {
      continue;
    }
    ++a.fired;
    ++fired_total_;
    return &a;
  }
  return nullptr;
}

bool ErrorBlock::remembers(const BlockRequest& r) const {
  if (r.op != BlockOp::kWrite && r.op != BlockOp::kDiscard) {
    return false;
  }
  return std::any_of(rules_.begin(), rules_.end(), [&r](const ActiveRule& a) {
    return a.rule.action == ErrorAction::kStale && r.offset < a.rule.to &&
           r.offset + r.length.value() > a.rule.from;
  });
}

size_t ErrorBlock::submit(std::span<BlockRequest* const> requests) {
  const BlockInfo limits = below_.info();
  size_t taken = 0;
  for (BlockRequest* r : requests) {
    // No more than the device below takes: what it would refuse has no rule decided for it yet.
    if (free_.empty() || depth_ - free_.size() >= limits.depth || !waiting_.empty()) {
      break;
    }
    if (const Errc refused = check_block_request(*r, limits); refused != Errc::kOk) {
      finish_block_request(*r, refused);
      ++taken;
      continue;
    }
    ActiveRule* fired = decide(*r);
    if (fired != nullptr && fired->rule.action == ErrorAction::kRefuse) {
      break;
    }
    ++taken;
    const bool has_rule = fired != nullptr;
    const ErrorAction action = has_rule ? fired->rule.action : ErrorAction::kFail;
    if (has_rule && action == ErrorAction::kFail) {
      finish_block_request(*r, fired->rule.result, fired->rule.os_error);
      continue;
    }
    if (has_rule && action == ErrorAction::kLose) {
      finish_block_request(*r, Errc::kOk);
      continue;
    }
    const uint64_t unit = limits.alignment.value();
    uint64_t length = r->length.value();
    uint64_t offset = r->offset;
    if (has_rule && (action == ErrorAction::kShorten || action == ErrorAction::kTear)) {
      length = round_down(length / 2, unit);
      if (length == 0) {  // one unit: none of it arrives
        const bool torn = action == ErrorAction::kTear;
        finish_block_request(*r, torn ? Errc::kOk : Errc::kIo);
        continue;
      }
    }
    if (has_rule && action == ErrorAction::kMisdirect) {
      const uint64_t room = limits.capacity.value() - length;  // both multiples of the unit
      const uint64_t places = room + unit;
      offset = (offset + fired->rule.distance) % places;
      offset = offset != r->offset ? offset : (offset + unit) % places;
    }
    Slot& s = *free_.back();
    free_.pop_back();
    s.outer = r;
    s.acts = has_rule;
    s.action = action;
    s.inner.op = r->op;
    s.inner.urgency = r->urgency;
    s.inner.data = r->data;
    s.inner.offset = offset;
    s.inner.length = Bytes(length);
    s.step = remembers(s.inner) ? Step::kReadOld : Step::kMain;
    start(s);
  }
  drain();
  return taken;
}

void ErrorBlock::start(Slot& s) {
  if (s.step == Step::kReadOld) {
    s.inner.op = BlockOp::kRead;
    s.old_bytes.reset(static_cast<std::byte*>(std::aligned_alloc(
        std::max<size_t>(below_.info().alignment.value(), 64), s.inner.length.value())));
    if (s.old_bytes == nullptr) {
      finish(s, Errc::kNoMemory, ENOMEM);
      return;
    }
    s.inner.data = s.old_bytes.get();
  }
  if (!offer(s)) {
    waiting_.push_back(&s);
  }
}

bool ErrorBlock::offer(Slot& s) {
  BlockRequest* inner = &s.inner;
  return below_.submit({&inner, 1}) == 1;
}

void ErrorBlock::poll() {
  below_.poll();
  drain();
  while (!waiting_.empty() && offer(*waiting_.front())) {
    waiting_.erase(waiting_.begin());
    drain();
  }
}

void ErrorBlock::drain() {
  while (Request* r = finished_.pop()) {
    finished_below(*static_cast<Slot*>(r->owner));
  }
}

void ErrorBlock::finished_below(Slot& s) {
  const Errc result = s.inner.result;
  const int os_error = s.inner.os_error;
  if (result != Errc::kOk) {
    finish(s, result, os_error);  // the device's own failure comes first
    return;
  }
  if (s.step == Step::kReadOld) {
    remember(s);
    s.step = Step::kMain;
    s.inner.op = s.outer->op;
    s.inner.data = s.outer->data;
    start(s);
    return;
  }
  if (s.acts) {
    switch (s.action) {
      case ErrorAction::kShorten:
        finish(s, Errc::kIo, 0);
        return;
      case ErrorAction::kFlip:
        flip_bit(*s.outer);
        break;
      case ErrorAction::kStale:
        overlay_old(*s.outer);
        break;
      default:
        break;
    }
  }
  finish(s, Errc::kOk, 0);
}

void ErrorBlock::remember(const Slot& s) {
  const uint64_t unit = below_.info().alignment.value();
  for (uint64_t done = 0; done < s.inner.length.value(); done += unit) {
    const std::byte* from = s.old_bytes.get() + done;
    old_[(s.inner.offset + done) / unit].assign(from, from + unit);
  }
}

void ErrorBlock::overlay_old(const BlockRequest& r) {
  const uint64_t unit = below_.info().alignment.value();
  for (uint64_t done = 0; done < r.length.value(); done += unit) {
    const auto old = old_.find((r.offset + done) / unit);
    if (old != old_.end()) {
      std::memcpy(r.data + done, old->second.data(), unit);
    }
  }
}

void ErrorBlock::flip_bit(const BlockRequest& r) {
  const uint64_t bit = random_.below(r.length.value() * 8);
  r.data[bit / 8] ^= static_cast<std::byte>(1u << (bit % 8));
}

void ErrorBlock::finish(Slot& s, Errc result, int os_error) {
  BlockRequest* outer = s.outer;
  s.outer = nullptr;
  s.step = Step::kFree;
  s.old_bytes.reset();
  free_.push_back(&s);
  finish_block_request(*outer, result, os_error);
}

}  // namespace kvmm
