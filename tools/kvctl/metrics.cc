// SPDX-License-Identifier: Apache-2.0
#include "tools/kvctl/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <sstream>

#include "tools/kvctl/output.h"
#include "tools/kvctl/snapshot.h"

namespace kvmm::ctl {
namespace {

// Upper edges of the exported buckets: powers of two, less one, because a bucket of the runtime
// ends before the next power. 1 us to 17 s.
constexpr unsigned kFirstEdge = 10;
constexpr unsigned kLastEdge = 34;

struct Help {
  const char* name;
  const char* help;
};

constexpr Help kCounters[] = {
    {"swap_in_bytes", "Bytes read from swap areas."},
    {"swap_out_bytes", "Bytes written to swap areas."},
    {"clean_drops", "Frames freed without a write, because they were proved unchanged."},
    {"reclaimed", "Frames freed by reclaim."},
    {"reclaim_cancelled", "Pages taken back by a touch while they were reclaimed."},
    {"reclaim_busy", "Pages that could not be unmapped because something holds them."},
    {"direct_reclaim", "Frames that a waiting fault had to reclaim for."},
    {"probes", "Pages unmapped to see whether their session runs."},
    {"probes_hit", "Probes that were touched."},
    {"readahead_pages", "Pages read ahead of a touch."},
    {"readahead_useful", "Pages read ahead and touched."},
    {"readahead_useless", "Pages read ahead and reclaimed before a touch."},
    {"prefetch_pages", "Pages brought by a prefetch."},
    {"prefetch_late", "Prefetched pages that were touched before they had arrived."},
    {"wrong_pages", "Pages that failed verification; none of them was mapped."},
    {"read_errors", "Reads of pages that failed."},
    {"write_errors", "Writes of pages that failed."},
    {"seal_violations", "Sealed pages whose bytes had changed."},
    {"poisoned", "Pages answered with an error."},
    {"no_memory", "Faults answered with an error because nothing could be reclaimed."},
    {"swap_full", "Pages that stayed resident because no slot was free."},
    {"map_retries", "Maps tried again because the frame was busy."},
    {"frames_split", "Huge frames that lost their huge page."},
    {"pages_dropped", "Pages whose content was given up on request."},
};

constexpr std::string_view kFaultPrefix = "faults_";

const char* help_of(const std::string& counter) {
  for (const Help& known : kCounters) {
    if (counter == known.name) {
      return known.help;
    }
  }
  return "See vmstat in docs/abi/root.md.";
}

bool is_metric_name(std::string_view name) {
  return !name.empty() && name.size() < 64 && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
  });
}

const char* unit_of(std::string_view name) {
  return name.ends_with("_bytes") ? "bytes" : name.ends_with("_seconds") ? "seconds" : "";
}

std::string escaped(std::string_view value) {
  std::string out;
  for (const char c : harmless(value)) {
    if (c == '\\' || c == '"') {
      out += '\\';
    }
    out += c;
  }
  return out;
}

std::string labels_text(const Metrics::Labels& labels) {
  std::string text;
  for (const auto& [name, value] : labels) {
    text += fmt::format("{}{}=\"{}\"", text.empty() ? "{" : ",", name, escaped(value));
  }
  return text.empty() ? "" : text + "}";
}

std::string seconds(uint64_t ns) {
  return fmt::format("{}.{:09}", ns / 1'000'000'000, ns % 1'000'000'000);
}

Metrics::Labels with(Metrics::Labels labels, std::string name, std::string value) {
  labels.emplace_back(std::move(name), std::move(value));
  return labels;
}

// Calls fn(name, rest) for each line "name rest".
template <class Fn>
void for_each_line(const std::string& text, Fn&& fn) {
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    const size_t blank = line.find(' ');
    if (blank != std::string::npos && is_metric_name(line.substr(0, blank))) {
      fn(line.substr(0, blank), line.substr(blank + 1));
    }
  }
}

bool parse_number(std::string_view text, uint64_t* to) {
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), *to);
  return failed == std::errc() && end == text.data() + text.size();
}

// "4242-0" of ".../4242-0.sock"
std::string process_of(const std::string& socket) {
  const std::string name = socket.substr(socket.rfind('/') + 1);
  return name.substr(0, name.rfind('.'));
}

// The text of an attribute; "" if the runtime has none of that name.
Result<std::string> text_of(Client& client, const std::string& path) {
  const Result<Item> item = client.get(path);
  if (!item) {
    return item.code() == Errc::kNotFound ? Result<std::string>(std::string()) : item.error();
  }
  return item->value.value_or("");
}

