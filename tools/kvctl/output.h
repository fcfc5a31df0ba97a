// SPDX-License-Identifier: Apache-2.0
//
// What kvctl prints: text made harmless for terminals, sizes for people, tables.
//
// Thread safety: functions without state, and values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kvmm::ctl {

// Names come from engines and may hold anything: control characters (C0, DEL, and C1 in UTF-8)
// become '?', but for newlines and tabs if `lines`.
std::string harmless(std::string_view text, bool lines = false);

// "0", "512", "1.5K", "64K", "192M", "1.2G": at most one decimal, binary units.
std::string human_bytes(uint64_t bytes);
// "93s", "2m05s", "3h07m", "4d02h".
std::string human_duration(uint64_t ns);
// "85us", "1.2ms", "3.4s": at most one decimal; "-" for 0, which no I/O takes.
std::string human_latency(uint64_t ns);
// "[#####---------------]", `width` characters between the brackets.
std::string bar(uint64_t part, uint64_t whole, size_t width);

// Exactly `width` characters: cut, or padded with blanks on the right.
std::string fit(std::string_view text, size_t width);
// A bar a value, 0 to `top`, lowest to highest; the last `width` values. `fine`: eighths of a
// character in UTF-8, else ASCII.
std::string history(const std::vector<uint64_t>& values, uint64_t top, size_t width, bool fine);
// Whether the locale's characters are UTF-8.
bool utf8_locale();

// Columns as wide as their widest cell, two blanks between. Right-aligned columns start with '>'
// in their title. The last column is not padded.
class Table {
 public:
  explicit Table(std::vector<std::string> titles);
  // REQUIRES: as many cells as titles. Cells are made harmless.
  void add(std::vector<std::string> cells);
  std::string text() const;
  bool empty() const { return rows_.size() == 1; }

 private:
  std::vector<bool> right_;
  std::vector<std::vector<std::string>> rows_;  // the titles first
};

struct TerminalSize {
  size_t columns;
  size_t lines;
};
// Of standard output; none: it is no terminal.
std::optional<TerminalSize> terminal_size();
// `when` is always, never or auto: auto is a terminal that can, unless NO_COLOR is set.
bool colour_wanted(const std::string& when);

// Writes all of it to standard output; false: cannot (closed, full disk), errno says why.
bool write_out(std::string_view text);

}  // namespace kvmm::ctl
