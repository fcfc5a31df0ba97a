// SPDX-License-Identifier: Apache-2.0
//
// Where a page's content is, what may happen to it there, and what the engine then sees. The tables
// below are data: `next_place` reads them in production, tests walk every cell, and
// docs/page_states.md prints them.
//
//                      +--------------------------- lose ---------------------------+
//                      |                                                            v
//   none --fill--> filling --filled--> unmapped --map--> mapping --mapped--> mapped  discarded
//    ^                                  |  ^  ^            |                  |        |
//    |                                  |  |  +--map_failed+                  |        +--fill-->
//    filling
//    +--drop_all (from every place      |  |                                  |
//       without work in flight)         |  +---unmapped--- unmapping <--unmap-+
//                                       |
//               check / write / read    |      checking, writing (frame intact: a fault takes it
//               back)
//               migrate                 |      migrating (copied to a frame of another tier, and
//               back)
//                                       +--free_frame--> swapped --read--> reading --read_ok-->
//                                       unmapped
//
// Content is orthogonal: empty (reads as zeros), open (may be written), sealed (may not).
#pragma once

#include <cstdint>

#include "runtime/base/result.h"

namespace kvmm {

enum class Content : uint8_t { kEmpty, kOpen, kSealed };

// The order is part of docs/page_states.md. Zero is "never used": page tables are zeroed memory.
enum class Place : uint8_t {
  kNone,       // no frame, no slot: reads as zeros
  kFilling,    // has a frame, a worker zeroes it
  kMapping,    // has a frame with content; the MMU is mapping it
  kMapped,     // the engine reaches it (active)
  kUnmapping,  // the MMU is taking it away from the engine
  kUnmapped,   // has a frame with content that no engine reaches (inactive)
  kChecking,   // as unmapped; a worker takes its checksum
  kWriting,    // as unmapped; the frame is being written to its slot
  kMigrating,  // as unmapped; a worker copies the frame to one of another tier
  kReading,    // has a frame; content is on its way from the slot, or is being verified
  kSwapped,    // no frame; content is in its slot
  kDiscarded,  // content is lost: recompute, or an error for an engine that can only touch
};
inline constexpr int kPlaces = 12;

enum class PageEvent : uint8_t {
  kFill,  // a frame is there, zero it
  kFilled,
  kMap,
  kMapped,
  kMapFailed,
  kUnmap,
  kUnmapped,
  kUnmapFailed,
  kCheck,  // take the checksum of the unmapped frame
  kChecked,
  kWrite,  // write it to a slot
  kWritten,
  kWriteFailed,
  kMigrate,        // a frame of another tier is there, copy to it
  kMigrated,       // copied, the copy verified: it is the frame now
  kMigrateFailed,  // cancelled, or the copy is not the same: the old frame stays
  kFreeFrame,      // the slot holds the same content, proved: give the frame up
  kRead,           // a frame is there, read the slot into it
  kReadOk,         // read and verified
  kReadFailed,     // I/O error, or checksum or identity wrong
  kReadGivenUp,    // nothing was read: the slot is as good as before
  kDropAll,        // discard, truncate, close: content is not needed any more
  kLose,           // content cannot be kept (a device went away with it)
};
inline constexpr int kPageEvents = 23;

const char* place_name(Place p) noexcept;
const char* page_event_name(PageEvent e) noexcept;
const char* content_name(Content c) noexcept;

// What a cell of the table says. Zero is impossible: GCC 12 emits zeros for elements of a nested
// constexpr array that only have default member initializers (it evaluates them correctly).
enum class Verdict : uint8_t {
  kImpossible,  // the program is broken if it happens: check() stops it
  kAllowed,     // next place is given
  kRefused,     // cannot be done now: a typed error for the caller (kBusy: work in flight;
                // kRecompute: gone)
};

struct Transition {
  Verdict verdict = Verdict::kImpossible;
  Place next = Place::kNone;
  Errc refusal = Errc::kOk;
};

// The table. Total: every (place, event) has a cell.
Transition transition(Place place, PageEvent event) noexcept;

constexpr bool place_has_frame(Place p) {
  return p != Place::kNone && p != Place::kSwapped && p != Place::kDiscarded;
}
// An operation is in flight that will end with an event of its own.
constexpr bool place_in_flight(Place p) {
  return p == Place::kFilling || p == Place::kMapping || p == Place::kUnmapping ||
         p == Place::kChecking || p == Place::kWriting || p == Place::kMigrating ||
         p == Place::kReading;
}

// PTE truth table: what the device shows at an address, by the page's place and the PTE's own bits.
//   place \ pte              not present            present              poisoned
//   mapped                   fault (minor)          the content          -
//   mapping, unmapping       fault (waits)          the content          -
//   every other              fault                  impossible           SIGBUS (discarded, no
//   memory)
enum class DeviceView : uint8_t { kFault, kContent, kError, kImpossible };
DeviceView device_view(Place place, bool present, bool poisoned) noexcept;

}  // namespace kvmm
