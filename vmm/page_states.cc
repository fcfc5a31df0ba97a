// SPDX-License-Identifier: Apache-2.0
#include "vmm/page_states.h"

#include <array>

namespace kvmm {
namespace {

using P = Place;
using E = PageEvent;

struct Row {
  Place from;
  PageEvent event;
  Transition to;
};

constexpr Transition go(Place next) {
  return {Verdict::kAllowed, next, Errc::kOk};
}
constexpr Transition no(Errc why) {
  return {Verdict::kRefused, Place::kNone, why};
}

// Every cell that is not impossible.
constexpr Row kRows[] = {
    {P::kNone, E::kFill, go(P::kFilling)},
    {P::kNone, E::kDropAll, go(P::kNone)},
    {P::kFilling, E::kFilled, go(P::kUnmapped)},
    {P::kFilling, E::kDropAll, no(Errc::kBusy)},
    {P::kMapping, E::kMapped, go(P::kMapped)},
    {P::kMapping, E::kMapFailed, go(P::kUnmapped)},
    {P::kMapping, E::kDropAll, no(Errc::kBusy)},
    {P::kMapped, E::kMap, go(P::kMapping)},  // one more mapping of a shared page
    {P::kMapped, E::kUnmap, go(P::kUnmapping)},
    {P::kMapped, E::kDropAll, no(Errc::kBusy)},
    {P::kUnmapping, E::kUnmapped, go(P::kUnmapped)},
    {P::kUnmapping, E::kUnmapFailed, go(P::kMapped)},
    {P::kUnmapping, E::kDropAll, no(Errc::kBusy)},
    {P::kUnmapped, E::kMap, go(P::kMapping)},
    {P::kUnmapped, E::kCheck, go(P::kChecking)},
    {P::kUnmapped, E::kWrite, go(P::kWriting)},
    {P::kUnmapped, E::kMigrate, go(P::kMigrating)},
    {P::kUnmapped, E::kFreeFrame, go(P::kSwapped)},
    {P::kUnmapped, E::kDropAll, go(P::kNone)},
    {P::kUnmapped, E::kLose, go(P::kDiscarded)},
    {P::kChecking, E::kChecked, go(P::kUnmapped)},
    {P::kChecking, E::kDropAll, no(Errc::kBusy)},
    {P::kWriting, E::kWritten, go(P::kUnmapped)},
    {P::kWriting, E::kWriteFailed, go(P::kUnmapped)},
    {P::kWriting, E::kDropAll, no(Errc::kBusy)},
    {P::kMigrating, E::kMigrated, go(P::kUnmapped)},
    {P::kMigrating, E::kMigrateFailed, go(P::kUnmapped)},
    {P::kMigrating, E::kDropAll, no(Errc::kBusy)},
    {P::kReading, E::kReadOk, go(P::kUnmapped)},
    {P::kReading, E::kReadFailed, go(P::kDiscarded)},
    {P::kReading, E::kReadGivenUp, go(P::kSwapped)},
    {P::kReading, E::kDropAll, no(Errc::kBusy)},
    {P::kSwapped, E::kRead, go(P::kReading)},
    {P::kSwapped, E::kDropAll, go(P::kNone)},
    {P::kSwapped, E::kLose, go(P::kDiscarded)},
    {P::kDiscarded, E::kFill, go(P::kFilling)},
    {P::kDiscarded, E::kRead, no(Errc::kRecompute)},
    {P::kDiscarded, E::kMap, no(Errc::kRecompute)},
    {P::kDiscarded, E::kDropAll, go(P::kNone)},
};

using Table = std::array<std::array<Transition, kPageEvents>, kPlaces>;

constexpr Table make_table() {
  Table t{};
  for (const Row& r : kRows) {
    t[static_cast<size_t>(r.from)][static_cast<size_t>(r.event)] = r.to;
  }
  return t;
}

constexpr Table kTable = make_table();

constexpr std::array<const char*, kPlaces> kPlaceNames = {
    "none",     "filling", "mapping",   "mapped",  "unmapping", "unmapped",
    "checking", "writing", "migrating", "reading", "swapped",   "discarded"};
constexpr std::array<const char*, kPageEvents> kEventNames = {
    "fill",         "filled",       "map",           "mapped",         "map_failed", "unmap",
    "unmapped",     "unmap_failed", "check",         "checked",        "write",      "written",
    "write_failed", "migrate",      "migrated",      "migrate_failed", "free_frame", "read",
    "read_ok",      "read_failed",  "read_given_up", "drop_all",       "lose"};

}  // namespace

const char* place_name(Place p) noexcept {
  return kPlaceNames.at(static_cast<size_t>(p));
}
const char* page_event_name(PageEvent e) noexcept {
  return kEventNames.at(static_cast<size_t>(e));
}
const char* content_name(Content c) noexcept {
  constexpr std::array<const char*, 3> kNames = {"empty", "open", "sealed"};
  return kNames.at(static_cast<size_t>(c));
}

Transition transition(Place place, PageEvent event) noexcept {
  return kTable[static_cast<size_t>(place)][static_cast<size_t>(event)];
}

DeviceView device_view(Place place, bool present, bool poisoned) noexcept {
  if (present && poisoned) {
    return DeviceView::kImpossible;
  }
  if (present) {
    const bool may = place == P::kMapped || place == P::kMapping || place == P::kUnmapping;
    return may ? DeviceView::kContent : DeviceView::kImpossible;
  }
  if (poisoned) {
    const bool may = place == P::kDiscarded || place == P::kNone || place == P::kSwapped;
    return may ? DeviceView::kError : DeviceView::kImpossible;
  }
  return DeviceView::kFault;
}

}  // namespace kvmm
