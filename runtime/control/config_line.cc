// SPDX-License-Identifier: Apache-2.0
#include "runtime/control/config_line.h"

#include <algorithm>
#include <array>
#include <charconv>

namespace kvmm {
namespace {

constexpr std::string_view kBlank = " \t\r";
constexpr std::array<std::pair<char, char>, 5> kEscapes = {
    {{'n', '\n'}, {'t', '\t'}, {'r', '\r'}, {'"', '"'}, {'\\', '\\'}}};

std::string_view trim(std::string_view s) {
  const size_t from = s.find_first_not_of(kBlank);
  if (from == std::string_view::npos) {
    return {};
  }
  return s.substr(from, s.find_last_not_of(kBlank) - from + 1);
}

bool is_control(char c) {
  return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
}

// C1 control characters in UTF-8: a terminal may obey them as it obeys ESC.
bool is_c1(std::string_view text, size_t i) {
  const auto byte = [&](size_t at) { return static_cast<unsigned char>(text[at]); };
  return byte(i) == 0xc2 && i + 1 < text.size() && byte(i + 1) >= 0x80 && byte(i + 1) < 0xa0;
}

Result<char> read_escape(std::string_view text, size_t& at) {
  const char letter = text[at];
  for (const auto& [name, meaning] : kEscapes) {
    if (letter == name) {
      return meaning;
    }
  }
  unsigned code = 0;
  const char* const digits = text.data() + at + 1;
  if (letter == 'x' && text.size() - at > 2 &&
      std::from_chars(digits, digits + 2, code, 16).ptr == digits + 2) {
    at += 2;
    return static_cast<char>(code);
  }
  return Error(Errc::kInvalid, "unknown escape in a quoted value");
}

// `text` begins with '"'.
Result<std::string> read_quoted(std::string_view text) {
  std::string value;
  for (size_t i = 1; i < text.size(); ++i) {
    if (text[i] == '"') {
      const std::string_view rest = trim(text.substr(i + 1));
      if (!rest.empty() && rest.front() != '#') {
        return Error(Errc::kInvalid, "something stands behind the closing quote");
      }
      return value;
    }
    if (text[i] != '\\') {
      value += text[i];
      continue;
    }
    if (++i == text.size()) {
      break;
    }
    const Result<char> c = read_escape(text, i);
    if (!c) {
      return c.error();
    }
    value += *c;
  }
  return Error(Errc::kInvalid, "the quote is not closed");
}

std::string_view cut_comment(std::string_view text) {
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '#' && (i == 0 || kBlank.find(text[i - 1]) != std::string_view::npos)) {
      return trim(text.substr(0, i));
    }
  }
  return text;
}

bool needs_quotes(std::string_view value) {
  for (size_t i = 0; i < value.size(); ++i) {
    if (is_control(value[i]) || is_c1(value, i)) {
      return true;
    }
  }
  return value.empty() || value != trim(value) || value.front() == '"' ||
         value.find('#') != std::string_view::npos;
}

}  // namespace

Result<std::optional<ConfigLine>> parse_config_line(std::string_view line) {
  line = trim(line);
  if (line.empty() || line.front() == '#') {
    return std::optional<ConfigLine>();
  }
  if (std::any_of(line.begin(), line.end(), [](char c) { return is_control(c) && c != '\t'; })) {
    return Error(Errc::kInvalid, "control characters are not accepted");
  }
  const size_t equals = line.find('=');
  if (equals == std::string_view::npos) {
    return Error(Errc::kInvalid, "'path = value' is needed");
  }
  ConfigLine out;
  out.path = trim(line.substr(0, equals));
  if (out.path.empty()) {
    return Error(Errc::kInvalid, "there is no path before '='");
  }
  const std::string_view text = trim(line.substr(equals + 1));
  if (!text.empty() && text.front() == '"') {
    Result<std::string> value = read_quoted(text);
    if (!value) {
      return std::move(value).error();
    }
    out.value = std::move(*value);
  } else {
    out.value = cut_comment(text);
  }
  return std::optional<ConfigLine>(std::move(out));
}

std::string format_config_line(std::string_view path, std::string_view value) {
  std::string out(path);
  out += " = ";
  if (!needs_quotes(value)) {
    return out += value;
  }
  constexpr std::string_view kHex = "0123456789abcdef";
  out += '"';
  for (size_t i = 0; i < value.size(); ++i) {
    const char c = value[i];
    const auto escape = std::find_if(kEscapes.begin(), kEscapes.end(),
                                     [c](const auto& e) { return e.second == c; });
    if (escape != kEscapes.end()) {
      out += '\\';
      out += escape->first;
    } else if (is_control(c) || is_c1(value, i)) {
      const auto byte = static_cast<unsigned char>(c);
      out += "\\x";
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    } else {
      out += c;
    }
  }
  return out += '"';
}

}  // namespace kvmm
