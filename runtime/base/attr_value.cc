// SPDX-License-Identifier: Apache-2.0
#include "runtime/base/attr_value.h"

#include <algorithm>
#include <array>
#include <numeric>

namespace kvmm {
namespace {

struct Unit {
  std::string_view suffix;
  uint64_t scale;
};

// Written with the first that divides; read with any. A lone letter is binary, as in the kernel.
constexpr std::array<Unit, 14> kByteUnits = {{{"TiB", 1ull << 40},
                                              {"GiB", 1ull << 30},
                                              {"MiB", 1ull << 20},
                                              {"KiB", 1ull << 10},
                                              {"T", 1ull << 40},
                                              {"G", 1ull << 30},
                                              {"M", 1ull << 20},
                                              {"K", 1ull << 10},
                                              {"t", 1ull << 40},
                                              {"g", 1ull << 30},
                                              {"m", 1ull << 20},
                                              {"k", 1ull << 10},
                                              {"B", 1},
                                              {"", 1}}};
constexpr std::array<Unit, 6> kTimeUnits = {{{"s", 1000000000ull},
                                             {"ms", 1000000ull},
                                             {"us", 1000ull},
                                             {"ns", 1ull},
                                             {"min", 60000000000ull},
                                             {"h", 3600000000000ull}}};

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

std::string_view trim(std::string_view s) {
  constexpr std::string_view kBlank = " \t\r\n";
  const size_t from = s.find_first_not_of(kBlank);
  if (from == std::string_view::npos) {
    return {};
  }
  return s.substr(from, s.find_last_not_of(kBlank) - from + 1);
}

std::string quoted(std::string_view s) {
  // What came from outside is echoed short and without control characters.
  std::string out = "'";
  for (const char c : s.substr(0, 64)) {
    out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  }
  return out + (s.size() > 64 ? "...'" : "'");
}

Error bad(std::string_view text, const std::string& accepted) {
  return Error(Errc::kInvalid, quoted(text) + " is not accepted: " + accepted);
}

Error too_large(std::string_view text) {
  return Error(Errc::kRange, quoted(text) + " does not fit in 64 bits");
}

// Digits, then a fraction if `fraction` is allowed: value = whole + part / scale_of_part.
struct Decimal {
  uint64_t whole = 0;
  uint64_t part = 0;
  uint64_t part_scale = 1;
  std::string_view rest;
};

Result<Decimal> read_decimal(std::string_view text, const std::string& accepted) {
  Decimal d;
  size_t i = 0;
  for (; i < text.size() && is_digit(text[i]); ++i) {
    const auto digit = static_cast<uint64_t>(text[i] - '0');
    if (__builtin_mul_overflow(d.whole, 10, &d.whole) ||
        __builtin_add_overflow(d.whole, digit, &d.whole)) {
      return too_large(text);
    }
  }
  if (i == 0) {
    return bad(text, accepted);
  }
  if (i < text.size() && text[i] == '.') {
    const size_t first = ++i;
    for (; i < text.size() && is_digit(text[i]); ++i) {
      if (i - first >= 9) {
        return bad(text, "at most 9 digits after the point");
      }
      d.part = d.part * 10 + static_cast<uint64_t>(text[i] - '0');
      d.part_scale *= 10;
    }
    if (i == first) {
      return bad(text, accepted);
    }
  }
  d.rest = trim(text.substr(i));
  return d;
}

Result<uint64_t> scale(std::string_view text, const Decimal& d, uint64_t unit) {
  uint64_t whole = 0;
  if (__builtin_mul_overflow(d.whole, unit, &whole)) {
    return too_large(text);
  }
  // part < 10^9 and unit < 2^42 do not fit a product in 64 bits: divide out what they share first.
  const uint64_t shared = std::gcd(unit, d.part_scale);
  const uint64_t rest = d.part_scale / shared;
  if (d.part % rest != 0) {
    return bad(text, "it is not a whole number of the smallest unit");
  }
  const uint64_t part = d.part / rest * (unit / shared);
  if (__builtin_add_overflow(whole, part, &whole)) {
    return too_large(text);
  }
  return whole;
}

template <size_t N>
Result<uint64_t> read_with_unit(std::string_view text, const std::array<Unit, N>& units,
                                const std::string& accepted) {
  Result<Decimal> d = read_decimal(text, accepted);
  if (!d) {
    return std::move(d).error();
  }
  for (const Unit& u : units) {
    if (d->rest == u.suffix) {
      return scale(text, *d, u.scale);
    }
  }
  return bad(text, "unknown unit " + quoted(d->rest) + "; " + accepted);
}

Result<uint64_t> read_duration(std::string_view text) {
  static const std::string kAccepted =
      "a duration has a unit: ns, us, ms, s, min or h, as in 150us";
  if (text == "0") {
    return 0;
  }
  return read_with_unit(text, kTimeUnits, kAccepted);
}

Result<uint64_t> read_bytes(std::string_view text) {
  static const std::string kAccepted =
      "a size is in bytes or has a unit: K, KiB, M, MiB, G, GiB, T or TiB, all powers of 1024 (KB "
      "and MB are ambiguous)";
  return read_with_unit(text, kByteUnits, kAccepted);
}

Result<uint64_t> read_u64(const AttrDef& def, std::string_view text) {
  std::string accepted = "a whole number is needed";
  if (*def.unit != '\0') {
    accepted += std::string(" (of ") + def.unit + ", without the unit)";
  }
  Result<Decimal> d = read_decimal(text, accepted);
  if (!d) {
    return std::move(d).error();
  }
  if (!d->rest.empty() || d->part_scale != 1) {
    return bad(text, accepted);
  }
  return d->whole;
}

Result<uint64_t> read_bool(std::string_view text) {
  for (const char* yes : {"on", "true", "yes", "1"}) {
    if (text == yes) {
      return 1;
    }
  }
  for (const char* no : {"off", "false", "no", "0"}) {
    if (text == no) {
      return 0;
    }
  }
  return bad(text, "on or off is needed");
}

Result<uint64_t> read_enum(const AttrDef& def, std::string_view text) {
  for (size_t i = 0; i < def.choices.size(); ++i) {
    if (text == def.choices[i]) {
      return i;
    }
  }
  return bad(text, "one of " + range_text(def) + " is needed");
}

Result<AttrValue> read_string(const AttrDef& def, std::string_view text) {
  const bool lines = def.type == AttrType::kText;
  const size_t most = lines ? kAttrTextMax : kAttrStringMax;
  if (text.size() > most) {
    return Error(Errc::kRange, "it is longer than " + std::to_string(most) + " bytes");
  }
  for (const char c : text) {
    const bool control = static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
    if (control && !(lines && (c == '\n' || c == '\t'))) {
      return Error(Errc::kInvalid, lines ? "control characters are not accepted"
                                         : "one line without control characters is needed");
    }
  }
  return AttrValue::of(std::string(text));
}

std::string format_number(const AttrDef& def, uint64_t n) {
  switch (def.type) {
    case AttrType::kBytes:
      return format_bytes(n);
    case AttrType::kDuration:
      return format_duration(n);
    case AttrType::kBool:
      return n != 0 ? "on" : "off";
    case AttrType::kEnum:
      return n < def.choices.size() ? def.choices[n] : "invalid";
    default:
      return std::to_string(n);
  }
}

bool is_placeholder(std::string_view component) {
  return component.size() > 2 && component.front() == '<' && component.back() == '>';
}

}  // namespace

Result<void> AttrDef::validate() const {
  const std::string who = pattern == nullptr ? "(null)" : pattern;
  const auto refuse = [&](const std::string& why) {
    return Error(Errc::kInvalid, who + ": " + why);
  };
  if (pattern == nullptr || *pattern == '\0') {
    return refuse("an attribute needs a pattern");
  }
  const std::vector<std::string_view> parts = split_path(pattern);
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::string_view part = parts[i];
    const bool inner = i + 1 < parts.size();
    const bool good = is_placeholder(part)
                          ? inner && is_path_component(part.substr(1, part.size() - 2))
                          : is_path_component(part);
    if (!good) {
      return refuse("bad component " + quoted(part));
    }
  }
  if (help == nullptr || *help == '\0') {
    return refuse("an attribute needs a sentence of help");
  }
  if (min > max) {
    return refuse("min is above max");
  }
  if ((type == AttrType::kEnum) == choices.empty()) {
    return refuse("an enum, and nothing else, has choices");
  }
  if (*fallback != '\0' && *fallback != '(') {
    const Result<AttrValue> value = parse_value(*this, fallback);
    if (!value) {
      return refuse("its default is refused: " + value.error().detail);
    }
  }
  return {};
}

