// SPDX-License-Identifier: Apache-2.0
//
// trace: events of a runtime as they happen, into a file, or out of one.
//
//   runtime --asked again and again--> Source --+--> TraceWriter      -o FILE
//   file -----------------------------> Source --+--> filter --> text, JSON, lives of faults
//
// Ctrl-C ends it at any moment, also while nobody takes the output; what was lost is said then.
#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "tools/kvctl/context.h"
#include "tools/kvctl/output.h"
#include "tools/kvctl/stop.h"
#include "tools/kvctl/trace_faults.h"
#include "tools/kvctl/trace_file.h"

namespace kvmm::ctl {
namespace {

constexpr int kPauseMs = 20;            // between two questions when little happens
constexpr uint64_t kBusyEvents = 1000;  // as many as that since the last one: ask again at once
constexpr size_t kWriteAtOnce = 4096;

enum class Told : uint8_t { kGoOn, kStopped, kFailed };

// Writes to standard output in pieces that do not block once it can take some.
Told tell(std::string_view text, const Stop& stop) {
  while (!text.empty()) {
    pollfd fds[2] = {{STDOUT_FILENO, POLLOUT, 0}, {stop.fd(), POLLIN, 0}};
    if (poll(fds, 2, -1) < 0 && errno != EINTR) {
      return Told::kFailed;
    }
    if (fds[1].revents != 0) {
      return Told::kStopped;
    }
    const std::string_view piece = text.substr(0, kWriteAtOnce);
    if (fds[0].revents != 0 && !write_out(piece)) {
      return Told::kFailed;
    }
    text.remove_prefix(fds[0].revents != 0 ? piece.size() : 0);
  }
  return Told::kGoOn;
}

// Events of a file are chosen here, those of a runtime by the runtime.
struct Filter {
  std::set<std::string, std::less<>> events;  // empty: all
  std::optional<uint64_t> session;

  bool wants(const TraceSchema& schema, const TraceRow& row) const {
    uint64_t of = 0;
    return (events.empty() || events.contains(row.event)) &&
           (!session || (schema.argument(row, "session", &of) && of == *session));
  }
};

class TraceCommand {
 public:
  explicit TraceCommand(const Context& context)
      : context_(context), options_(context.options.trace) {}

  int run() {
    if (const int status = read_options(); status != kExitOk) {
      return status;
    }
    return options_.input.empty() ? run_live() : run_file();
  }

 private:
  int read_options() {
    if (options_.fault && !options_.page.empty()) {
      Result<FaultWanted> wanted = parse_fault_wanted(options_.page);
      if (!wanted) {
        return context_.fail(kExitUsage, wanted.error().detail);
      }
      wanted_ = *wanted;
      filter_.session = wanted->session;
    }
    if (!options_.session.empty()) {
      uint64_t id = 0;
      const char* const end = options_.session.data() + options_.session.size();
      const auto [at, failed] = std::from_chars(options_.session.data(), end, id);
      if (failed != std::errc() || at != end) {
        return context_.fail(kExitUsage, "--session takes a session's number: kvctl ls sessions");
      }
      if (wanted_ && wanted_->session != id) {
        return context_.fail(kExitUsage, "--session and --fault name two sessions");
      }
      filter_.session = id;
    }
    for (std::string_view rest = options_.events; !rest.empty();) {
      const std::string_view name = rest.substr(0, rest.find(','));
      filter_.events.emplace(name);
      rest.remove_prefix(std::min(rest.size(), name.size() + 1));
    }
    return kExitOk;
  }

  // ---- a runtime ---------------------------------------------------------------------------

  int run_live() {
    int status = 0;
    std::optional<Runtime> runtime = context_.choose(&status);
    if (!runtime) {
      return status;
    }
    std::map<std::string, std::string> args;
    if (!options_.events.empty()) {
      args["events"] = options_.events;
    }
    if (filter_.session) {
      args["session"] = std::to_string(*filter_.session);
    }
    Result<TraceReply> reply = runtime->client.trace(std::nullopt, args);
    if (!reply) {
      return context_.fail(reply.error());
    }
    begin(TraceSchema(std::move(reply->schema)));
    std::optional<TraceWriter> writer;
    if (!options_.output.empty()) {
      Result<TraceWriter> made = TraceWriter::create(options_.output, runtime->hello, schema_);
      if (!made) {
        return context_.fail(made.error());
      }
      writer = std::move(*made);
    }
    // A fault that has just happened is what is asked for most: begin with what is still there.
    const bool past = options_.past || options_.fault;
    uint64_t next = past ? 0 : reply->next;
    bool first = past;
    std::optional<Error> error;
    while (!ended_ && !error && !stop_.came()) {
      reply = runtime->client.trace(next, args);
      if (!reply) {
        error = reply.error();
        break;
      }
      const uint64_t happened = reply->next - std::min(next, reply->next);
      next = reply->next;
      const uint64_t lost = first ? 0 : reply->lost;  // what was gone before we came is not lost
      first = false;
      error = writer ? record(*writer, *reply, lost) : show(*reply, lost);
      if (!ended_ && !error && happened < kBusyEvents && stop_.wait(kPauseMs)) {
        break;
      }
    }
    if (writer) {
      if (const Result<void> done = writer->end(); !done && !error) {
        error = done.error();
      }
    }
    sum_up();
    return error ? context_.fail(*error) : output_failed_ ? fail_output() : kExitOk;
  }

