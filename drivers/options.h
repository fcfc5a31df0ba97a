// SPDX-License-Identifier: Apache-2.0
//
// A device's options: "key=value,key=value" from a configuration file, checked before use.
//
//   auto o = Options::parse("uring", info.options, {"depth", "size"});
//   auto depth = o->number("depth", 32, 1, 4096);   // "depth=0" -> kInvalid, says the range
//   auto size = o->bytes("size", Bytes(0));         // "size=8G", "size=4096"
//
// Invariants
//   1. A key that the driver does not know is an error, never ignored: a misspelt option would
//      otherwise leave its default in force unseen.
//   2. The last of two values of one key counts, except for `all`, which returns them in order.
//
// Thread safety: a value.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/base/units.h"

namespace kvmm {

class Options {
 public:
  // `driver` is for the texts of errors. Errors: kInvalid (no '=', an empty or unknown key).
  static Result<Options> parse(std::string_view driver, std::string_view text,
                               std::initializer_list<std::string_view> known);

  // A decimal number in [min, max]. Errors: kInvalid (not a number, or out of range).
  Result<uint64_t> number(std::string_view key, uint64_t fallback, uint64_t min,
                          uint64_t max) const;
  // A decimal number of bytes with an optional suffix K, M, G or T (powers of 1024).
  // Errors: kInvalid (not a number, or above 2^63 - 1).
  Result<Bytes> bytes(std::string_view key, Bytes fallback) const;
  // "0" or "1". Errors: kInvalid.
  Result<bool> flag(std::string_view key, bool fallback) const;
  // Every value of `key`, in order.
  std::vector<std::string> all(std::string_view key) const;

 private:
  const std::string* find(std::string_view key) const;
  Error refuse(std::string_view key, std::string_view value, const std::string& want) const;

  std::string driver_;
  std::vector<std::pair<std::string, std::string>> values_;
};

// A decimal number, all of `text`. Errors: kInvalid (anything else, or above 2^64 - 1).
Result<uint64_t> parse_number(std::string_view text);

}  // namespace kvmm
