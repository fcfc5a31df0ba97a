// SPDX-License-Identifier: Apache-2.0
#include "tools/kvctl/trace_faults.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <iterator>
#include <nlohmann/json.hpp>

#include "runtime/base/trace_events.h"
#include "tools/kvctl/output.h"

namespace kvmm::ctl {
namespace {

bool parse_number(std::string_view text, uint64_t* to) {
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), *to);
  return failed == std::errc() && end == text.data() + text.size();
}

const char* kind_of(uint64_t kind) {
  return kind < std::size(kFaultKinds) ? kFaultKinds[kind] : "unknown";
}

// Nanoseconds in groups of three: "1,234,567".
std::string grouped(uint64_t ns) {
  std::string text = std::to_string(ns);
  for (size_t at = text.size(); at > 3; at -= 3) {
    text.insert(at - 3, ",");
  }
  return text;
}

uint64_t since(uint64_t tick, uint64_t before) {
  return tick - std::min(before, tick);
}

}  // namespace

Result<FaultWanted> parse_fault_wanted(const std::string& text) {
  FaultWanted wanted;
  const size_t colon = text.find(':');
  const size_t slash = text.find('/');
  bool good = colon != std::string::npos;
  if (good) {
    const std::string_view all = text;
    good = parse_number(all.substr(0, colon), &wanted.session);
    if (slash != std::string::npos) {
      wanted.plane = 0;
      good = good && slash > colon &&
             parse_number(all.substr(colon + 1, slash - colon - 1), &*wanted.plane) &&
             parse_number(all.substr(slash + 1), &wanted.page);
    } else {
      good = good && parse_number(all.substr(colon + 1), &wanted.page);
    }
  }
  if (!good) {
    return Error(Errc::kInvalid, "'" + harmless(text) +
                                     "' names no page: SESSION:PAGE or SESSION:PLANE/PAGE, all of "
                                     "them numbers, as kvctl trace prints them");
  }
  return wanted;
}

bool FaultLives::is_wanted(uint64_t session, uint64_t page) const {
  return !wanted_ || (session == wanted_->session && (page & UINT32_MAX) == wanted_->page &&
                      (!wanted_->plane || page >> 32 == *wanted_->plane));
}

void FaultLives::lost() {
  for (auto& [key, life] : open_) {
    life.events_lost = true;
  }
}

std::optional<FaultLife> FaultLives::add(const TraceRow& row) {
  uint64_t session = 0;
  uint64_t page = 0;
  if (!schema_.argument(row, "session", &session) || !schema_.argument(row, "page", &page)) {
    return std::nullopt;
  }
  auto it = open_.find({session, page});
  if (it == open_.end()) {
    if (row.event != "fault_begin" || !is_wanted(session, page)) {
      return std::nullopt;
    }
    if (open_.size() >= kOpenMax) {  // their ends were lost, or never came
      open_.erase(std::min_element(open_.begin(), open_.end(), [](const auto& a, const auto& b) {
        return a.second.steps.front().tick < b.second.steps.front().tick;
      }));
    }
    it = open_.emplace(std::pair(session, page), FaultLife{session, page, {}, 0, false}).first;
  }
  FaultLife& life = it->second;
  const bool ends = row.event == "fault_end";
  if (life.steps.size() < kStepsMax || ends) {
    life.steps.push_back(row);
  } else {
    ++life.steps_left_out;
  }
  if (!ends) {
    return std::nullopt;
  }
  FaultLife done = std::move(life);
  open_.erase(it);
  return done;
}

// What an event means to the fault.
std::string FaultLives::step(const TraceRow& row) const {
  const auto value = [&](const char* name) {
    uint64_t v = 0;
    schema_.argument(row, name, &v);
    return v;
  };
  const std::string& e = row.event;
  const uint64_t errc = value("errc");
  const std::string why = errc == 0 ? "" : ": " + errc_text_of(errc);
  if (e == "fault_begin") {
    return fmt::format("touch read by the core: {} of {:#x}, {}",
                       value("write") != 0 ? "write" : "read", value("address"),
                       kind_of(value("kind")));
  }
  if (e == "frame") {
    return fmt::format("frame had: {:#x}{}", value("frame"),
                       value("zeroed") != 0 ? ", zeroed ahead" : "");
  }
  if (e == "read") {
    return fmt::format("read begun: slot {:#x}, {} bytes in {} pieces", value("slot"),
                       value("bytes"), value("pieces"));
  }
  if (e == "io_submit") {
    return fmt::format("piece {}: {} submitted, {} bytes", value("piece"),
                       value("write") != 0 ? "write" : "read", value("bytes"));
  }
  if (e == "io_done") {
    return fmt::format("piece {}: {}{}", value("piece"),
                       errc != 0             ? "failed"
                       : value("write") != 0 ? "written"
                                             : "arrived",
                       why);
  }
  if (e == "checksummed") {
    return fmt::format("piece {}: checksummed", value("piece"));
  }
  if (e == "swap_in") {
    return errc == 0 ? "verified: bytes and identity" : "read refused" + why;
  }
  if (e == "verify_fail") {
    return "not the page that was written" + why;
  }
  if (e == "zero_fill") {
    return "filled with zeros";
  }
  if (e == "map") {
    return errc == 0 ? "mapped" : "not mapped" + why;
  }
  if (e == "unmap") {
    return errc == 0 ? "unmapped" : "not unmapped" + why;
  }
  if (e == "fault_end") {
    return errc == 0 ? "woken" : "answered with an error" + why;
  }
  return harmless(e) + "  " + schema_.arguments_text(row);
}

std::string FaultLives::text(const FaultLife& life) const {
  const uint64_t begin = life.steps.front().tick;
  std::string out =
      fmt::format("fault of session {} page {}/{}: {} ns\n", life.session, life.page >> 32,
                  life.page & UINT32_MAX, grouped(since(life.steps.back().tick, begin)));
  out += fmt::format("{:>14}  {:>14}  step\n", "+ns", "ns");
  uint64_t last = begin;
  for (const TraceRow& row : life.steps) {
    out += fmt::format("{:>14}  {:>14}  {}\n", grouped(since(row.tick, last)),
                       grouped(since(row.tick, begin)), step(row));
    last = row.tick;
  }
  if (life.steps_left_out != 0) {
    out += fmt::format("{:>32}{} more steps are left out\n", "", life.steps_left_out);
  }
  if (life.events_lost) {
    out += fmt::format("{:>32}events were lost meanwhile: steps may be missing\n", "");
  }
  return out;
}

nlohmann::ordered_json FaultLives::json(const FaultLife& life) const {
  const uint64_t begin = life.steps.front().tick;
  nlohmann::ordered_json out;
  out["session"] = life.session;
  out["plane"] = life.page >> 32;
  out["page"] = life.page & UINT32_MAX;
  out["ns"] = since(life.steps.back().tick, begin);
  out["complete"] = !life.events_lost && life.steps_left_out == 0;
  out["steps"] = nlohmann::ordered_json::array();
  uint64_t last = begin;
  for (const TraceRow& row : life.steps) {
    nlohmann::ordered_json one;
    one["event"] = row.event;
    one["ns"] = since(row.tick, begin);
    one["delta_ns"] = since(row.tick, last);
    one["step"] = step(row);
    schema_.add_arguments(row, &one);
    one.erase("session");
    one.erase("plane");
    one.erase("page");
    out["steps"].push_back(std::move(one));
    last = row.tick;
  }
  return out;
}

}  // namespace kvmm::ctl
