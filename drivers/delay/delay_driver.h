// SPDX-License-Identifier: Apache-2.0
//
// delay: stacks over any block device and gives its completions back later.
//
//   submit -> device below -> finished below -> waits -> pushed to the caller's queue
//                                               |
//                    until the clock passes it (latency_us + random up to jitter_us),
//                    or, in hold mode, until release(): by hand, in any order
//
// Uses: a fast device that behaves like a slow one; tests that play every order of completions.
// The bytes have moved when a completion starts to wait, as with a late interrupt of a disk.
//
//   option      default  meaning
//   latency_us  0        each completion waits this long
//   jitter_us   0        and a random time below this
//   seed        0        of the random times
//   hold        0        1: start in hold mode
//   depth       256      requests that it holds at once
//
// Invariants
//   1. Completions leave in order of due time; equal ones in the order in which the device below
//      finished them. In hold mode nothing leaves by itself.
//   2. Same seed, same requests, same clock: same order.
//
// It reads no clock of the system: `poll` compares with the `Clock` it was given. Nobody is woken
// when time passes, so event_fd() is -1 and the owner polls at next_due().
//
// Thread safety: as BlockOps; the control functions are serialised with it by the caller.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "drivers/driver.h"
#include "runtime/base/clock.h"
#include "runtime/base/random.h"

namespace kvmm {

struct DelayConfig {
  Tick latency;
  Tick jitter;
  uint64_t seed = 0;
  bool hold = false;
  uint32_t depth = 256;
};

class DelayBlock final : public BlockOps {
 public:
  // `below` and `clock` outlive this. REQUIRES: config.depth > 0.
  DelayBlock(BlockOps& below, Clock& clock, const DelayConfig& config);
  // REQUIRES: nothing is in flight below. Held requests are finished first, in order.
  ~DelayBlock() override;

  BlockInfo info() const override;
  size_t submit(std::span<BlockRequest* const> requests) override;
  void poll() override;
  Result<void> resize(Bytes capacity) override { return below_.resize(capacity); }

  // When the next waiting completion leaves; empty: none waits, or all are held.
  std::optional<Tick> next_due() const;

  // Hold mode. Switching it off lets what is held go at the next poll, by due time.
  void set_hold(bool hold) { hold_ = hold; }
  void set_latency(Tick latency) { config_.latency = latency; }
  // The requests that wait, oldest completion first; the i of `release`.
  const std::vector<BlockRequest*>& held() const { return held_; }
  // Finishes the i-th waiting request now, whatever the clock says. REQUIRES: i < held().size().
  void release(size_t i);
  void release_all();

 private:
  struct Slot {
    BlockRequest inner;             // what the device below works on
    BlockRequest* outer = nullptr;  // the caller's; null: free
    Tick due;
  };

  void collect();  // what has finished below starts to wait
  Slot& slot_of(const BlockRequest& inner) const { return *static_cast<Slot*>(inner.owner); }

  BlockOps& below_;
  Clock& clock_;
  DelayConfig config_;
  Random random_;
  bool hold_;
  CompletionQueue finished_;  // of the device below
  std::unique_ptr<Slot[]> slots_;
  std::vector<Slot*> free_;
  std::vector<BlockRequest*> held_;  // outer requests, in the order of their completion below
  std::vector<Slot*> held_slots_;    // parallel to held_
};

// Stacks over whatever block device is below; binds only devices that name it as their driver.
std::unique_ptr<Driver> make_delay_driver(Clock& clock);

// The control functions of a bound device, or null if it is none of this driver.
DelayBlock* find_delay(Device& device);

}  // namespace kvmm
