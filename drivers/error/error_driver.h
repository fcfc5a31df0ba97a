// SPDX-License-Identifier: Apache-2.0
//
// error: stacks over any block device and makes it fail as disks do, by rules.
//
//   action     what the caller sees       what the device below sees
//   fail       result (kIo, EIO)          nothing
//   shorten    kIo                        the first half of the request
//   flip       kOk, one bit is wrong      a read
//   misdirect  kOk                        the request `distance` bytes further (wraps at the end)
//   lose       kOk                        nothing (a write that never reached the disk)
//   tear       kOk                        the first half of the write
//   stale      kOk, older bytes           a read; the bytes are those before the last write
//   refuse     not taken by submit        nothing
//
// Rules are asked in the order in which they were added; the first that fires decides. A rule fires
// for its `nth` matching request and the `count` - 1 behind it; with `per_million` below 1,000,000
// each of those is a throw of the seeded dice. Without rules it is transparent.
//
//   option  default  meaning
//   seed    0        of the dice, and of which bit flips
//   depth   256      requests that it works on at once
//   rule    none     ACTION/key:value/key:value..., may be given many times
//
//   keys of a rule: op:read|write|flush|discard|grow (several: op:read+write), nth:N, count:N (0:
//   for ever), from:BYTES, to:BYTES (half-open), per_million:N, distance:BYTES, errno:5 (EIO, kIo),
//   errno:28 (ENOSPC, kNoSpace), errno:19 (ENODEV, kDeviceGone), other errno (kIo)
//   example: rule=fail/op:write/nth:3/errno:28,rule=flip/op:read/count:0/per_million:1000
//
// Invariants
//   1. A request is finished once, whatever the rules.
//   2. Same seed, same rules, same requests: same failures.
//   3. A stale read never gives bytes that were not in that place before.
//
// Thread safety: as BlockOps; the rules are changed under the same serialisation.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <string_view>
#include <vector>

#include "drivers/driver.h"
#include "runtime/base/random.h"

namespace kvmm {

enum class ErrorAction : uint8_t {
  kFail,
  kShorten,
  kFlip,
  kMisdirect,
  kLose,
  kTear,
  kStale,
  kRefuse,
};

// Which kinds of request a rule matches: bit (1 << BlockOp).
using BlockOpMask = uint8_t;
constexpr BlockOpMask mask_of(BlockOp op) {
  return static_cast<BlockOpMask>(1u << static_cast<unsigned>(op));
}
inline constexpr BlockOpMask kAllBlockOps = 0x1f;

struct ErrorRule {
  ErrorAction action = ErrorAction::kFail;
  BlockOpMask ops = kAllBlockOps;      // flip, stale match reads only; lose, tear writes only
  uint64_t from = 0, to = UINT64_MAX;  // requests that touch [from, to); a flush touches nothing
                                       // and matches if from is 0
  uint64_t nth = 1;                    // 1: the next matching request
  uint64_t count = 1;                  // 0: for ever
  uint32_t per_million = 1'000'000;
  Errc result = Errc::kIo;  // fail
  int os_error = 5;         // fail: EIO
  uint64_t distance = 0;    // misdirect: bytes, a multiple of the alignment, not 0
};

// Errors: kInvalid with a text that names the word it did not understand.
Result<ErrorRule> parse_error_rule(std::string_view text);

class ErrorBlock final : public BlockOps {
 public:
  // `below` outlives this. REQUIRES: depth > 0.
  ErrorBlock(BlockOps& below, uint64_t seed, uint32_t depth);
  // REQUIRES: nothing is in flight.
  ~ErrorBlock() override;

  BlockInfo info() const override;
  size_t submit(std::span<BlockRequest* const> requests) override;
  void poll() override;
  int event_fd() const override { return below_.event_fd(); }
  bool arm() override { return below_.arm(); }
  Result<void> resize(Bytes capacity) override { return below_.resize(capacity); }

  // Returns the rule's number. A stale rule remembers, from now on, what writes in its range
  // overwrite. Errors: kInvalid (an action that the ops exclude, distance 0, an empty range).
  Result<uint32_t> add_rule(const ErrorRule& rule);
  // Errors: kNotFound.
  Result<void> remove_rule(uint32_t number);
  void clear_rules();
  // How often the rule fired. 0 for a number that is not there.
  uint64_t fired(uint32_t number) const;
  uint64_t fired_total() const { return fired_total_; }

 private:
  struct ActiveRule {
    uint32_t number;
    ErrorRule rule;
    uint64_t matched = 0;
    uint64_t fired = 0;
  };
  enum class Step : uint8_t { kFree, kReadOld, kMain };
  struct AlignedFree {
    void operator()(std::byte* p) const;
  };
  struct Slot {
    BlockRequest inner;             // what the device below works on
    BlockRequest* outer = nullptr;  // the caller's
    Step step = Step::kFree;
    bool acts = false;  // a rule fired, and `action` is to be done
    ErrorAction action = ErrorAction::kFail;
    bool waits = false;  // the device below was full: offered again by poll
    std::unique_ptr<std::byte, AlignedFree> old_bytes;  // kReadOld
  };

  ActiveRule* decide(const BlockRequest& r);
  bool remembers(const BlockRequest& r) const;
  void start(Slot& s);  // fills s.inner for its step and offers it
  bool offer(Slot& s);
  void finished_below(Slot& s);
  void remember(const Slot& s);
  void overlay_old(const BlockRequest& r);
  void flip_bit(const BlockRequest& r);
  void finish(Slot& s, Errc result, int os_error);
  void drain();

  BlockOps& below_;
  uint32_t depth_;
  Random random_;
  CompletionQueue finished_;  // of the device below
  std::unique_ptr<Slot[]> slots_;
  std::vector<Slot*> free_;
  std::vector<Slot*> waiting_;  // offered again by poll, oldest first
  std::vector<ActiveRule> rules_;
  uint32_t next_number_ = 1;
  uint64_t fired_total_ = 0;
  // Content before the last write, by unit of alignment. Only of ranges with a stale rule.
  std::map<uint64_t, std::vector<std::byte>> old_;
};

// Stacks over whatever block device is below; binds only devices that name it as their driver.
std::unique_ptr<Driver> make_error_driver();

// The control functions of a bound device, or null if it is none of this driver.
ErrorBlock* find_error(Device& device);

}  // namespace kvmm