  std::optional<Error> record(TraceWriter& writer, const TraceReply& reply, uint64_t lost) {
    lost_ += lost;
    Result<void> done = lost != 0 ? writer.lost(lost) : Result<void>();
    for (const TraceRow& row : reply.rows) {
      if (!done || ended_) {
        break;
      }
      done = schema_.check(row);
      done = done ? writer.event(row) : done;
      count_one();
    }
    return done ? std::nullopt : std::optional(done.error());
  }

  std::optional<Error> show(const TraceReply& reply, uint64_t lost) {
    std::string text;
    if (lost != 0) {
      text += gap(lost);
    }
    for (const TraceRow& row : reply.rows) {
      if (ended_) {
        break;
      }
      if (const Result<void> known = schema_.check(row); !known) {
        return known.error();
      }
      text += shown(row);
    }
    put(text);
    return std::nullopt;
  }

  // ---- a file ------------------------------------------------------------------------------

  int run_file() {
    Result<TraceReader> reader = TraceReader::open(options_.input);
    if (!reader) {
      return context_.fail(reader.error());
    }
    begin(reader->schema());
    for (const std::string& name : filter_.events) {
      if (schema_.find(name) == nullptr) {
        return context_.fail(kExitUsage, "the file's schema has no event '" + name + "'");
      }
    }
    std::optional<Error> error;
    while (!ended_) {
      Result<std::optional<TraceReader::Line>> line = reader->next();
      if (!line) {
        error = line.error();
        break;
      }
      if (!line->has_value()) {
        break;
      }
      if (!(*line)->event) {
        put(gap((*line)->lost));
      } else if (filter_.wants(schema_, *(*line)->event)) {
        put(shown(*(*line)->event));
      }
    }
    sum_up();
    return error ? context_.fail(*error) : output_failed_ ? fail_output() : kExitOk;
  }

  // ---- both --------------------------------------------------------------------------------

  void begin(TraceSchema schema) {
    schema_ = std::move(schema);
    lives_.emplace(schema_, wanted_);
    left_ = options_.count ? *options_.count : options_.fault ? 1 : 0;
  }

  std::string gap(uint64_t lost) {
    lost_ += lost;
    lives_->lost();
    return context_.options.json ? fmt::format("{{\"lost\":{}}}\n", lost)
                                 : fmt::format("    -- {} events lost --\n", lost);
  }

  std::string shown(const TraceRow& row) {
    const bool json = context_.options.json;
    const auto line = [](const nlohmann::ordered_json& j) {
      return j.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
    };
    if (!options_.fault) {
      count_one();
      return json ? line(schema_.json(row)) : schema_.text(row);
    }
    const std::optional<FaultLife> life = lives_->add(row);
    if (!life) {
      return "";
    }
    count_one();
    return json          ? line(lives_->json(*life))
           : count_ == 1 ? lives_->text(*life)
                         : "\n" + lives_->text(*life);
  }

  void count_one() {
    ++count_;
    ended_ = ended_ || (left_ != 0 && count_ == left_);
  }

  void put(const std::string& text) {
    const Told told = tell(text, stop_);
    output_failed_ = told == Told::kFailed;
    ended_ = ended_ || told != Told::kGoOn;
  }

  void sum_up() const {
    const char* const what = options_.fault ? "fault" : "event";
    std::fprintf(stderr, "kvctl: %llu %s%s%s, %llu events lost\n",
                 static_cast<unsigned long long>(count_), what, count_ == 1 ? "" : "s",
                 options_.output.empty() ? "" : " recorded",
                 static_cast<unsigned long long>(lost_));
  }

  int fail_output() const { return context_.fail(kExitRefused, "the output cannot be written"); }

  const Context& context_;
  const TraceOptions& options_;
  Stop stop_;
  Filter filter_;
  std::optional<FaultWanted> wanted_;
  TraceSchema schema_;
  std::optional<FaultLives> lives_;
  uint64_t left_ = 0;  // 0: no end
  uint64_t count_ = 0;
  uint64_t lost_ = 0;
  bool ended_ = false;
  bool output_failed_ = false;
};

}  // namespace

void declare_trace(CLI::App& command, TraceOptions& options) {
  command.add_option("-e,--event", options.events, "Only these: NAME[,NAME...]");
  command.add_option("-s,--session", options.session, "Only what belongs to this session");
  CLI::Option* const output =
      command.add_option("-o,--output", options.output, "Record into this file");
  CLI::Option* const input =
      command.add_option("--from", options.input, "Read a recorded file instead of a runtime");
  command.add_flag("--past", options.past, "Begin with the events that the runtime still has");
  CLI::Option* const fault = command
                                 .add_option_function<std::string>(
                                     "--fault",
                                     [&options](const std::string& page) {
                                       options.fault = true;
                                       options.page = page;
                                     },
                                     "The life of a fault, step by step: SESSION:PAGE, "
                                     "SESSION:PLANE/PAGE; no value: the next one")
                                 ->expected(0, 1);
  command.add_option("-n,--count", options.count,
                     "End after so many events, or faults (default with --fault: 1; 0: no end)");
  input->excludes(output);
  fault->excludes(output);
  fault->excludes(command.get_option("--event"));
}

int run_trace(const Context& context) {
  return TraceCommand(context).run();
}

}  // namespace kvmm::ctl
