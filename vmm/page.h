// SPDX-License-Identifier: Apache-2.0
//
// A page: one run of KV bytes of one object, wherever it is.
//
//   flag              set by                              cleared by
//   kWantMapped       a fault, a pin, a session prefetch  mapped, or answered with an error
//   kWantResident     readahead, prefetch                 resident
//   kWantClean        sync, write-back ahead              its slot holds the same bytes
//   kWantOut          reclaim, advise(evict)              frame freed, or a fault took it back
//   kWantDemoted      reclaim of its tier                 moved to `move_to`, or taken back by a
//   touch kWantPromoted     touches while it is far             moved to `move_to`, or no room
//   there kDoomed           discard, truncate, clear, close     dropped, when the work in flight is
//   over kProvedClean      checksum after unmapping equals the slot's  map, fill kReadahead read
//   ahead of a touch               the touch (useful) or reclaim (useless) kReadaheadMark    the
//   page whose touch starts the next window  that touch kUrgent           a thread waits for it
//   mapped, or answered kPoisoned         a PTE of it is poisoned             cleared before the
//   next fill or read
//
// Invariants
//   1. `frame` is set exactly in the places that have a frame; frame->page points back.
//   2. `slot` is set in kSwapped and kReading, may be set (swap cache) wherever there is a frame.
//   3. pins > 0 only in kMapped, or while kWantMapped is set, or without a frame after the pin was
//      told that the page cannot be had.
//   4. A page is on the active list of its session when mapped, on the inactive list when unmapped,
//   on a
//      waiting list when it waits for a frame, an operation or a retry; never on two.
//
// Thread safety: guarded by the core lock. Memory: 80 bytes, in the object's lazily committed
// array.
#pragma once

#include <boost/intrusive/list.hpp>
#include <cstdint>

#include "runtime/base/check.h"
#include "runtime/base/units.h"
#include "vmm/frame.h"
#include "vmm/page_states.h"

namespace kvmm {

class Object;

// Unlinks itself from whichever list it is on: a page is on one at most.
using PageHook =
    boost::intrusive::list_member_hook<boost::intrusive::link_mode<boost::intrusive::auto_unlink>>;

struct Page {
  enum Flag : uint32_t {
    kWantMapped = 1 << 0,
    kWantResident = 1 << 1,
    kWantClean = 1 << 2,
    kWantOut = 1 << 3,
    kDoomed = 1 << 4,
    kProvedClean = 1 << 5,
    kReadahead = 1 << 6,
    kReadaheadMark = 1 << 7,
    kUrgent = 1 << 8,
    kPoisoned = 1 << 9,
    kHasChecksum = 1 << 10,   // `checksum` is that of `generation`
    kWaiting = 1 << 11,       // on a waiting list
    kWriteBlocked = 1 << 12,  // its last write failed; not tried again before the next unmap
    kSlotCurrent = 1 << 13,   // the slot holds the bytes that `checksum` describes
    kProbe = 1 << 14,         // unmapped only to see whether its session still runs
    kPinWaited = 1 << 15,     // a pin counts it as missing
    kCounted = 1 << 16,       // among those that wait urgently
    kSealSummed = 1 << 17,    // `checksum` is that of the sealed content: a change is a violation
    kWantDemoted = 1 << 18,
    kWantPromoted = 1 << 19,
    kHint = 1 << 20,   // unmapped only to see whether it is used where it is
    kStays = 1 << 21,  // its copy was not the same bytes: not moved again while it has this frame
  };

  PageHook hook;  // active, inactive or waiting list
  Object* object = nullptr;
  Frame* frame = nullptr;
  uint64_t slot = 0;      // SlotId::value(), 0: none
  uint64_t checksum = 0;  // expected, of `generation`
  uint32_t index = 0;     // in the object
  uint32_t generation = 0;
  uint16_t pins = 0;
  uint8_t move_to = 0;  // kWantDemoted, kWantPromoted: a TierId
  uint8_t near = 0;     // row of the zonelists: from where it was touched last
  uint32_t flags = 0;
  Content content = Content::kEmpty;
  Place place = Place::kNone;
  uint8_t attempts = 0;   // failed tries of the operation that is wanted
  uint8_t heat = 0;       // touches from `near` since it has its frame, while a nearer tier exists
  uint8_t mapped_in = 0;  // the step that mapped it, modulo 256: not taken away in the same one

  bool has(Flag f) const { return (flags & f) != 0; }
  void set(Flag f) { flags |= f; }
  void clear(Flag f) { flags &= ~static_cast<uint32_t>(f); }

  // Moves the page by the table. REQUIRES: the cell is not impossible. A refusal leaves it where it
  // is.
  Errc apply(PageEvent event) {
    const Transition t = transition(place, event);
    check(t.verdict != Verdict::kImpossible, "page state: place, event", place, event);
    if (t.verdict == Verdict::kAllowed) {
      place = t.next;
    }
    return t.refusal;
  }
};
static_assert(sizeof(Page) <= 80,
              "metadata budget: 0.3 % of a 64 KiB page with PTE, frame and slot header");

using PageList =
    boost::intrusive::list<Page, boost::intrusive::member_hook<Page, PageHook, &Page::hook>,
                           boost::intrusive::constant_time_size<false>>;

}  // namespace kvmm
