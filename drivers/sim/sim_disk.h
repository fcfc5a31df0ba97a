// SPDX-License-Identifier: Apache-2.0
//
// A simulated disk: bytes in memory, time from a virtual clock, and power that can fail.
//
//   submit --> waits for the channel --> bytes / bandwidth --> + latency + jitter --> due
//                                                                                     |
//   poll, at or after due:  kWrite  volatile version of each block      <-------------+
//                           kRead   newest version of each block
//                           kFlush  versions that had finished before its submit become stable
//
//   power_loss(): each block becomes one of its versions since the last flush, drawn by the seed,
//   also torn between two of them at a 512-byte sector; writes in flight count as versions.
//
// Bytes move at the due time, not at submit: a page that is changed, mapped or freed while it is in
// flight shows. A `FrameGuard` is told of every access to memory, at submit and at the due time.
//
// Invariants
//   1. Completions come in order of due time, equal ones in the order of their submits.
//   2. Same seed, requests and ticks: same bytes, same order, same loss.
//   3. What a finished flush covered survives every power_loss().
//
// Thread safety: one thread.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <vector>

#include "drivers/ops.h"
#include "drivers/sim/frame_guard.h"
#include "drivers/sim/sim_clock.h"
#include "runtime/base/random.h"

namespace kvmm {

struct SimDiskConfig {
  Bytes capacity;
  Bytes alignment = Bytes(4096);  // also the block of versions; a power of two >= 256
  uint32_t depth = 32;
  Tick latency = micros(80);  // of one request, after its transfer
  Tick jitter;                // random, below this: completions change their order
  uint64_t bytes_per_s = 2'000'000'000;
  uint64_t seed = 0;
  Bytes grows_to;  // kGrow takes place up to here, then the disk is full; 0: it does not grow
  // Errors: kInvalid with the field's name.
  Result<void> validate() const;
};

class SimDisk final : public BlockOps {
 public:
  // REQUIRES: config.validate(). `clock` outlives this.
  SimDisk(SimClock& clock, const SimDiskConfig& config);
  // REQUIRES: nothing is in flight.
  ~SimDisk() override;

  BlockInfo info() const override;
  size_t submit(std::span<BlockRequest* const> requests) override;
  void poll() override;
  Result<void> resize(Bytes capacity) override;

  // Told of every memory access of this disk; null: nobody.
  void set_guard(FrameGuard* guard) { guard_ = guard; }

  // See above. Requests in flight finish at once with kDeviceGone, and all later ones, until
  // power_on().
  void power_loss();
  void power_on() { powered_ = true; }

  // What a read would find now, for tests: no time passes, no guard is asked.
  void peek(uint64_t offset, std::span<std::byte> out) const;
  // Changes the medium behind everybody's back (rot, a wrong page).
  void poke(uint64_t offset, std::span<const std::byte> bytes);
  // Blocks whose newest version is not stable.
  size_t unflushed() const { return versions_.size(); }
  size_t in_flight() const { return pending_.size(); }

 private:
  using Block = std::vector<std::byte>;  // alignment bytes; empty: zeros
  struct Version {
    uint64_t seq = 0;  // order of completion
    Block bytes;
  };
  struct Pending {
    Tick due;
    uint64_t seq = 0;         // order of submit
    uint64_t flush_upto = 0;  // kFlush: covers versions up to this
    BlockRequest* request = nullptr;
  };

  void perform(const Pending& p);
  void write_blocks(const BlockRequest& r);
  void store(uint64_t block, Block bytes);
  void flush(uint64_t upto);
  void set_stable(uint64_t block, Block bytes);
  const Block* newest(uint64_t block) const;
  void ask_guard(const BlockRequest& r);

  SimClock& clock_;
  SimDiskConfig config_;
  Random random_;
  FrameGuard* guard_ = nullptr;
  bool powered_ = true;
  Tick channel_free_;  // when the last transfer that was taken ends
  uint64_t submit_seq_ = 0;
  uint64_t write_seq_ = 0;                             // of finished writes
  std::vector<Pending> pending_;                       // sorted by (due, seq)
  std::map<uint64_t, Block> stable_;                   // by block number; absent: zeros
  std::map<uint64_t, std::vector<Version>> versions_;  // since the last flush, oldest first
};

}  // namespace kvmm