std::string_view AttrDef::name() const {
  const std::string_view all = pattern;
  const size_t slash = all.rfind('/');
  return slash == std::string_view::npos ? all : all.substr(slash + 1);
}

bool AttrDef::configurable() const {
  switch (config) {
    case AttrConfig::kNever:
      return false;
    case AttrConfig::kAtStart:
      return true;
    default:
      return mode == AttrMode::kReadWrite;
  }
}

Result<AttrValue> parse_value(const AttrDef& def, std::string_view text) {
  if (!is_numeric(def.type)) {
    return read_string(def, text);
  }
  const std::string_view word = trim(text);
  Result<uint64_t> n = [&]() -> Result<uint64_t> {
    switch (def.type) {
      case AttrType::kBytes:
        return read_bytes(word);
      case AttrType::kDuration:
        return read_duration(word);
      case AttrType::kBool:
        return read_bool(word);
      case AttrType::kEnum:
        return read_enum(def, word);
      default:
        return read_u64(def, word);
    }
  }();
  if (!n) {
    return std::move(n).error();
  }
  const bool ranged = def.type != AttrType::kBool && def.type != AttrType::kEnum;
  if (ranged && (*n < def.min || *n > def.max)) {
    return Error(Errc::kRange, quoted(word) + " is outside " + range_text(def));
  }
  return AttrValue::of(*n);
}

