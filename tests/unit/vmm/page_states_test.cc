// SPDX-License-Identifier: Apache-2.0
//
// docs/page_states.md against the code: every cell of its tables is compared with what the program
// does.
#include "vmm/page_states.h"

#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/page.h"

namespace kvmm {
namespace {

using Cells = std::vector<std::vector<std::string>>;

std::string trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" `");
  if (begin == std::string_view::npos) {
    return {};
  }
  return std::string(text.substr(begin, text.find_last_not_of(" `") - begin + 1));
}

std::vector<std::string> cells_of(const std::string& line) {
  std::vector<std::string> cells;
  std::istringstream in(line.substr(1));
  for (std::string cell; std::getline(in, cell, '|');) {
    cells.push_back(trimmed(cell));
  }
  return cells;
}

// The first table below the heading `section`, head line first, without its ruler.
Cells table_of(const std::string& section) {
  std::ifstream file(KVMM_SOURCE_DIR "/docs/page_states.md");
  EXPECT_TRUE(file) << "docs/page_states.md is missing";
  Cells table;
  bool inside = false;
  for (std::string line; std::getline(file, line);) {
    if (line == "## " + section) {
      inside = true;
    } else if (inside && line.starts_with("|---")) {
      continue;
    } else if (inside && line.starts_with('|')) {
      table.push_back(cells_of(line));
    } else if (!table.empty()) {
      break;
    }
  }
  EXPECT_FALSE(table.empty()) << "no table under '" << section << "'";
  return table;
}

Place place_at(int i) {
  return static_cast<Place>(i);
}
PageEvent event_at(int i) {
  return static_cast<PageEvent>(i);
}

std::string cell_text(const Transition& t) {
  switch (t.verdict) {
    case Verdict::kAllowed:
      return place_name(t.next);
    case Verdict::kRefused:
      return std::string("refused: ") + errc_name(t.refusal);
    case Verdict::kImpossible:
      return "-";
  }
  return "?";
}

const char* view_text(DeviceView view) {
  switch (view) {
    case DeviceView::kFault:
      return "fault";
    case DeviceView::kContent:
      return "content";
    case DeviceView::kError:
      return "error";
    case DeviceView::kImpossible:
      return "impossible";
  }
  return "?";
}

TEST(PageStates, TheDocumentHasEveryTransition) {
  const Cells table = table_of("Place and event");
  ASSERT_EQ(table.size(), size_t{kPageEvents} + 1);
  ASSERT_EQ(table[0].size(), size_t{kPlaces} + 1);
  int compared = 0;
  for (int p = 0; p < kPlaces; ++p) {
    EXPECT_EQ(table[0][static_cast<size_t>(p) + 1], place_name(place_at(p)));
  }
  for (int e = 0; e < kPageEvents; ++e) {
    const std::vector<std::string>& row = table[static_cast<size_t>(e) + 1];
    ASSERT_EQ(row.size(), size_t{kPlaces} + 1) << page_event_name(event_at(e));
    EXPECT_EQ(row[0], page_event_name(event_at(e)));
    for (int p = 0; p < kPlaces; ++p) {
      EXPECT_EQ(row[static_cast<size_t>(p) + 1], cell_text(transition(place_at(p), event_at(e))))
          << place_name(place_at(p)) << ", " << page_event_name(event_at(e));
      ++compared;
    }
  }
  EXPECT_EQ(compared, 276);
}

TEST(PageStates, TheDocumentHasEveryDeviceView) {
  const Cells table = table_of("PTE truth table");
  ASSERT_EQ(table.size(), size_t{kPlaces} + 1);
  for (int p = 0; p < kPlaces; ++p) {
    const std::vector<std::string>& row = table[static_cast<size_t>(p) + 1];
    ASSERT_EQ(row.size(), 5u);
    EXPECT_EQ(row[0], place_name(place_at(p)));
    for (size_t bits = 0; bits < 4; ++bits) {
      const bool present = (bits & 1) != 0;
      const bool poisoned = (bits & 2) != 0;
      EXPECT_EQ(row[bits + 1], view_text(device_view(place_at(p), present, poisoned)))
          << row[0] << (present ? ", present" : "") << (poisoned ? ", poisoned" : "");
    }
  }
}

