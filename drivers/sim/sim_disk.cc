// SPDX-License-Identifier: Apache-2.0
#include "drivers/sim/sim_disk.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "drivers/block_request.h"
#include "drivers/sim/sim_queue.h"
#include "runtime/base/check.h"

namespace kvmm {
namespace {

constexpr size_t kSector = 512;  // what a disk writes in one piece even when the power fails

}  // namespace

Result<void> SimDiskConfig::validate() const {
  if (!std::has_single_bit(alignment.value()) || alignment < Bytes(256)) {
    return Error(Errc::kInvalid, "sim: alignment must be a power of two from 256 on");
  }
  if (capacity.value() == 0 || capacity.value() % alignment.value() != 0) {
    return Error(Errc::kInvalid, "sim: size must be a multiple of the alignment above 0");
  }
  if (depth == 0 || bytes_per_s == 0) {
    return Error(Errc::kInvalid, "sim: depth and bytes_per_s must be above 0");
  }
  return {};
}

SimDisk::SimDisk(SimClock& clock, const SimDiskConfig& config)
    : clock_(clock), config_(config), random_(config.seed) {
  check(config.validate().ok(), "a valid configuration");
  pending_.reserve(config.depth);
}

SimDisk::~SimDisk() {
  check(pending_.empty(), "nothing is in flight at the end", pending_.size(), size_t{0});
}

BlockInfo SimDisk::info() const {
  BlockInfo i;
  i.name = "sim";
  i.capacity = config_.capacity;
  i.alignment = config_.alignment;
  i.length_max = kBlockLengthMax;
  i.depth = config_.depth;
  i.discards = true;
  i.grows_to = config_.grows_to;
  return i;
}

Result<void> SimDisk::resize(Bytes capacity) {
  if (capacity < config_.capacity || capacity.value() % config_.alignment.value() != 0) {
    return Error(Errc::kInvalid, "sim: a disk grows by multiples of its alignment, never shrinks");
  }
  config_.capacity = capacity;
  return {};
}

void SimDisk::ask_guard(const BlockRequest& r) {
  if (guard_ != nullptr && (r.op == BlockOp::kRead || r.op == BlockOp::kWrite)) {
    guard_->on_device_access(r.data, r.length, r.op == BlockOp::kRead, "disk");
  }
}

size_t SimDisk::submit(std::span<BlockRequest* const> requests) {
  const BlockInfo limits = info();
  size_t taken = 0;
  for (BlockRequest* r : requests) {
    const Errc refused = powered_ ? check_block_request(*r, limits) : Errc::kDeviceGone;
    if (refused != Errc::kOk) {
      finish_block_request(*r, refused);
      ++taken;
      continue;
    }
    if (pending_.size() == config_.depth) {
      break;
    }
    ask_guard(*r);
    const bool moves = r->op == BlockOp::kRead || r->op == BlockOp::kWrite;
    const uint64_t bytes = moves ? r->length.value() : 0;
    channel_free_ =
        std::max(channel_free_, clock_.now()) + transfer_time(bytes, config_.bytes_per_s);
    Pending p;
    p.due = channel_free_ + config_.latency;
    if (config_.jitter.value() != 0) {
      p.due += Tick(random_.below(config_.jitter.value()));
    }
    p.seq = ++submit_seq_;
    p.flush_upto = write_seq_;
    p.request = r;
    const auto place = std::upper_bound(
        pending_.begin(), pending_.end(), p,
        [](const Pending& a, const Pending& b) { return a.due < b.due; });  // equal: behind
    pending_.insert(place, p);
    clock_.alarm(p.due);
    ++taken;
  }
  return taken;
}

void SimDisk::poll() {
  while (!pending_.empty() && pending_.front().due <= clock_.now()) {
    const Pending p = pending_.front();
    pending_.erase(pending_.begin());
    perform(p);
    finish_block_request(*p.request, Errc::kOk);
  }
}

void SimDisk::perform(const Pending& p) {
  const BlockRequest& r = *p.request;
  ask_guard(r);
  switch (r.op) {
    case BlockOp::kRead:
      peek(r.offset, {r.data, r.length.value()});
      break;
    case BlockOp::kWrite:
    case BlockOp::kDiscard:
      write_blocks(r);
      break;
    case BlockOp::kFlush:
      flush(p.flush_upto);
      break;
    case BlockOp::kGrow:
      config_.capacity = std::max(config_.capacity, Bytes(r.offset + r.length.value()));
      break;
  }
}

void SimDisk::write_blocks(const BlockRequest& r) {
  ++write_seq_;
  const uint64_t size = config_.alignment.value();
  for (uint64_t done = 0; done < r.length.value(); done += size) {
    Block bytes;  // a discard: zeros
    if (r.op == BlockOp::kWrite) {
      bytes.assign(r.data + done, r.data + done + size);
    }
    store((r.offset + done) / size, std::move(bytes));
  }
}

void SimDisk::store(uint64_t block, Block bytes) {
  versions_[block].push_back({write_seq_, std::move(bytes)});
}

void SimDisk::set_stable(uint64_t block, Block bytes) {
  if (bytes.empty()) {
    stable_.erase(block);
  } else {
    stable_[block] = std::move(bytes);
  }
}

void SimDisk::flush(uint64_t upto) {
  for (auto it = versions_.begin(); it != versions_.end();) {
    auto& [block, list] = *it;
    size_t covered = 0;
    while (covered < list.size() && list[covered].seq <= upto) {
      ++covered;
    }
    if (covered != 0) {
      set_stable(block, std::move(list[covered - 1].bytes));
      list.erase(list.begin(), list.begin() + static_cast<ptrdiff_t>(covered));
    }
    it = list.empty() ? versions_.erase(it) : std::next(it);
  }
}

const SimDisk::Block* SimDisk::newest(uint64_t block) const {
  if (const auto v = versions_.find(block); v != versions_.end()) {
    return &v->second.back().bytes;
  }
  const auto s = stable_.find(block);
  return s == stable_.end() ? nullptr : &s->second;
}

void SimDisk::peek(uint64_t offset, std::span<std::byte> out) const {
  const uint64_t size = config_.alignment.value();
  for (size_t done = 0; done < out.size();) {
    const uint64_t at = (offset + done) % size;
    const size_t n = std::min<size_t>(out.size() - done, size - at);
    const Block* b = newest((offset + done) / size);
    if (b == nullptr || b->empty()) {
      std::memset(out.data() + done, 0, n);
    } else {
      std::memcpy(out.data() + done, b->data() + at, n);
    }
    done += n;
  }
}

void SimDisk::poke(uint64_t offset, std::span<const std::byte> bytes) {
  const uint64_t size = config_.alignment.value();
  for (size_t i = 0; i < bytes.size(); ++i) {
    const uint64_t block = (offset + i) / size;
    const auto v = versions_.find(block);
    Block& b = v != versions_.end() ? v->second.back().bytes : stable_[block];
    b.resize(size);  // zeros, if it had none
    b[(offset + i) % size] = bytes[i];
  }
}

void SimDisk::power_loss() {
  for (const Pending& p : pending_) {
    if (p.request->op == BlockOp::kWrite || p.request->op == BlockOp::kDiscard) {
      write_blocks(*p.request);  // some of it may have reached the medium
    }
  }
  const size_t size = config_.alignment.value();
  for (auto& [block, list] : versions_) {
    // One of n versions, or the stable content: n + 1 candidates.
    const auto content = [&, b = block, &l = list](uint64_t i) {
      const auto s = stable_.find(b);
      Block bytes = i == 0 ? (s == stable_.end() ? Block() : s->second) : l[i - 1].bytes;
      bytes.resize(size);
      return bytes;
    };
    Block kept = content(random_.below(list.size() + 1));
    if (size > kSector && random_.chance(1, 4)) {
      const Block other = content(random_.below(list.size() + 1));
      const size_t cut = kSector * random_.between(1, size / kSector - 1);
      std::copy(other.begin() + static_cast<ptrdiff_t>(cut), other.end(),
                kept.begin() + static_cast<ptrdiff_t>(cut));
    }
    set_stable(block, std::move(kept));
  }
  versions_.clear();
  powered_ = false;
  channel_free_ = clock_.now();
  std::vector<Pending> lost;
  lost.swap(pending_);
  for (const Pending& p : lost) {
    finish_block_request(*p.request, Errc::kDeviceGone);
  }
}

}  // namespace kvmm