std::string format_value(const AttrDef& def, const AttrValue& value) {
  return is_numeric(def.type) ? format_number(def, value.number) : value.text;
}

std::string format_bytes(uint64_t bytes) {
  for (const Unit& u : kByteUnits) {
    if (u.scale > 1 && bytes >= u.scale && bytes % u.scale == 0) {
      return std::to_string(bytes / u.scale) + std::string(u.suffix);
    }
  }
  return std::to_string(bytes);
}

std::string format_duration(uint64_t ns) {
  if (ns == 0) {
    return "0";
  }
  for (const Unit& u : std::span(kTimeUnits).first(3)) {
    if (ns >= u.scale && ns % u.scale == 0) {
      return std::to_string(ns / u.scale) + std::string(u.suffix);
    }
  }
  return std::to_string(ns) + "ns";
}

const char* mode_name(AttrMode mode) noexcept {
  constexpr std::array<const char*, 3> kNames = {"ro", "rw", "wo"};
  return kNames.at(static_cast<size_t>(mode));
}

const char* type_name(AttrType type) noexcept {
  constexpr std::array<const char*, 7> kNames = {"u64",  "bytes",  "duration", "bool",
                                                 "enum", "string", "text"};
  return kNames.at(static_cast<size_t>(type));
}

const char* stability_name(AttrStability stability) noexcept {
  constexpr std::array<const char*, 3> kNames = {"stable", "testing", "debug"};
  return kNames.at(static_cast<size_t>(stability));
}

bool is_numeric(AttrType type) noexcept {
  return type != AttrType::kString && type != AttrType::kText;
}

