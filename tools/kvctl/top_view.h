// SPDX-License-Identifier: Apache-2.0
//
// A picture of top as text: what is shown of a TopModel, how it is sorted, where it is scrolled to.
//
//   head       the runtime, tiers and swap areas with bars and history, rates with history
//   sessions   a line each             s
//   tiers      frames and watermarks   t
//   counters   all of vmstat           v
//
// Lines are never wider than `columns`; 80 are enough for everything but what is said below.
//
// Thread safety: values and functions without state.
#pragma once

#include <string>

#include "tools/kvctl/client.h"
#include "tools/kvctl/top_model.h"

namespace kvmm::ctl {

enum class TopPage { kSessions, kTiers, kCounters };

struct TopView {
  TopPage page = TopPage::kSessions;
  SortBy sort = SortBy::kResident;
  bool reverse = false;
  bool paused = false;
  bool help = false;
  size_t scroll = 0;  // lines of the lower part that are above the screen
  size_t columns = 80;
  size_t lines = 0;  // 0: as many as it takes
  bool fine = false;
  bool colour = false;

  // What a key does; false: it means nothing here.
  bool press(int key);
};

// Scrolling that goes past the end is put right in `view`.
std::string draw_top(const Hello& hello, const TopModel& model, TopView& view);

}  // namespace kvmm::ctl
