// SPDX-License-Identifier: Apache-2.0
#include "tools/engines/tiny/engine.h"

#include <poll.h>

#include <algorithm>
#include <string>
#include <thread>
#include <utility>

namespace tiny {

using kvmmpp::Pin;
using kvmmpp::Status;

namespace {

// A step or a recompute that finds content lost this often in a row gives up: the medium is broken.
constexpr uint32_t kAttemptsMax = 256;

// Waits until no range of `pin` is on its way any more.
Status wait_settled(Pin& pin) {
  for (;;) {
    const auto& answers = pin.answers();
    if (std::find(answers.begin(), answers.end(), KVMM_PIN_COMING) == answers.end()) {
      return Status();
    }
    pollfd wait{pin.fd(), POLLIN, 0};
    ::poll(&wait, 1, -1);  // EINTR: the poll below finds out
    if (Status status = pin.poll(); !status.ok())
      return status;
  }
}

// What several answers come to: the one that decides first.
uint32_t worst(const uint32_t* answers, size_t n) {
  for (uint32_t what : {KVMM_PIN_RECOMPUTE, KVMM_PIN_FAILED, KVMM_PIN_COMING}) {
    if (std::find(answers, answers + n, what) != answers + n)
      return what;
  }
  return KVMM_PIN_READY;
}

// Adds `range` to ranges in ascending order; those that overlap become one.
void add_range(std::vector<kvmm_range>* ranges, kvmm_range range) {
  ranges->push_back(range);
  std::sort(ranges->begin(), ranges->end(),
            [](const kvmm_range& a, const kvmm_range& b) { return a.begin < b.begin; });
  size_t kept = 0;
  for (size_t i = 1; i < ranges->size(); ++i) {
    kvmm_range& last = (*ranges)[kept];
    const kvmm_range next = (*ranges)[i];
    if (next.begin < last.end) {
      last.end = std::max(last.end, next.end);
    } else {
      (*ranges)[++kept] = next;
    }
  }
  ranges->resize(kept + 1);
}

}  // namespace

Engine::Engine(const Model& model, KvmmStore& store, const EngineOptions& options)
    : model_(model), store_(store), options_(options), batch_limit_(std::max(1u, options.batch)) {
  checked_.reserve(options.work.sessions);
  for (uint32_t i = 0; i < options.work.sessions; ++i) {
    sequences_.push_back(make_sequence(options.work, i));
    checked_.emplace_back(i, store.view(i));
    steps_.push_back(0);
  }
}

uint64_t Engine::reads_checked() const {
  uint64_t sum = 0;
  for (const CheckedView& view : checked_)
    sum += view.reads_checked();
  return sum;
}

KvView& Engine::view(uint32_t index) {
  if (options_.check)
    return checked_[index];
  return store_.view(index);
}

Status Engine::wrong(uint32_t index) {
  mismatch_ = checked_[index].mismatch();
  return Status::failure(KVMM_ECORRUPT, mismatch_ ? mismatch_->describe() : "no value recorded");
}

Status Engine::run(uint64_t target) {
  return store_.options().kind == EngineKind::kPinning ? run_pinning(target) : run_faulting(target);
}

// The rows of the step are written: they become part of the session.
Status Engine::finish_step(uint32_t index, uint64_t n) {
  const Sequence& seq = sequences_[index];
  const int32_t* ids = seq.tokens.data() + (seq.written - n);
  if (Status status = store_.session(index).append(ids, n); !status.ok())
    return status;
  ++counts_.steps;
  ++steps_[index];
  return evict_if_due(index);
}

Status Engine::evict_if_due(uint32_t index) {
  if (options_.evict_every == 0 || steps_[index] % options_.evict_every != 0)
    return Status();
  ++counts_.evictions;
  return store_.session(index).advise(KVMM_ADVISE_EVICT);
}

// ------------------------------------------------------------------------------------------
// faulting

Status Engine::run_faulting(uint64_t target) {
  for (bool any = true; any;) {
    any = false;
    for (Sequence& seq : sequences_) {
      const uint64_t n = next_step(options_.work, seq, target);
      if (n == 0)
        continue;
      any = true;
      uint32_t attempts = 0;
      for (;;) {
        const Access access = advance(model_, n, view(seq.index), &seq);
        if (access == Access::kOk)
          break;
        if (access == Access::kWrong)
          return wrong(seq.index);
        if (++attempts > kAttemptsMax) {
          return Status::failure(KVMM_ERECOMPUTE, "content is lost faster than it is computed");
        }
        if (Status status = recover(seq.index); !status.ok())
          return status;
      }
      if (Status status = finish_step(seq.index, n); !status.ok())
        return status;
    }
  }
  return Status();
}

// -------------------------------------------------------------------------------------------
// pinning

Status Engine::run_pinning(uint64_t target) {
  uint32_t cursor = 0;  // whose turn it is
  uint32_t starved = 0;
  for (;;) {
    std::vector<Member> members;
    for (uint32_t i = 0; i < sequences_.size() && members.size() < batch_limit_; ++i) {
      const uint32_t index = (cursor + i) % static_cast<uint32_t>(sequences_.size());
      const uint64_t n = next_step(options_.work, sequences_[index], target);
      if (n != 0)
        members.push_back(Member{index, n, 0, 0, false, Access::kOk});
    }
    if (members.empty())
      return Status();

    std::vector<uint32_t> lost;
    Status status = run_batch(members, &lost);
    const bool too_large = status.code() == KVMM_ENOMEMORY;
    if (!status.ok() && !too_large)
      return status;
    size_t moved = lost.size();
    for (const Member& member : members)
      moved += member.launched ? 1 : 0;
    if (moved < members.size()) {
      // Not all fit into DRAM together: fewer from now on.
      ++counts_.batches_cut;
      batch_limit_ = std::max(1u, static_cast<uint32_t>(std::max(moved, members.size() / 2)));
    }
    if (moved == 0 && members.size() == 1) {
      // Alone it must fit, as soon as the fences of earlier batches have been noticed.
      if (too_large || ++starved > kAttemptsMax) {
        return too_large ? status
                         : Status::failure(KVMM_ENOMEMORY, "one sequence alone finds no frames");
      }
      std::this_thread::yield();
      continue;
    }
    if (moved != 0)
      starved = 0;
    for (uint32_t index : lost) {
      if (Status recovered = recover(index); !recovered.ok())
        return recovered;
    }
    if (moved != 0)
      cursor = (members.back().index + 1) % static_cast<uint32_t>(sequences_.size());
  }
}

Status Engine::run_batch(std::vector<Member>& members, std::vector<uint32_t>* lost) {
  std::vector<kvmm_pin_range> ranges;
  for (Member& member : members) {
    kvmm_session* session = store_.session(member.index).get();
    const uint64_t written = sequences_[member.index].written;
    member.first_range = ranges.size();
    if (written != 0)
      ranges.push_back({session, KVMM_ALL_PLANES, 0, 0, written});
    ranges.push_back({session, KVMM_ALL_PLANES, 1, written, written + member.n});
    member.ranges = ranges.size() - member.first_range;
  }
  auto pin = Pin::batch(store_.runtime(), ranges.data(), ranges.size());
  if (!pin)
    return pin.status();
  ++counts_.batches;

  Stream& stream = store_.stream();
  std::vector<bool> settled(members.size(), false);
  bool launched_any = false;
  for (bool first = true;; first = false) {
    uint64_t launched_now = 0;
    bool coming = false;
    for (size_t i = 0; i < members.size(); ++i) {
      if (settled[i])
        continue;
      Member& member = members[i];
      const uint32_t answer = worst(pin->answers().data() + member.first_range, member.ranges);
      if (answer == KVMM_PIN_COMING) {
        coming = true;
        continue;
      }
      settled[i] = true;
      if (answer == KVMM_PIN_RECOMPUTE)
        lost->push_back(member.index);
      if (answer != KVMM_PIN_READY)
        continue;
      member.launched = launched_any = true;
      ++launched_now;
      ++(first ? counts_.ready_at_once : counts_.ready_later);
      stream.launch([this, &member] {
        member.result = advance(model_, member.n, view(member.index), &sequences_[member.index]);
      });
    }
    if (!coming)
      break;
    counts_.ran_before_others += launched_now;
    pollfd wait{pin->fd(), POLLIN, 0};
    ::poll(&wait, 1, -1);
    if (Status status = pin->poll(); !status.ok()) {
      stream.wait(stream.record());  // the pages stay pinned as long as launched work needs them
      return status;
    }
  }
  if (!launched_any)
    return pin->unpin();

  // The pages are free to go only once the stream is past this point, whatever is said meanwhile.
  Stream::Mark& mark = stream.record();
  if (Status status = pin->unpin(Stream::fence(mark)); !status.ok()) {
    stream.wait(mark);
    return status;
  }
  Status advised;
  for (const Member& member : members) {
    const bool due =
        options_.evict_every != 0 && (steps_[member.index] + 1) % options_.evict_every == 0;
    if (!member.launched || !due)
      continue;
    Status status = store_.session(member.index).advise(KVMM_ADVISE_EVICT);
    if (!status.ok() && status.code() != KVMM_EBUSY)
      advised = std::move(status);
  }
  stream.wait(mark);
  if (!advised.ok())
    return advised;
  for (const Member& member : members) {
    if (!member.launched)
      continue;
    if (member.result == Access::kWrong)
      return wrong(member.index);
    if (member.result == Access::kGone) {
      return Status::failure(KVMM_ERECOMPUTE, "a pinned page answered that it is gone");
    }
    if (Status status = finish_step(member.index, member.n); !status.ok())
      return status;
  }
  return Status();
}

// -----------------------------------------------------------------------------------------
// recompute

Status Engine::recover(uint32_t index) {
  const Sequence& seq = sequences_[index];
  kvmmpp::Session& session = store_.session(index);
  std::vector<kvmm_range> begun;  // ascending; begun and not ended
  const uint64_t rounds_max = kAttemptsMax + seq.written / store_.page_tokens();
  for (uint64_t round = 0; round < rounds_max; ++round) {
    auto gone = session.recompute_ranges();
    if (!gone)
      return gone.status();
    for (const kvmm_range& range : *gone) {
      if (range.begin >= range.end || range.end > seq.written) {
        return Status::failure(KVMM_ERANGE, "recompute names tokens that were never appended");
      }
      if (Status status = session.recompute_begin(range.begin, range.end); !status.ok()) {
        return status;
      }
      add_range(&begun, range);
    }
    if (begun.empty()) {
      // Only rows of the unfinished step were lost: pages past the end start anew.
      return round == 0 ? session.truncate(seq.written) : Status();
    }
    const kvmm_range range = begun.front();
    Status why;
    const Access access = recompute(index, range, &why);
    if (!why.ok())
      return why;
    if (access == Access::kWrong)
      return wrong(index);
    if (access == Access::kGone)
      continue;  // more is lost than was known: ask again
    if (Status status = session.recompute_end(range.begin, range.end); !status.ok())
      return status;
    begun.erase(begun.begin());
    ++counts_.recomputes;
    counts_.recomputed_tokens += range.end - range.begin;
    if (begun.empty())
      return Status();
  }
  return Status::failure(KVMM_ERECOMPUTE, "content is lost faster than it is computed");
}

Access Engine::recompute(uint32_t index, kvmm_range range, Status* why) {
  const Sequence& seq = sequences_[index];
  store_.view(index).set_only_differences(true);
  Access access = Access::kOk;
  if (store_.options().kind == EngineKind::kFaulting) {
    access = replay(model_, range.begin, range.end, view(index), seq);
  } else {
    std::vector<Pin> pins;
    access = pin_for_recompute(index, range, &pins, why);
    if (access == Access::kOk && why->ok()) {
      Stream& stream = store_.stream();
      stream.launch([&] { access = replay(model_, range.begin, range.end, view(index), seq); });
      stream.wait(stream.record());
    }
  }
  store_.view(index).set_only_differences(false);
  return access;
}

// Pins [0, end) for reading and, of [begin, end), those pages for writing that may be written: the
// other planes' are sealed and intact.
Access Engine::pin_for_recompute(uint32_t index, kvmm_range range, std::vector<Pin>* pins,
                                 Status* why) {
  kvmm_session* session = store_.session(index).get();
  const auto pin_one = [&](const kvmm_pin_range& what) {
    auto pin = Pin::batch(store_.runtime(), &what, 1);
    *why = pin.status();
    if (!pin)
      return Access::kGone;
    *why = wait_settled(*pin);
    const uint32_t answer = pin->answers()[0];
    pins->push_back(*std::move(pin));
    if (answer == KVMM_PIN_FAILED) {
      *why = Status::failure(KVMM_ENOMEMORY, "no frames for computing a lost range again");
    }
    return answer == KVMM_PIN_READY ? Access::kOk : Access::kGone;
  };
  if (Access a = pin_one({session, KVMM_ALL_PLANES, 0, 0, range.end}); a != Access::kOk)
    return a;
  if (pin_one({session, KVMM_ALL_PLANES, 1, range.begin, range.end}) == Access::kOk) {
    return Access::kOk;
  }
  if (why->code() != KVMM_ESEALED)
    return Access::kGone;
  const uint64_t page = store_.page_tokens();
  for (uint32_t plane = 0; plane < kPlanes; ++plane) {
    for (uint64_t t = range.begin; t < range.end;) {
      const uint64_t end = std::min(range.end, (t / page + 1) * page);
      const Access a = pin_one({session, plane, 1, t, end});
      if (why->code() == KVMM_ESEALED) {
        *why = Status();
      } else if (a != Access::kOk) {
        return a;
      }
      t = end;
    }
  }
  return Access::kOk;
}

}  // namespace tiny