// Counters of a text of "name value": faults by kind, the others by their names.
void counters(Metrics* to, const std::string& prefix, const Metrics::Labels& labels,
              const std::string& text) {
  for_each_line(text, [&](const std::string& name, const std::string& rest) {
    uint64_t value = 0;
    if (!parse_number(rest, &value)) {
      return;
    }
    if (name.starts_with(kFaultPrefix)) {
      to->counter(prefix + "faults", "Touches of pages that were not mapped, by what they found.",
                  with(labels, "kind", name.substr(kFaultPrefix.size())), value);
    } else {
      to->counter(prefix + name, help_of(name), labels, value);
    }
  });
}

void tiers(Metrics* to, const Metrics::Labels& labels, const std::vector<Directory>& all) {
  for (const auto& [name, a] : all) {
    const Metrics::Labels of = with(labels, "tier", name);
    to->gauge("kvmm_tier_capacity_bytes", "Memory that the tier owns.", of, a.number("capacity"));
    to->gauge("kvmm_tier_used_bytes", "Frames that hold pages.", of, a.number("used"));
    to->gauge("kvmm_tier_free_bytes", "Frames that hold nothing.", of, a.number("free"));
    for (const char* level : {"min", "low", "high"}) {
      to->gauge("kvmm_tier_watermark_bytes", "Free memory at which reclaim starts or rests.",
                with(of, "level", level), a.number(std::string("watermark_") + level));
    }
  }
}

void swap_areas(Metrics* to, const Metrics::Labels& labels, const std::vector<Directory>& all) {
  for (const auto& [name, a] : all) {
    const Metrics::Labels of = with(labels, "area", name);
    to->gauge("kvmm_swap_area_size_bytes", "Bytes for pages in the swap area.", of,
              a.number("size"));
    to->gauge("kvmm_swap_area_used_bytes", "Bytes of slots in use.", of, a.number("used"));
    to->counter("kvmm_swap_area_errors", "I/O errors since swapon.", of, a.number("errors"));
    to->info("kvmm_swap_area", "Where the swap area is.",
             with(with(of, "path", a.text("path")), "priority", a.text("priority")));
  }
}

Result<void> sessions(Metrics* to, const Metrics::Labels& labels, Client& client,
                      const std::vector<Directory>& all) {
  to->gauge("kvmm_sessions", "Open sessions.", labels, all.size());
  for (const auto& [id, a] : all) {
    const Metrics::Labels of = with(labels, "session", id);
    to->info("kvmm_session", "What the session is called, and whose it is.",
             with(with(of, "name", a.text("name")), "tenant", a.text("tenant")));
    to->gauge("kvmm_session_resident_bytes", "Pages of the session that have a frame.", of,
              a.number("bytes_resident"));
    to->gauge("kvmm_session_swapped_bytes", "Pages that are only in a swap area.", of,
              a.number("bytes_swapped"));
    to->gauge("kvmm_session_discarded_bytes", "Pages whose content is gone.", of,
              a.number("bytes_discarded"));
    to->gauge("kvmm_session_tokens", "Tokens appended; raw sessions have 0.", of,
              a.number("tokens"));
    const Result<std::string> stat = text_of(client, "sessions/" + id + "/stat");
    if (!stat) {
      return stat.error();
    }
    counters(to, "kvmm_session_", of, *stat);
  }
  return {};
}

void latencies(Metrics* to, const Metrics::Labels& labels, const std::string& text) {
  constexpr std::string_view kFault = "fault_";
  for_each_line(text, [&](const std::string& name, const std::string& rest) {
    if (name.starts_with(kFault)) {
      to->histogram("kvmm_fault_duration_seconds",
                    "From the touch that the core read to the thread that runs on.",
                    with(labels, "kind", name.substr(kFault.size())), rest);
    } else {
      to->histogram("kvmm_" + name + "_duration_seconds",
                    name == "swap_in"    ? "From the read of a page begun to its content verified."
                    : name == "swap_out" ? "From the write of a page begun to written."
                                         : "See latency in docs/abi/root.md.",
                    labels, rest);
    }
  });
}

}  // namespace

// ------------------------------------------------------------------------------------ the text

Metrics::Family& Metrics::family(const std::string& name, const char* type, const char* help) {
  return families_.try_emplace(name, Family{type, help, {}}).first->second;
}

void Metrics::counter(const std::string& name, const char* help, const Labels& labels,
                      uint64_t value) {
  family(name, "counter", help).samples +=
      fmt::format("{}_total{} {}\n", name, labels_text(labels), value);
}

void Metrics::gauge(const std::string& name, const char* help, const Labels& labels,
                    uint64_t value) {
  family(name, "gauge", help).samples += fmt::format("{}{} {}\n", name, labels_text(labels), value);
}

void Metrics::gauge_seconds(const std::string& name, const char* help, const Labels& labels,
                            uint64_t ns) {
  family(name, "gauge", help).samples +=
      fmt::format("{}{} {}\n", name, labels_text(labels), seconds(ns));
}

