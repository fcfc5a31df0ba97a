// SPDX-License-Identifier: Apache-2.0
//
// From where the engine's threads touch: a row of the zonelists for each thread that faults.
//
//   fault of thread 4711 --row_of--> known: that row          never waits, allocates nothing
//                                    unknown: noted, the session's home is used
//   between steps        --due-----> 4711: who knows the system looks where it runs
//                        --learnt--> 4711 runs on node 1, good for a second
//
// A table of fixed size, four places for each thread; the one that was used longest ago gives way.
// A wrong entry costs distance and nothing else: any frame is good for any page.
//
// Thread safety: guarded by the core lock.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "runtime/base/units.h"

namespace kvmm {

class ThreadRows {
 public:
  static constexpr uint32_t kSlots = 256;
  static constexpr uint32_t kWays = 4;
  static constexpr Tick kAge = Tick(1'000'000'000);

  // Where the thread ran when somebody looked last. `thread` 0: nobody knows who it is.
  std::optional<uint8_t> row_of(uint32_t thread, Tick now);
  // Threads that have touched since they were looked at, if that was never or is older than kAge.
  // Returns how many.
  size_t due(std::span<uint32_t> out, Tick now);
  bool any_due() const { return any_due_; }
  void learnt(uint32_t thread, uint8_t row, Tick now);
  // It has ended, or cannot be looked at: asked again when kAge has passed.
  void unknown(uint32_t thread, Tick now);

 private:
  struct Slot {
    uint32_t thread = 0;  // 0: free
    uint8_t row = 0;
    bool known = false;
    bool touched = false;  // since it was looked at
    bool looked_at = false;
    Tick used, looked;
  };
  std::span<Slot> ways(uint32_t thread);
  Slot* find(uint32_t thread);
  static bool is_due(const Slot& s, Tick now);

  std::array<Slot, kSlots> slots_;
  bool any_due_ = false;
};

}  // namespace kvmm
