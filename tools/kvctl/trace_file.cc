// SPDX-License-Identifier: Apache-2.0
#include "tools/kvctl/trace_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <limits>
#include <nlohmann/json.hpp>

#include "tools/kvctl/output.h"
#include "tools/kvctl/trace_wire.h"

namespace kvmm::ctl {
namespace {

using Json = nlohmann::json;
using OutJson = nlohmann::ordered_json;

constexpr int kVersion = 1;
constexpr size_t kLineMax = 256 * 1024;

// Deeper than anything that stands in a trace: the parser need not build what is refused anyway.
constexpr int kDepthMax = 8;

Json parse(const std::string& line) {
  const auto shallow = [](int depth, Json::parse_event_t, Json&) { return depth <= kDepthMax; };
  return Json::parse(line, shallow, false);
}

bool take_number(const Json& from, const char* name, uint64_t* to) {
  const auto it = from.find(name);
  if (it == from.end() || !it->is_number_unsigned()) {
    return false;
  }
  *to = it->get<uint64_t>();
  return true;
}

}  // namespace

// ------------------------------------------------------------------------------------ writing

Result<TraceWriter> TraceWriter::create(const std::string& path, const Hello& from,
                                        const TraceSchema& schema) {
  // Addresses and sessions are nobody else's business.
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) {
    return Error(Errc::kIo, path + ": cannot be made", errno);
  }
  TraceWriter writer(path, fdopen(fd, "w"));
  OutJson head;
  head["kvmm_trace"] = kVersion;
  head["runtime"] = from.name;
  head["pid"] = from.pid;
  head["schema"] = OutJson::array();
  for (const TraceEventSchema& event : schema.events()) {
    head["schema"].push_back({{"name", event.name}, {"args", event.args}});
  }
  if (auto ok = writer.line(head.dump(-1, ' ', false, OutJson::error_handler_t::replace)); !ok) {
    return ok.error();
  }
  return writer;
}

Result<void> TraceWriter::line(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), file_.get()) != text.size() ||
      std::fputc('\n', file_.get()) == EOF) {
    return Error(Errc::kIo, path_ + ": cannot be written", errno);
  }
  return {};
}

Result<void> TraceWriter::event(const TraceRow& row) {
  ++events_;
  std::string text = fmt::format("[{},{},{}", row.number, row.tick, OutJson(row.event).dump());
  for (const uint64_t arg : row.args) {
    text += fmt::format(",{}", arg);
  }
  return line(text + "]");
}

Result<void> TraceWriter::lost(uint64_t count) {
  lost_ += count;
  return line(fmt::format("{{\"lost\":{}}}", count));
}

Result<void> TraceWriter::end() {
  if (auto ok = line(fmt::format("{{\"end\":true,\"events\":{},\"lost\":{}}}", events_, lost_));
      !ok) {
    return ok;
  }
  if (std::fclose(file_.release()) != 0) {
    return Error(Errc::kIo, path_ + ": cannot be written", errno);
  }
  return {};
}

// ------------------------------------------------------------------------------------ reading

Error TraceReader::bad(const std::string& what) const {
  return Error(Errc::kCorrupt, fmt::format("{}: line {}, byte {}: {}", path_, line_, begin_, what));
}

Result<TraceReader> TraceReader::open(const std::string& path) {
  std::FILE* const file = std::fopen(path.c_str(), "re");
  if (file == nullptr) {
    return Error(Errc::kIo, path + ": cannot be read", errno);
  }
  TraceReader reader(path, file);
  if (auto ok = reader.read_head(); !ok) {
    return ok.error();
  }
  return reader;
}

// Without its newline. A line that is too long, or ends with the file, is an error.
Result<std::string> TraceReader::read_line() {
  ++line_;
  begin_ = at_;
  std::string text;
  for (int c = std::getc(file_.get()); c != '\n'; c = std::getc(file_.get())) {
    if (c == EOF) {
      if (std::ferror(file_.get()) != 0) {
        return Error(Errc::kIo, path_ + ": cannot be read", errno);
      }
      return bad(text.empty() ? "the file ends without its last line: the recording was cut off"
                              : "the file ends in the middle of a line: it was cut off");
    }
    if (text.size() == kLineMax) {
      return bad(fmt::format("a line has more than {} bytes", kLineMax));
    }
    text += static_cast<char>(c);
    ++at_;
  }
  ++at_;
  return text;
}

Result<void> TraceReader::read_head() {
  const Result<std::string> text = read_line();
  if (!text) {
    return text.error();
  }
  const Json head = parse(*text);
  uint64_t version = 0;
  if (!head.is_object() || !take_number(head, "kvmm_trace", &version)) {
    return bad("this is no trace: the first line of one begins with {\"kvmm_trace\":1");
  }
  if (version != kVersion) {
    return bad(
        fmt::format("version {} of the format; this kvctl reads version {}", version, kVersion));
  }
  Result<std::vector<TraceEventSchema>> schema =
      trace_schema_of(head.contains("schema") ? head["schema"] : Json());
  if (!schema) {
    return bad(schema.error().detail);
  }
  schema_ = TraceSchema(std::move(*schema));
  return {};
}

Result<std::optional<TraceReader::Line>> TraceReader::next() {
  const Result<std::string> text = read_line();
  if (!text) {
    return text.error();
  }
  const Json json = parse(*text);
  Line line;
  if (json.is_array()) {
    Result<TraceRow> row = trace_row_of(json);
    Result<void> known = row ? schema_.check(*row) : Result<void>(row.error());
    if (!known) {
      return bad(known.error().detail);
    }
    if (last_number_ && row->number <= *last_number_) {
      return bad(fmt::format("event {} follows event {}: their numbers ascend", row->number,
                             *last_number_));
    }
    last_number_ = row->number;
    ++events_;
    line.event = std::move(*row);
    return std::optional(std::move(line));
  }
  if (!json.is_object()) {
    return bad("a line is an event, a gap or the end, in JSON");
  }
  if (!json.contains("end")) {
    if (!take_number(json, "lost", &line.lost) || line.lost == 0 ||
        line.lost > std::numeric_limits<uint64_t>::max() - lost_) {
      return bad("a gap has the number of events that are 'lost'");
    }
    lost_ += line.lost;
    return std::optional(std::move(line));
  }
  uint64_t events = 0;
  uint64_t lost = 0;
  if (!take_number(json, "events", &events) || !take_number(json, "lost", &lost) ||
      events != events_ || lost != lost_) {
    return bad(fmt::format("the last line does not count the {} events and {} lost ones before it",
                           events_, lost_));
  }
  if (std::getc(file_.get()) != EOF) {
    ++line_;
    begin_ = at_;
    return bad("something follows the last line");
  }
  return std::optional<Line>();
}

}  // namespace kvmm::ctl
