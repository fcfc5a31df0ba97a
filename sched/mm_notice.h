// SPDX-License-Identifier: Apache-2.0
//
// What the memory manager tells its caller beside results: notices for people, and jobs to wait
// for.
//
// Thread safety: values; guarded by the core lock where they are shared.
#pragma once

#include <array>
#include <cstdint>

#include "runtime/base/result.h"

namespace kvmm {

// What happened that a person should read. Kept in a ring; the runtime prints it from a thread of
// its own.
struct MmNotice {
  enum class Kind : uint8_t {
    kWrongPage,
    kReadError,
    kWriteError,
    kSealViolation,
    kNoMemory,
    kStrayTouch,
    kSwapFull,
    kSwapFailing,  // the area takes no pages any more and is emptied
    kSwapGone,     // its device has gone: so has what was only there
    kSwapEmptied,  // a failing area holds nothing any more, and can be taken out; `page` were lost
  };
  Kind kind = Kind::kWrongPage;
  Errc code = Errc::kOk;
  uint64_t space = 0;
  uint64_t va = 0;
  uint32_t page = 0;
  uint32_t plane = 0;
  std::array<char, 16> swap{};  // kSwap...: the area's name
};

// A wait of the API for work on many pages. Owned by the caller; done when `pending` is 0.
struct MmJob {
  uint64_t pending = 0;  // pages still to come
  Errc result = Errc::kOk;
  bool done() const { return pending == 0; }
};

}  // namespace kvmm
