// SPDX-License-Identifier: Apache-2.0
#include "tools/kvctl/output.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>

namespace kvmm::ctl {
namespace {

// Characters as a terminal counts them: bytes that do not continue one.
size_t width_of(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

}  // namespace

std::string harmless(std::string_view text, bool lines) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    const bool c1 = c == 0xc2 && i + 1 < text.size() &&
                    static_cast<unsigned char>(text[i + 1]) >= 0x80 &&
                    static_cast<unsigned char>(text[i + 1]) < 0xa0;
    const bool kept = lines && (c == '\n' || c == '\t');
    if (((c < 0x20 || c == 0x7f) && !kept) || c1) {
      out += '?';
      i += c1 ? 1 : 0;
    } else {
      out += text[i];
    }
  }
  return out;
}

std::string human_bytes(uint64_t bytes) {
  constexpr std::string_view kUnits = "KMGTPE";
  if (bytes < 1024) {
    return std::to_string(bytes);
  }
  size_t unit = 0;
  uint64_t scale = 1024;
  while (unit + 1 < kUnits.size() && bytes / scale >= 1024) {
    scale *= 1024;
    ++unit;
  }
  const uint64_t whole = bytes / scale;
  const uint64_t tenth = bytes % scale / (scale / 1024) * 10 / 1024;
  return whole < 10 && tenth != 0 ? fmt::format("{}.{}{}", whole, tenth, kUnits[unit])
                                  : fmt::format("{}{}", whole, kUnits[unit]);
}

std::string human_duration(uint64_t ns) {
  const uint64_t s = ns / 1'000'000'000;
  if (s < 120) {
    return fmt::format("{}s", s);
  }
  if (s < 2 * 3600) {
    return fmt::format("{}m{:02}s", s / 60, s % 60);
  }
  if (s < 2 * 86400) {
    return fmt::format("{}h{:02}m", s / 3600, s / 60 % 60);
  }
  return fmt::format("{}d{:02}h", s / 86400, s / 3600 % 24);
}

std::string human_latency(uint64_t ns) {
  if (ns == 0) {
    return "-";
  }
  const auto tenths = [](uint64_t n, uint64_t unit, const char* name) {
    return n >= 10 * unit ? fmt::format("{}{}", n / unit, name)
                          : fmt::format("{}.{}{}", n / unit, n % unit * 10 / unit, name);
  };
  if (ns < 1'000'000) {
    return fmt::format("{}us", ns / 1000);
  }
  return ns < 1'000'000'000 ? tenths(ns, 1'000'000, "ms") : tenths(ns, 1'000'000'000, "s");
}

std::string bar(uint64_t part, uint64_t whole, size_t width) {
  const long double share = whole == 0 ? 0
                                       : static_cast<long double>(std::min(part, whole)) /
                                             static_cast<long double>(whole);
  const auto full = static_cast<size_t>(share * static_cast<long double>(width) + 0.5L);
  return "[" + std::string(full, '#') + std::string(width - full, '-') + "]";
}

std::string fit(std::string_view text, size_t width) {
  std::string out;
  size_t shown = 0;
  for (const char c : text) {
    const bool first = (static_cast<unsigned char>(c) & 0xc0) != 0x80;
    if (first && shown == width) {
      break;
    }
    shown += first ? 1 : 0;
    out += c;
  }
  return out + std::string(width - shown, ' ');
}

std::string history(const std::vector<uint64_t>& values, uint64_t top, size_t width, bool fine) {
  constexpr std::array<const char*, 9> kFine = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  constexpr std::array<const char*, 9> kPlain = {" ", ".", ",", ":", "-", "=", "+", "*", "#"};
  const auto& steps = fine ? kFine : kPlain;
  std::string out;
  for (size_t i = values.size() - std::min(width, values.size()); i < values.size(); ++i) {
    const long double share = top == 0 ? 0
                                       : static_cast<long double>(std::min(values[i], top)) /
                                             static_cast<long double>(top);
    // Something is never drawn as nothing.
    const auto step = static_cast<size_t>(share * 8 + 0.5L);
    out += steps[std::max<size_t>(step, values[i] != 0 ? 1 : 0)];
  }
  return out;
}

bool utf8_locale() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const char* const value = std::getenv(name);
    if (value != nullptr && *value != '\0') {
      const std::string_view text = value;
      return text.find("UTF-8") != std::string_view::npos ||
             text.find("utf8") != std::string_view::npos;
    }
  }
  return false;
}

Table::Table(std::vector<std::string> titles) {
  for (std::string& title : titles) {
    right_.push_back(title.starts_with('>'));
    title = right_.back() ? title.substr(1) : title;
  }
  rows_.push_back(std::move(titles));
}

void Table::add(std::vector<std::string> cells) {
  cells.resize(right_.size());
  for (std::string& cell : cells) {
    cell = cell.empty() ? "-" : harmless(cell);
  }
  rows_.push_back(std::move(cells));
}

std::string Table::text() const {
  std::vector<size_t> widths(right_.size());
  for (const auto& row : rows_) {
    for (size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], width_of(row[i]));
    }
  }
  std::string out;
  for (const auto& row : rows_) {
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string pad(widths[i] - width_of(row[i]), ' ');
      const bool last = i + 1 == row.size();
      out += right_[i] ? pad + row[i] : row[i] + (last ? "" : pad);
      out += last ? "\n" : "  ";
    }
  }
  return out;
}

std::optional<TerminalSize> terminal_size() {
  winsize size{};
  if (isatty(STDOUT_FILENO) != 1) {
    return std::nullopt;
  }
  const bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0;
  return known && size.ws_col > 0 ? TerminalSize{size.ws_col, size.ws_row} : TerminalSize{80, 24};
}

bool colour_wanted(const std::string& when) {
  if (when != "auto") {
    return when == "always";
  }
  const char* const none = std::getenv("NO_COLOR");
  const char* const terminal = std::getenv("TERM");
  return isatty(STDOUT_FILENO) == 1 && (none == nullptr || *none == '\0') && terminal != nullptr &&
         std::string_view(terminal) != "dumb";
}

bool write_out(std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = write(STDOUT_FILENO, text.data(), text.size());
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n <= 0) {
      return false;
    }
    text.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

}  // namespace kvmm::ctl