TEST(PageStates, TheDocumentKnowsWhatHasAFrameAndWhatIsInFlight) {
  const Cells table = table_of("Places");
  ASSERT_EQ(table.size(), size_t{kPlaces} + 1);
  for (int p = 0; p < kPlaces; ++p) {
    const std::vector<std::string>& row = table[static_cast<size_t>(p) + 1];
    ASSERT_EQ(row.size(), 4u);
    EXPECT_EQ(row[0], place_name(place_at(p)));
    EXPECT_EQ(row[1], place_has_frame(place_at(p)) ? "yes" : "no") << row[0];
    EXPECT_EQ(row[2] != "no", place_in_flight(place_at(p))) << row[0];
  }
}

TEST(PageStates, EveryPlaceCanBeLeftAndReached) {
  std::set<Place> reached = {Place::kNone};
  for (bool more = true; more;) {
    more = false;
    for (int p = 0; p < kPlaces; ++p) {
      for (int e = 0; e < kPageEvents && reached.contains(place_at(p)); ++e) {
        const Transition t = transition(place_at(p), event_at(e));
        more = (t.verdict == Verdict::kAllowed && reached.insert(t.next).second) || more;
      }
    }
  }
  EXPECT_EQ(reached.size(), size_t{kPlaces});
}

// What is in flight ends by an event of its own; until then a page cannot be dropped, only refused.
TEST(PageStates, WorkInFlightEndsAndIsNotCutShort) {
  for (int p = 0; p < kPlaces; ++p) {
    const Transition drop = transition(place_at(p), PageEvent::kDropAll);
    EXPECT_NE(drop.verdict, Verdict::kImpossible) << place_name(place_at(p));
    if (!place_in_flight(place_at(p))) {
      continue;
    }
    EXPECT_EQ(drop.refusal, Errc::kBusy) << place_name(place_at(p));
    int ends = 0;
    for (int e = 0; e < kPageEvents; ++e) {
      const Transition t = transition(place_at(p), event_at(e));
      if (t.verdict == Verdict::kAllowed) {
        EXPECT_FALSE(place_in_flight(t.next)) << place_name(place_at(p));
        ++ends;
      }
    }
    EXPECT_GE(ends, 1) << place_name(place_at(p));
  }
}

// No content gets lost, and none appears, without an event that says so.
TEST(PageStates, FramesComeAndGoByTheEventsThatSayIt) {
  const std::set<PageEvent> takes = {PageEvent::kFill, PageEvent::kRead};
  const std::set<PageEvent> gives = {PageEvent::kFreeFrame, PageEvent::kReadFailed,
                                     PageEvent::kReadGivenUp, PageEvent::kDropAll,
                                     PageEvent::kLose};
  for (int p = 0; p < kPlaces; ++p) {
    for (int e = 0; e < kPageEvents; ++e) {
      const Transition t = transition(place_at(p), event_at(e));
      if (t.verdict != Verdict::kAllowed) {
        continue;
      }
      const bool before = place_has_frame(place_at(p));
      const bool after = place_has_frame(t.next);
      EXPECT_EQ(!before && after, takes.contains(event_at(e))) << place_name(place_at(p));
      EXPECT_TRUE(!before || after || gives.contains(event_at(e))) << place_name(place_at(p));
    }
  }
}

TEST(PageStates, ApplyMovesARefusalDoesNot) {
  Page page;
  EXPECT_EQ(page.apply(PageEvent::kFill), Errc::kOk);
  EXPECT_EQ(page.place, Place::kFilling);
  EXPECT_EQ(page.apply(PageEvent::kDropAll), Errc::kBusy);
  EXPECT_EQ(page.place, Place::kFilling);
}

TEST(PageStatesDeathTest, AnImpossibleEventStopsWithPlaceAndEvent) {
  Page page;
  page.place = Place::kSwapped;
  EXPECT_DEATH(page.apply(PageEvent::kMap), "page state: place, event");
  page.place = Place::kMapped;
  EXPECT_DEATH(page.apply(PageEvent::kFreeFrame), "page state: place, event");
}

}  // namespace
}  // namespace kvmm
