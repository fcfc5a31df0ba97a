// SPDX-License-Identifier: Apache-2.0
//
// Whoever can bring the content of a page back: the pager of its object.
//
//   write back:  allocate -> I/O at backing(slot) -> stored | failed, free
//   bring back:  I/O at backing(slot) -> checksum -> verify -> (later) free
//
// Swap is the first (SwapSpace). What a pager keeps is named by a slot, which is all that a page
// remembers; that the bytes are the right ones is proved twice, by the page's own checksum and by
// `verify`. Write-back, reads and swap cache know this table only; swapon, swapoff and sync are
// swap's own.
//
// Thread safety: guarded by the core lock; nothing here waits or allocates.
#pragma once

#include "drivers/ops.h"
#include "runtime/base/result.h"
#include "runtime/base/units.h"
#include "vmm/identity.h"

namespace kvmm {

// What a pager keeps for one page. A slot of a swap area: {area:8, unit:56}. 0 is none (areas are
// numbered from 1).
class SlotId : public Quantity<struct SlotIdTag, uint64_t> {
 public:
  using Quantity::Quantity;
  static constexpr SlotId make(uint8_t area, uint64_t unit) {
    return SlotId((uint64_t{area} << 56) | unit);
  }
  constexpr bool none() const { return value() == 0; }
  constexpr uint8_t area() const { return static_cast<uint8_t>(value() >> 56); }
  constexpr uint64_t unit() const { return value() & ((uint64_t{1} << 56) - 1); }
};
static_assert(sizeof(SlotId) == 8);

// Where the bytes of a slot are read and written.
struct Backing {
  BlockOps* device;
  uint64_t offset;   // on the device
  Bytes length_max;  // of one request
};

class PagerOps {
 public:
  virtual ~PagerOps() = default;
  virtual const char* pager_name() const = 0;
  // Whether it can keep anything at all now.
  virtual bool empty() const = 0;
  // A slot for `size` bytes, a power of two. Errors: kNoSpace (full), kIo (every device fails),
  // kAgain (one grows: ask again then), kInvalid (no such size).
  virtual Result<SlotId> allocate(Bytes size) = 0;
  // REQUIRES of all below: the slot is allocated. No I/O on it is in flight.
  virtual void free(SlotId slot) = 0;
  // As free; the slot has lost what it held, or might: it is never given out again.
  virtual void retire(SlotId slot) = 0;
  // Whether a freed slot can be given out again (not one of an area that is being emptied).
  virtual bool accepting(SlotId slot) const = 0;
  virtual Backing backing(SlotId slot) const = 0;
  // The slot holds this page now.
  virtual void stored(SlotId slot, const PageIdentity& identity, uint64_t checksum,
                      Bytes stored) = 0;
  // Is this the page that is expected there? Errors: kModelMismatch, kStale, kCorrupt.
  virtual Result<void> verify(SlotId slot, const PageIdentity& identity, uint64_t checksum) = 0;
  // I/O on it failed: kNoSpace, kIo, kDeviceGone.
  virtual void failed(SlotId slot, Errc why) = 0;
  // The content could not be had, and is given up: as free, or retire if the place is to blame.
  virtual void lost(SlotId slot, Errc why) = 0;
  // A request at backing(slot) came back, well or badly: for the figures of its device.
  virtual void done(SlotId slot, const BlockRequest& io, Tick now) = 0;
};

}  // namespace kvmm