void Metrics::info(const std::string& name, const char* help, const Labels& labels) {
  family(name, "info", help).samples += fmt::format("{}_info{} 1\n", name, labels_text(labels));
}

void Metrics::histogram(const std::string& name, const char* help, const Labels& labels,
                        std::string_view line) {
  uint64_t sum = 0;
  std::map<uint64_t, uint64_t> buckets;  // largest value -> how many
  std::istringstream in{std::string(line)};
  bool behind_le = false;
  for (std::string word, before; in >> word; before = word) {
    if (before == "sum" && !behind_le && !parse_number(word, &sum)) {
      return;
    }
    uint64_t le = 0;
    uint64_t n = 0;
    if (behind_le) {
      const std::string_view all = word;
      const size_t colon = all.find(':');
      if (colon == std::string_view::npos || !parse_number(all.substr(0, colon), &le) ||
          !parse_number(all.substr(colon + 1), &n)) {
        return;
      }
      buckets[le] += n;
    }
    behind_le = behind_le || word == "le";
  }
  if (!behind_le) {
    return;
  }
  std::string& out = family(name, "histogram", help).samples;
  uint64_t count = 0;
  auto next = buckets.begin();
  for (unsigned edge = kFirstEdge; edge <= kLastEdge; ++edge) {
    const uint64_t ns = (uint64_t{1} << edge) - 1;
    for (; next != buckets.end() && next->first <= ns; ++next) {
      count += next->second;
    }
    out +=
        fmt::format("{}_bucket{} {}\n", name, labels_text(with(labels, "le", seconds(ns))), count);
  }
  for (; next != buckets.end(); ++next) {
    count += next->second;
  }
  out += fmt::format("{}_bucket{} {}\n", name, labels_text(with(labels, "le", "+Inf")), count);
  out += fmt::format("{}_count{} {}\n", name, labels_text(labels), count);
  out += fmt::format("{}_sum{} {}\n", name, labels_text(labels), seconds(sum));
}

void Metrics::totals(uint64_t answered, uint64_t silent) {
  gauge("kvmm_runtimes", "Runtimes that answered.", {}, answered);
  gauge("kvmm_runtimes_silent", "Runtimes that did not answer in time, or not properly.", {},
        silent);
}

std::string Metrics::text() const {
  std::string out;
  for (const auto& [name, f] : families_) {
    out += fmt::format("# TYPE {} {}\n", name, f.type);
    if (const std::string_view unit = unit_of(name); !unit.empty()) {
      out += fmt::format("# UNIT {} {}\n", name, unit);
    }
    out += fmt::format("# HELP {} {}\n", name, f.help) + f.samples;
  }
  return out + "# EOF\n";
}

// ------------------------------------------------------------------------------------ collecting

Result<void> collect(Runtime& runtime, Metrics* metrics) {
  Client& client = runtime.client;
  const Metrics::Labels labels = {{"runtime", runtime.hello.name},
                                  {"process", process_of(client.path())}};
  const Result<Snapshot> now = take_snapshot(client, true);
  if (!now) {
    return now.error();
  }
  // Read first, so that a runtime that ends meanwhile leaves nothing behind.
  Metrics all = *metrics;
  all.info("kvmm_runtime", "The library that the engine has loaded.",
           with(labels, "version", runtime.hello.version));
  all.gauge_seconds("kvmm_uptime_seconds", "Time since the runtime was opened.", labels,
                    now->uptime_ns);
  for (const char* path : {"vmstat", "latency", "trace/recorded"}) {
    const Result<std::string> text = text_of(client, path);
    if (!text) {
      return text.error();
    }
    uint64_t recorded = 0;
    if (path == std::string_view("vmstat")) {
      counters(&all, "kvmm_", labels, *text);
    } else if (path == std::string_view("latency")) {
      latencies(&all, labels, *text);
    } else if (parse_number(*text, &recorded)) {
      all.counter("kvmm_trace_events", "Events recorded in the trace.", labels, recorded);
    }
  }
  tiers(&all, labels, now->tiers);
  swap_areas(&all, labels, now->swap);
  if (auto ok = sessions(&all, labels, client, now->sessions); !ok) {
    return ok;
  }
  *metrics = std::move(all);
  return {};
}

Metrics collect_all(const Context& context) {
  Metrics metrics;
  std::vector<std::string> silent;
  uint64_t answered = 0;
  uint64_t failed = 0;
  for (Runtime& runtime : context.runtimes(&silent)) {
    if (!context.options.runtime.empty() && !is_meant(runtime, context.options.runtime)) {
      continue;
    }
    const Result<void> done = collect(runtime, &metrics);
    answered += done ? 1 : 0;
    failed += done || done.code() == Errc::kDeviceGone ? 0 : 1;
  }
  metrics.totals(answered, silent.size() + failed);
  return metrics;
}

}  // namespace kvmm::ctl
