// SPDX-License-Identifier: Apache-2.0
#include "drivers/options.h"

#include <algorithm>
#include <charconv>
#include <limits>

namespace kvmm {

Result<uint64_t> parse_number(std::string_view text) {
  uint64_t v = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (ec != std::errc() || end != text.data() + text.size() || text.empty()) {
    return Errc::kInvalid;
  }
  return v;
}

Result<Options> Options::parse(std::string_view driver, std::string_view text,
                               std::initializer_list<std::string_view> known) {
  Options o;
  o.driver_ = driver;
  while (!text.empty()) {
    const size_t comma = text.find(',');
    const std::string_view item = text.substr(0, comma);
    text = comma == std::string_view::npos ? std::string_view() : text.substr(comma + 1);
    const size_t equals = item.find('=');
    const std::string_view key = item.substr(0, equals);
    if (equals == std::string_view::npos ||
        std::find(known.begin(), known.end(), key) == known.end()) {
      std::string names;
      for (std::string_view k : known) {
        names += (names.empty() ? "" : ", ") + std::string(k);
      }
      return Error(Errc::kInvalid,
                   o.driver_ + ": '" + std::string(item) +
                       "' is no option of this driver; key=value with one of: " + names);
    }
    o.values_.emplace_back(key, item.substr(equals + 1));
  }
  return o;
}

const std::string* Options::find(std::string_view key) const {
  const std::string* found = nullptr;
  for (const auto& [k, v] : values_) {
    if (k == key) {
      found = &v;
    }
  }
  return found;
}

Error Options::refuse(std::string_view key, std::string_view value, const std::string& want) const {
  return Error(Errc::kInvalid, driver_ + ": option " + std::string(key) + "=" + std::string(value) +
                                   ": wanted " + want);
}

Result<uint64_t> Options::number(std::string_view key, uint64_t fallback, uint64_t min,
                                 uint64_t max) const {
  const std::string* text = find(key);
  if (text == nullptr) {
    return fallback;
  }
  auto v = parse_number(*text);
  if (!v || *v < min || *v > max) {
    return refuse(key, *text,
                  "a number from " + std::to_string(min) + " to " + std::to_string(max));
  }
  return v;
}

Result<Bytes> Options::bytes(std::string_view key, Bytes fallback) const {
  const std::string* text = find(key);
  if (text == nullptr) {
    return fallback;
  }
  std::string_view digits = *text;
  constexpr std::string_view kSuffixes = "KMGT";
  unsigned shift = 0;
  if (!digits.empty()) {
    const size_t suffix = kSuffixes.find(digits.back());
    if (suffix != std::string_view::npos) {
      shift = static_cast<unsigned>(10 * (suffix + 1));
      digits.remove_suffix(1);
    }
  }
  auto v = parse_number(digits);
  constexpr uint64_t kMax = std::numeric_limits<int64_t>::max();  // off_t
  if (!v || *v > (kMax >> shift)) {
    return refuse(key, *text, "a number of bytes, such as 4096, 64K, 512M, 8G or 1T");
  }
  return Bytes(*v << shift);
}

Result<bool> Options::flag(std::string_view key, bool fallback) const {
  auto v = number(key, fallback ? 1 : 0, 0, 1);
  if (!v) {
    return v.error();
  }
  return *v == 1;
}

std::vector<std::string> Options::all(std::string_view key) const {
  std::vector<std::string> out;
  for (const auto& [k, v] : values_) {
    if (k == key) {
      out.push_back(v);
    }
  }
  return out;
}

}  // namespace kvmm
