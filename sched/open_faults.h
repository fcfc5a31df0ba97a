// SPDX-License-Identifier: Apache-2.0
//
// Faults that are not answered yet: when each began and what it found, so that its end knows how
// long it took.
//
//   key (page, session)  ->  began, kind        128 places, open addressing, eight tried
//
// Figures only: nothing decides by it. A fault that finds no place is not timed, and counted.
// Pages are keys and never looked into, so that a page that is gone does no harm: its entry is
// taken over by the next fault that needs its place, once it is older than kStale.
//
// Thread safety: guarded by the core lock. Allocates nothing.
#pragma once

#include <array>
#include <cstdint>

#include "runtime/base/trace_events.h"
#include "runtime/base/units.h"

namespace kvmm {

struct Page;

class OpenFaults {
 public:
  struct Entry {
    const Page* page = nullptr;  // null: free
    uint64_t session = 0;
    uint64_t page_name = 0;  // trace_page()
    Tick began;
    FaultKind kind = FaultKind::kZero;
  };

  // A second touch of a page whose fault is open changes nothing.
  void begin(const Entry& fault) {
    Entry* place = nullptr;
    for (Entry& e : places_of(*this, fault.page)) {
      if (e.page == fault.page && e.session == fault.session) {
        return;
      }
      const bool usable =
          e.page == nullptr || e.page == fault.page || fault.began >= e.began + kStale;
      place = place == nullptr && usable ? &e : place;
    }
    if (place == nullptr) {
      ++untimed_;
      return;
    }
    count_ += place->page == nullptr ? 1 : 0;
    *place = fault;
  }

  // Takes the fault of the page out. False: there is none.
  bool end(const Page* page, Entry* fault) {
    if (count_ == 0) {
      return false;
    }
    for (Entry& e : places_of(*this, page)) {
      if (e.page == page) {
        *fault = e;
        e = Entry();
        --count_;
        return true;
      }
    }
    return false;
  }

  uint32_t count() const { return count_; }
  uint64_t untimed() const { return untimed_; }

 private:
  static constexpr uint32_t kGroups = 16;
  static constexpr uint32_t kPlaces = 8;  // in a group
  static constexpr Tick kStale = millis(60'000);
  using Group = std::array<Entry, kPlaces>;

  static Group& places_of(OpenFaults& self, const Page* page) {
    // Pages are 80 bytes: the high bits of a product spread neighbours over the groups.
    const uint64_t mixed = reinterpret_cast<uintptr_t>(page) * 0x9e3779b97f4a7c15u;
    return self.groups_[mixed >> 60];
  }

  std::array<Group, kGroups> groups_{};
  uint32_t count_ = 0;
  uint64_t untimed_ = 0;
};

}  // namespace kvmm
