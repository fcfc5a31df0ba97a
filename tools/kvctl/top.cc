// SPDX-License-Identifier: Apache-2.0
//
// top: a runtime's tiers, rates and sessions, drawn again and again.
//
// On a terminal every picture replaces the one before, keys change what is shown, q or Ctrl-C ends
// it and the terminal is as it was. Elsewhere pictures follow one another; with --json one object a
// line.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <utility>

#include "tools/kvctl/context.h"
#include "tools/kvctl/output.h"
#include "tools/kvctl/terminal.h"
#include "tools/kvctl/top_model.h"
#include "tools/kvctl/top_view.h"

namespace kvmm::ctl {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

constexpr size_t kPlainColumns = 80;  // where there is no terminal

Json to_json(const Hello& hello, const TopModel& model) {
  const Snapshot& now = model.now();
  Json json;
  json["pid"] = hello.pid;
  json["name"] = hello.name;
  json["uptime_ns"] = now.uptime_ns;
  json["tiers"] = Json::array();
  for (const auto& [name, a] : now.tiers) {
    Json one = {{"name", name}};
    for (const char* number :
         {"capacity", "used", "free", "watermark_min", "watermark_low", "watermark_high"}) {
      one[number] = a.number(number);
    }
    json["tiers"].push_back(std::move(one));
  }
  json["swap"] = Json::array();
  for (const auto& [name, a] : now.swap) {
    json["swap"].push_back({{"name", name},
                            {"size", a.number("size")},
                            {"used", a.number("used")},
                            {"errors", a.number("errors")}});
  }
  json["vmstat"] = now.vmstat;
  json["per_second"] = Json();
  if (model.has_rates()) {
    json["per_second"] = Json::object();
    for (const auto& [name, value] : now.vmstat) {
      json["per_second"][name] = model.rate(name);
    }
  }
  json["sessions"] = Json::array();
  for (const Directory& session : now.sessions) {
    const Attributes& a = session.attributes;
    Json one = {{"id", session.name},
                {"name", a.text("name")},
                {"tenant", a.text("tenant")},
                {"state", a.text("state")},
                {"advice", a.text("advice")},
                {"tokens", a.number("tokens")},
                {"bytes_resident", a.number("bytes_resident")},
                {"bytes_swapped", a.number("bytes_swapped")}};
    const auto stat = now.session_stats.find(session.name);
    one["stat"] = stat == now.session_stats.end() ? Json(Json::object()) : Json(stat->second);
    one["per_second"] = Json();
    if (model.has_rates()) {
      one["per_second"] = Json::object();
      for (const auto& [name, value] : one["stat"].items()) {
        one["per_second"][name] = model.rate(session, name);
      }
    }
    json["sessions"].push_back(std::move(one));
  }
  return json;
}

// One run of top.
class Top {
 public:
  Top(const Context& context, Runtime runtime)
      : context_(context),
        runtime_(std::move(runtime)),
        frames_(context.options.once ? 1 : context.options.frames),
        interval_(static_cast<int64_t>(context.options.interval_s * 1000)),
        terminal_(!context.options.json && frames_ != 1) {
    view_.fine = !context.options.ascii && utf8_locale();
    view_.colour = terminal_.live() && colour_wanted(context.options.colour);
    view_.page = context.options.page == "tiers"      ? TopPage::kTiers
                 : context.options.page == "counters" ? TopPage::kCounters
                                                      : TopPage::kSessions;
    view_.sort = sort_of(context.options.sort);
  }

  // What went wrong with the runtime, or else the exit status.
  Result<int> run() {
    for (uint64_t i = 0; frames_ == 0 || i < frames_; ++i) {
      const Clock::time_point start = Clock::now();
      Result<Snapshot> now = take_snapshot(runtime_.client, true);
      if (!now) {
        return std::move(now).error();
      }
      model_.add(std::move(*now));
      if (const int status = show(i == 0); status != kExitOk) {
        return status;
      }
      if (i + 1 != frames_) {
        const Result<bool> more = wait(start + interval_);
        if (!more || !*more) {
          return more ? Result<int>(kExitOk) : Result<int>(kExitRefused);
        }
      }
    }
    return kExitOk;
  }

 private:
  static SortBy sort_of(const std::string& name) {
    constexpr std::pair<const char*, SortBy> kNames[] = {{"resident", SortBy::kResident},
                                                         {"swapped", SortBy::kSwapped},
                                                         {"faults", SortBy::kFaults},
                                                         {"major", SortBy::kMajor},
                                                         {"in", SortBy::kIn},
                                                         {"out", SortBy::kOut},
                                                         {"name", SortBy::kName},
                                                         {"id", SortBy::kId}};
    for (const auto& [known, by] : kNames) {
      if (name == known) {
        return by;
      }
    }
    return SortBy::kResident;
  }

  int show(bool first) {
    model_.sort(view_.sort, view_.reverse);
    if (context_.options.json) {
      return context_.print(
          to_json(runtime_.hello, model_).dump(-1, ' ', false, Json::error_handler_t::replace) +
          "\n");
    }
    const auto size = terminal_size();
    view_.columns = size ? size->columns : kPlainColumns;
    view_.lines = terminal_.live() && size ? size->lines : 0;
    const std::string text = draw_top(runtime_.hello, model_, view_);
    if (terminal_.live()) {
      // What is overwritten does not flicker; what was longer is cleared.
      std::string clean = "\x1b[H";
      for (const char c : text) {
        clean += c == '\n' ? std::string("\x1b[K\n") : std::string(1, c);
      }
      return context_.print(clean + "\x1b[K\x1b[J");
    }
    return context_.print((first ? "" : "\n") + text);
  }

  // False: it is time to end. An error: output cannot be written.
  Result<bool> wait(Clock::time_point end) {
    while (true) {
      const int key =
          terminal_.wait_until(view_.paused ? Clock::now() + std::chrono::hours(1) : end);
      if (key == kKeyTime && !view_.paused) {
        return true;
      }
      if (key == kKeyEnd || key == 'q' || key == 'Q') {
        return false;
      }
      if (view_.press(key) && show(false) != kExitOk) {
        return Errc::kIo;
      }
    }
  }

  const Context& context_;
  Runtime runtime_;
  const uint64_t frames_;
  const std::chrono::milliseconds interval_;
  Terminal terminal_;
  TopModel model_;
  TopView view_;
};

}  // namespace

int run_top(const Context& context) {
  int status = 0;
  std::optional<Runtime> runtime = context.choose(&status);
  if (!runtime) {
    return status;
  }
  Result<int> ended = kExitOk;
  {
    Top top(context, std::move(*runtime));
    ended = top.run();
  }  // the terminal is itself again
  return ended ? *ended : context.fail(ended.error());
}

}  // namespace kvmm::ctl
