// SPDX-License-Identifier: Apache-2.0
//
// What an attribute is (`AttrDef`) and how its values are read from and written as text.
//
//   constexpr AttrDef kWatermarkLow = {.pattern = "tiers/<tier>/watermark_low",
//                                      .mode = AttrMode::kReadWrite,
//                                      .type = AttrType::kBytes,
//                                      .max = 1 * kTiB,
//                                      .fallback = "(1/16 of capacity)",
//                                      .help = "reclaim starts below this much free memory"};
//
//   type      number holds   accepted text                        written as
//   u64       the count      decimal digits                       digits
//   bytes     bytes          64K 64KiB 1.5G 4096 4096B            largest unit that divides it:
//   64KiB duration  nanoseconds    150us 2ms 1.5s 3min 1h 0             largest unit up to s: 150us
//   bool      0 or 1         on off true false yes no 1 0         on, off
//   enum      index          one of `choices`                     the choice
//   string    -              one line, <= 4096 bytes              as is
//   text      -              several lines, <= 64 KiB when set    as is
//
// Invariants
//   1. parse_value(def, format_value(def, v)) == v for every v inside the range: what `kvctl get
//   -r`
//      prints can be read back.
//   2. A refused text changes nothing; the error says what is accepted, and the range if that was
//   it.
//
// Thread safety: values and pure functions. An `AttrDef` has static storage and never changes.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/result.h"

namespace kvmm {

enum class AttrMode : uint8_t { kReadOnly, kReadWrite, kWriteOnly };
enum class AttrType : uint8_t { kU64, kBytes, kDuration, kBool, kEnum, kString, kText };
// stable: kept for all 1.x; testing: may change with a line in the change log; debug: no promise.
enum class AttrStability : uint8_t { kStable, kTesting, kDebug };
// Whether a config file may hold it. kNever: it belongs to something that lives only while running
// (a session). kAtStart: read when the runtime opens, also if the attribute is read-only later.
enum class AttrConfig : uint8_t { kByMode, kNever, kAtStart };

inline constexpr uint64_t kAttrNoMax = UINT64_MAX;
inline constexpr size_t kAttrStringMax = 4096;     // bytes of a string
inline constexpr size_t kAttrTextMax = 64 * 1024;  // bytes of a text when it is set

// Declared beside the code that uses it, in static storage.
struct AttrDef {
  const char* pattern;  // path; `<x>` stands for any one component
  AttrMode mode = AttrMode::kReadOnly;
  AttrType type = AttrType::kU64;
  const char* unit =
      "";            // "pages", "threads"; "" for bytes, duration and texts: they say it themselves
  uint64_t min = 0;  // u64, bytes, duration: inclusive
  uint64_t max = kAttrNoMax;
  std::span<const char* const> choices = {};  // enum
  const char* fallback = "";  // default as text; "(...)" if it depends on the machine; "" if none
  const char* help = "";      // one sentence
  AttrStability stability = AttrStability::kTesting;
  AttrConfig config = AttrConfig::kByMode;

  // kInvalid with a sentence: no pattern or help, a bad component, min > max, an enum without
  // choices, a default that is refused.
  Result<void> validate() const;
  // The last component of the pattern.
  std::string_view name() const;
  // Whether a line of a config file may set it.
  bool configurable() const;
};

// A value by its type: `number` (u64, bytes, duration, bool, enum) or `text` (string, text).
struct AttrValue {
  uint64_t number = 0;
  std::string text = {};

  static AttrValue of(uint64_t n) { return {.number = n}; }
  static AttrValue of(std::string s) { return {.text = std::move(s)}; }
  bool operator==(const AttrValue&) const = default;
};

// Surrounding blanks do not count (but do in string and text). Errors: kInvalid (not a value of
// that type, unknown or ambiguous unit, too long, control characters), kRange (outside min..max).
Result<AttrValue> parse_value(const AttrDef& def, std::string_view text);
std::string format_value(const AttrDef& def, const AttrValue& value);

// "64KiB", exact; "1536" if no unit divides it.
std::string format_bytes(uint64_t bytes);
// "150us", exact.
std::string format_duration(uint64_t ns);
// "rw", "bytes", "stable": the words of docs/abi. Never null.
const char* mode_name(AttrMode mode) noexcept;
const char* type_name(AttrType type) noexcept;
const char* stability_name(AttrStability stability) noexcept;
// Whether `AttrValue::number` is what counts.
bool is_numeric(AttrType type) noexcept;
// "4KiB..2MiB", "on|off", "normal|idle", "any".
std::string range_text(const AttrDef& def);

// Paths: components of [A-Za-z0-9._:+-] joined by '/', no empty one, no "." and "..".
bool is_path_component(std::string_view name) noexcept;
std::vector<std::string_view> split_path(std::string_view path);
// Whether `path` is an instance of `pattern`.
bool path_matches(std::string_view pattern, std::string_view path);
// The candidate with the fewest edits from `name`, if that is near enough to be a slip; else "".
std::string nearest_name(std::string_view name, std::span<const std::string> candidates);
// Order of names in listings: runs of digits count as numbers, so 2 stands before 10. <0, 0, >0.
int compare_names(std::string_view a, std::string_view b) noexcept;

}  // namespace kvmm
