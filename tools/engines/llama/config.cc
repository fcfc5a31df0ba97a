// SPDX-License-Identifier: Apache-2.0
#include "tools/engines/llama/config.h"

#include <bit>
#include <cstddef>
#include <limits>

namespace kvmm::llama {
namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') {
    return c - '0';
  }
  if (c >= 'a' && c <= 'f') {
    return c - 'a' + 10;
  }
  if (c >= 'A' && c <= 'F') {
    return c - 'A' + 10;
  }
  return -1;
}

std::string text_of(const char* (*get)(const char*), const char* name) {
  const char* value = get(name);
  return value == nullptr ? std::string() : std::string(value);
}

bool read_bytes(const char* (*get)(const char*), const char* name, std::uint64_t* out,
                std::string* error) {
  const std::string text = text_of(get, name);
  if (text.empty()) {
    return true;
  }
  const auto bytes = parse_bytes(text);
  if (!bytes) {
    *error = std::string(name) + "=" + text + " is no size (digits, then nothing or one of K M G)";
    return false;
  }
  *out = *bytes;
  return true;
}

}  // namespace

std::optional<std::uint64_t> parse_bytes(const std::string& text) {
  std::size_t end = text.size();
  std::uint64_t unit = 1;
  if (end > 0 && (text[end - 1] < '0' || text[end - 1] > '9')) {
    switch (text[--end]) {
      case 'K':
        unit = std::uint64_t{1} << 10;
        break;
      case 'M':
        unit = std::uint64_t{1} << 20;
        break;
      case 'G':
        unit = std::uint64_t{1} << 30;
        break;
      default:
        return std::nullopt;
    }
  }
  if (end == 0) {
    return std::nullopt;
  }
  constexpr std::uint64_t kMax = std::numeric_limits<std::uint64_t>::max();
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < end; ++i) {
    if (text[i] < '0' || text[i] > '9') {
      return std::nullopt;
    }
    const auto digit = static_cast<std::uint64_t>(text[i] - '0');
    if (value > (kMax - digit) / 10) {
      return std::nullopt;
    }
    value = value * 10 + digit;
  }
  if (value > kMax / unit) {
    return std::nullopt;
  }
  return value * unit;
}

std::optional<std::array<std::uint8_t, 32>> parse_model_id(const std::string& text) {
  std::array<std::uint8_t, 32> id{};
  if (text.size() != 2 * id.size()) {
    return std::nullopt;
  }
  for (std::size_t i = 0; i < id.size(); ++i) {
    const int high = hex_digit(text[2 * i]);
    const int low = hex_digit(text[2 * i + 1]);
    if (high < 0 || low < 0) {
      return std::nullopt;
    }
    id[i] = static_cast<std::uint8_t>(high * 16 + low);
  }
  return id;
}

bool read_config(const char* (*get)(const char*), Config* config, std::string* error) {
  Config read;
  const std::string id = text_of(get, "KVMM_MODEL_ID");
  if (!id.empty()) {
    read.model_id = parse_model_id(id);
    if (!read.model_id) {
      *error = "KVMM_MODEL_ID is not a SHA-256 of 64 hex digits";
      return false;
    }
  }
  if (!read_bytes(get, "KVMM_DRAM_BYTES", &read.dram_bytes, error) ||
      !read_bytes(get, "KVMM_SWAP_BYTES", &read.swap_bytes, error) ||
      !read_bytes(get, "KVMM_LLAMA_PAGE_SIZE", &read.page_size, error)) {
    return false;
  }
  if (read.page_size != 0 && (!std::has_single_bit(read.page_size) || read.page_size < 4096 ||
                              read.page_size > (std::uint64_t{2} << 20))) {
    *error = "KVMM_LLAMA_PAGE_SIZE is no power of two from 4K to 2M";
    return false;
  }
  const std::string frames = text_of(get, "KVMM_FRAMES");
  if (!frames.empty()) {
    if (frames != "movable" && frames != "shareable") {
      *error = "KVMM_FRAMES=" + frames + " is neither movable nor shareable";
      return false;
    }
    read.frames = frames;
  }
  read.swap_path = text_of(get, "KVMM_SWAP_PATH");
  read.swap_driver = text_of(get, "KVMM_SWAP_DRIVER");
  const std::string name = text_of(get, "KVMM_LLAMA_NAME");
  if (!name.empty()) {
    read.name = name;
  }
  *config = std::move(read);
  return true;
}

}  // namespace kvmm::llama
