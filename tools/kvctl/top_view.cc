// SPDX-License-Identifier: Apache-2.0
#include "tools/kvctl/top_view.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "tools/kvctl/output.h"
#include "tools/kvctl/terminal.h"

namespace kvmm::ctl {
namespace {

using Lines = std::vector<std::string>;

constexpr size_t kBarWidth = 20;
constexpr size_t kShareWidth = 8;
constexpr size_t kNameWidth = 14;
constexpr size_t kStoresMax = 6;  // tiers and areas at the head of the page of sessions

struct SortKey {
  char key;
  SortBy by;
  const char* title;  // of the column, as the head shows it
};
constexpr std::array<SortKey, 8> kSortKeys = {{{'r', SortBy::kResident, "RES"},
                                               {'w', SortBy::kSwapped, "SWAP"},
                                               {'f', SortBy::kFaults, "FAULTS"},
                                               {'m', SortBy::kMajor, "MAJOR"},
                                               {'i', SortBy::kIn, "IN"},
                                               {'o', SortBy::kOut, "OUT"},
                                               {'n', SortBy::kName, "NAME"},
                                               {'d', SortBy::kId, "ID"}}};

struct Shown {
  const char* counter;
  const char* label;
  bool bytes;
};
constexpr std::array<Shown, 5> kShown = {{{"faults_zero", "zero", false},
                                          {"faults_minor", "minor", false},
                                          {"faults_major", "major", false},
                                          {"swap_in_bytes", "in", true},
                                          {"swap_out_bytes", "out", true}}};

std::string amount(uint64_t value, bool bytes) {
  if (bytes) {
    return human_bytes(value);
  }
  if (value < 100'000) {
    return std::to_string(value);
  }
  return value < 10'000'000 ? fmt::format("{}k", value / 1000)
                            : fmt::format("{}M", value / 1'000'000);
}

class Drawing {
 public:
  Drawing(const Hello& hello, const TopModel& model, const TopView& view)
      : hello_(hello), model_(model), view_(view) {}

  Lines head() const;
  Lines sessions() const;
  Lines tiers() const;
  Lines counters() const;
  std::string bottom() const;
  std::string strong(const std::string& line) const {
    return view_.colour ? "\x1b[7m" + fit(line, view_.columns) + "\x1b[0m" : line;
  }

 private:
  std::string past(const std::string& series, uint64_t top, size_t used_columns) const {
    const std::vector<uint64_t>& values = model_.series(series);
    if (values.size() < 2) {
      return "";  // that is no past
    }
    const size_t room = view_.columns - std::min(view_.columns, used_columns);
    return history(values, top, room, view_.fine);
  }
  std::string store(const Directory& d, const char* parent, const char* whole) const;
  std::string rate(const Shown& shown) const;
  std::string share(uint64_t resident, uint64_t swapped) const;