std::string range_text(const AttrDef& def) {
  if (def.type == AttrType::kBool) {
    return "on|off";
  }
  if (def.type == AttrType::kEnum) {
    std::string all;
    for (const char* choice : def.choices) {
      all += all.empty() ? choice : std::string("|") + choice;
    }
    return all;
  }
  if (!is_numeric(def.type) || (def.min == 0 && def.max == kAttrNoMax)) {
    return "any";
  }
  return format_number(def, def.min) + ".." +
         (def.max == kAttrNoMax ? std::string() : format_number(def, def.max));
}

bool is_path_component(std::string_view name) noexcept {
  if (name.empty() || name == "." || name == ".." || name.size() > 255) {
    return false;
  }
  return std::all_of(name.begin(), name.end(), [](char c) {
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           std::string_view("._:+-").find(c) != std::string_view::npos;
  });
}

std::vector<std::string_view> split_path(std::string_view path) {
  std::vector<std::string_view> parts;
  while (!path.empty()) {
    const size_t slash = path.find('/');
    parts.push_back(path.substr(0, slash));
    if (slash == std::string_view::npos) {
      break;
    }
    path.remove_prefix(slash + 1);
    if (path.empty()) {
      parts.push_back(path);  // a trailing slash is an empty, hence a bad, component
    }
  }
  return parts;
}

bool path_matches(std::string_view pattern, std::string_view path) {
  const std::vector<std::string_view> want = split_path(pattern);
  const std::vector<std::string_view> have = split_path(path);
  if (want.size() != have.size()) {
    return false;
  }
  for (size_t i = 0; i < want.size(); ++i) {
    if (is_placeholder(want[i]) ? !is_path_component(have[i]) : want[i] != have[i]) {
      return false;
    }
  }
  return true;
}

std::string nearest_name(std::string_view name, std::span<const std::string> candidates) {
  constexpr size_t kLongest = 255;
  if (name.size() > kLongest) {
    return "";
  }
  std::string best;
  size_t best_edits = std::max<size_t>(2, name.size() / 3) + 1;
  std::vector<size_t> row;
  for (const std::string& candidate : candidates) {
    if (candidate.size() > kLongest) {
      continue;
    }
    row.resize(candidate.size() + 1);
    std::iota(row.begin(), row.end(), size_t{0});
    for (size_t i = 0; i < name.size(); ++i) {  // Levenshtein, one row
      size_t diagonal = row[0];
      row[0] = i + 1;
      for (size_t j = 0; j < candidate.size(); ++j) {
        const size_t change = diagonal + (name[i] == candidate[j] ? 0 : 1);
        diagonal = row[j + 1];
        row[j + 1] = std::min({change, row[j] + 1, row[j + 1] + 1});
      }
    }
    if (row.back() < best_edits && row.back() < candidate.size()) {
      best_edits = row.back();
      best = candidate;
    }
  }
  return best;
}

int compare_names(std::string_view a, std::string_view b) noexcept {
  size_t i = 0;
  size_t j = 0;
  while (i < a.size() && j < b.size()) {
    if (is_digit(a[i]) && is_digit(b[j])) {
      const auto run = [](std::string_view s, size_t at) {
        size_t end = at;
        while (end < s.size() && is_digit(s[end])) {
          ++end;
        }
        std::string_view digits = s.substr(at, end - at);
        digits.remove_prefix(std::min(digits.find_first_not_of('0'), digits.size() - 1));
        return std::pair(digits, end);
      };
      const auto [left, left_end] = run(a, i);
      const auto [right, right_end] = run(b, j);
      if (left.size() != right.size()) {
        return left.size() < right.size() ? -1 : 1;
      }
      if (const int order = left.compare(right); order != 0) {
        return order;
      }
      i = left_end;
      j = right_end;
      continue;
    }
    if (a[i] != b[j]) {
      return static_cast<unsigned char>(a[i]) < static_cast<unsigned char>(b[j]) ? -1 : 1;
    }
    ++i;
    ++j;
  }
  if (i < a.size() || j < b.size()) {
    return i < a.size() ? 1 : -1;
  }
  return a.compare(b);  // "01" and "1" differ all the same
}

}  // namespace kvmm