  const Hello& hello_;
  const TopModel& model_;
  const TopView& view_;
};

// "dram       [###------]  192M of  256M ▃▃▄▅"
std::string Drawing::store(const Directory& d, const char* parent, const char* whole) const {
  const uint64_t used = d.attributes.number("used");
  const uint64_t all = d.attributes.number(whole);
  const std::string left =
      fmt::format("{} {} {:>5} of {:>5} ", fit(harmless(d.name), 10), bar(used, all, kBarWidth),
                  human_bytes(used), human_bytes(all));
  return left + past(std::string(parent) + "/" + d.name, all, left.size());
}

// "major          7     88  ▁▂▅"
std::string Drawing::rate(const Shown& shown) const {
  const std::string value = amount(model_.shown(shown.counter), shown.bytes);
  if (!model_.has_rates()) {
    return fmt::format("{:<10} {:>7}", shown.label, value);
  }
  const uint64_t peak = model_.peak(shown.counter);
  const std::string left =
      fmt::format("{:<10} {:>7} {:>7} ", shown.label, value, amount(peak, shown.bytes));
  return left + past(shown.counter, peak, left.size());
}

Lines Drawing::head() const {
  const Snapshot& now = model_.now();
  Lines lines = {fmt::format("{} (pid {})  kvmm {}  up {}  {} sessions{}", harmless(hello_.name),
                             hello_.pid, harmless(hello_.version), human_duration(now.uptime_ns),
                             now.sessions_count, view_.paused ? "  PAUSED" : "")};
  size_t stores = 0;
  for (const Directory& tier : now.tiers) {
    if (stores++ < kStoresMax) {
      lines.push_back(store(tier, "tiers", "capacity"));
    }
  }
  for (const Directory& area : now.swap) {
    if (stores++ < kStoresMax) {
      lines.push_back(store(area, "swap", "size"));
    }
  }
  if (stores > kStoresMax) {
    lines.push_back(fmt::format("           {} more: t shows them", stores - kStoresMax));
  }
  lines.push_back(model_.has_rates() ? "EVENTS       NOW/S  PEAK/S  PAST" : "EVENTS       TOTAL");
  for (const Shown& shown : kShown) {
    lines.push_back(rate(shown));
  }
  const auto it = now.vmstat.find("wrong_pages");
  lines.push_back(fmt::format("wrong pages {}", it == now.vmstat.end() ? 0 : it->second));
  return lines;
}

// Of all that the session has, what is resident ('#') and what is swapped ('-').
std::string Drawing::share(uint64_t resident, uint64_t swapped) const {
  return resident + swapped == 0 ? std::string(kShareWidth + 2, ' ')
                                 : bar(resident, resident + swapped, kShareWidth);
}

Lines Drawing::sessions() const {
  const bool rates = model_.has_rates();
  // What 80 columns have no room for comes where there is some.
  const bool wide = view_.columns >= 110;
  std::string title = fmt::format("{:>4} {} {:<7} {:>5} {:>5} {:<{}} {:>6} {:>5} {:>5} {:>5}", "ID",
                                  fit("NAME", kNameWidth), "ADVICE", "RES", "SWAP", "RES/SWAP",
                                  kShareWidth + 2, "FAULTS", "MAJOR", "IN", "OUT");
  title += wide ? "   TOKENS STATE    TENANT" : "";
  // The column that sorts, and whether events are a second or since the start.
  const auto* const by = std::find_if(kSortKeys.begin(), kSortKeys.end(),
                                      [&](const SortKey& k) { return k.by == view_.sort; });
  Lines lines = {fmt::format("sessions by {}{}, events {}", by->title,
                             view_.reverse ? " reversed" : "", rates ? "a second" : "in total"),
                 title};
  for (const Directory& s : model_.now().sessions) {
    const Attributes& a = s.attributes;
    const uint64_t resident = a.number("bytes_resident");
    const uint64_t swapped = a.number("bytes_swapped");
    std::string line = fmt::format(
        "{:>4} {} {} {:>5} {:>5} {} {:>6} {:>5} {:>5} {:>5}", harmless(s.name),
        fit(harmless(a.text("name")), kNameWidth), fit(harmless(a.text("advice")), 7),
        human_bytes(resident), human_bytes(swapped), share(resident, swapped),
        amount(faults_shown(model_, s), false), amount(model_.shown(s, "faults_major"), false),
        human_bytes(model_.shown(s, "swap_in_bytes")),
        human_bytes(model_.shown(s, "swap_out_bytes")));
    if (wide) {
      line += fmt::format(" {:>8} {} {}", amount(a.number("tokens"), false),
                          fit(harmless(a.text("state")), 8), harmless(a.text("tenant")));
    }
    lines.push_back(std::move(line));
  }
  return lines;
}

Lines Drawing::tiers() const {
  Lines lines = {"tiers: free memory against the watermarks",
                 "TIER       KIND          SIZE   USED   FREE    MIN    LOW   HIGH  RECLAIM"};
  for (const auto& [name, a] : model_.now().tiers) {
    const uint64_t free = a.number("free");
    const char* const reclaim = free < a.number("watermark_min")    ? "faults only"
                                : free < a.number("watermark_low")  ? "works"
                                : free < a.number("watermark_high") ? "until high"
                                                                    : "rests";
    lines.push_back(fmt::format(
        "{} {} {:>6} {:>6} {:>6} {:>6} {:>6} {:>6}  {}", fit(harmless(name), 10),
        fit(harmless(a.text("kind")), 9), human_bytes(a.number("capacity")),
        human_bytes(a.number("used")), human_bytes(free), human_bytes(a.number("watermark_min")),
        human_bytes(a.number("watermark_low")), human_bytes(a.number("watermark_high")), reclaim));
    lines.push_back("  used " + past("tiers/" + name, a.number("capacity"), 7));
  }
  if (!model_.now().swap.empty()) {
    lines.emplace_back("SWAP         SIZE   USED   FREE PRIORITY ERRORS  PATH");
  }
  for (const auto& [name, a] : model_.now().swap) {
    const uint64_t size = a.number("size");
    const uint64_t used = std::min(a.number("used"), size);
    lines.push_back(fmt::format("{} {:>6} {:>6} {:>6} {:>8} {:>6}  {}", fit(harmless(name), 10),
                                human_bytes(size), human_bytes(used), human_bytes(size - used),
                                harmless(a.text("priority")), a.number("errors"),
                                harmless(a.text("path"))));
    lines.push_back("  used " + past("swap/" + name, size, 7));
  }
  return lines;
}

Lines Drawing::counters() const {
  Lines lines = {"all counters", "COUNTER                      TOTAL    NOW/S   PEAK/S  PAST"};
  for (const auto& [name, value] : model_.now().vmstat) {
    const bool bytes = name.ends_with("_bytes");
    const std::string left =
        fmt::format("{} {:>9} {:>8} {:>8}  ", fit(harmless(name), 24),
                    bytes ? human_bytes(value) : std::to_string(value),
                    model_.has_rates() ? amount(model_.rate(name), bytes) : "-",
                    model_.has_rates() ? amount(model_.peak(name), bytes) : "-");
    lines.push_back(left + past(name, model_.peak(name), left.size()));
  }
  return lines;
}

std::string Drawing::bottom() const {
  if (!view_.help) {
    return "s sessions  t tiers  v counters  p pause  h help  q quit";
  }
  return "sort: r res w swap f faults m major i in o out n name d id, z turns round; arrows";
}

}  // namespace

bool TopView::press(int key) {
  const TopPage old = page;
  switch (key) {
    case 's':
      page = TopPage::kSessions;
      break;
    case 't':
      page = TopPage::kTiers;
      break;
    case 'v':
      page = TopPage::kCounters;
      break;
    case '\t':
      page = page == TopPage::kSessions ? TopPage::kTiers
             : page == TopPage::kTiers  ? TopPage::kCounters
                                        : TopPage::kSessions;
      break;
    case 'z':
      reverse = !reverse;
      break;
    case 'h':
    case '?':
      help = !help;
      break;
    case 'p':
    case ' ':
      paused = !paused;
      break;
    case kKeyUp:
    case 'k':
      scroll -= std::min<size_t>(scroll, 1);
      break;
    case kKeyDown:
    case 'j':
      ++scroll;
      break;
    case kKeyPageUp:
      scroll -= std::min<size_t>(scroll, 10);
      break;
    case kKeyPageDown:
      scroll += 10;
      break;
    case kKeyRedraw:
      break;
    default: {
      const auto* const by = std::find_if(kSortKeys.begin(), kSortKeys.end(),
                                          [&](const SortKey& k) { return k.key == key; });
      if (by == kSortKeys.end()) {
        return false;
      }
      sort = by->by;
      page = TopPage::kSessions;
      scroll = 0;
    }
  }
  if (page != old) {
    scroll = 0;
  }
  return true;
}

std::string draw_top(const Hello& hello, const TopModel& model, TopView& view) {
  const Drawing drawing(hello, model, view);
  Lines all = view.page == TopPage::kSessions ? drawing.head() : Lines{drawing.head().front()};
  all.emplace_back();
  Lines lower = view.page == TopPage::kSessions ? drawing.sessions()
                : view.page == TopPage::kTiers  ? drawing.tiers()
                                                : drawing.counters();
  constexpr size_t kTitles = 2;
  const size_t fixed = all.size() + kTitles + 1;  // the last line says which keys there are
  const size_t room = view.lines == 0 ? lower.size() : view.lines - std::min(view.lines, fixed);
  const size_t rows = lower.size() - kTitles;
  view.scroll = std::min(view.scroll, rows - std::min(rows, room));
  all.push_back(lower[0]);
  const size_t strong = all.size();
  all.push_back(lower[1]);
  for (size_t i = view.scroll; i < rows && i - view.scroll < room; ++i) {
    all.push_back(std::move(lower[kTitles + i]));
  }
  if (view.lines != 0) {
    all.resize(std::min(all.size(), view.lines - 1));  // a terminal of few lines
    all.resize(view.lines - 1);
    all.push_back(drawing.bottom());
  }
  std::string text;
  for (size_t i = 0; i < all.size(); ++i) {
    std::string line = fit(all[i], view.columns);
    line.erase(line.find_last_not_of(' ') + 1);
    text += i == strong ? drawing.strong(line) : line;
    text += view.lines != 0 && i + 1 == all.size() ? "" : "\n";
  }
  return text;
}

}  // namespace kvmm::ctl
