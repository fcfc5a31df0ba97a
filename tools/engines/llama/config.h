// SPDX-License-Identifier: Apache-2.0
//
// What the plugin is told through the environment, since ggml passes a backend nothing else.
//
//   variable              means                                              default
//   KVMM_MODEL_ID         SHA-256 of the GGUF file, 64 hex digits            none: a random id
//   KVMM_DRAM_BYTES       capacity of the DRAM tier, bytes                   the runtime's
//   KVMM_SWAP_PATH        file or block device that is swapped to            none
//   KVMM_SWAP_BYTES       size that file may grow to, bytes                  the runtime's
//   KVMM_SWAP_DRIVER      its driver: a name, or path of a shared object     the runtime's
//   KVMM_LLAMA_PAGE_SIZE  page size, bytes, a power of two, 4 KiB to 2 MiB   by the stride
//   KVMM_FRAMES           "movable", or "shareable" (before Linux 6.8)       "movable"
//   KVMM_LLAMA_NAME       the runtime's name in `kvctl ps`                   "llama.cpp"
//
// Sizes are plain numbers or numbers followed by K, M or G (powers of 1024). A value that cannot be
// read is an error that names the variable; nothing is guessed.
//
// Thread safety: values. `read_config` reads the environment once, before the engine starts
// threads.
#ifndef KVMM_TOOLS_ENGINES_LLAMA_CONFIG_H_
#define KVMM_TOOLS_ENGINES_LLAMA_CONFIG_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>

namespace kvmm::llama {

struct Config {
  std::optional<std::array<std::uint8_t, 32>> model_id;
  std::uint64_t dram_bytes = 0;  // 0: the runtime's default, as in what is below
  std::string swap_path;
  std::uint64_t swap_bytes = 0;
  std::string swap_driver;
  std::uint64_t page_size = 0;
  std::string frames = "movable";
  std::string name = "llama.cpp";
};

// "64K" -> 65536. Empty on anything else than digits with at most one of K, M, G behind, and on
// overflow.
std::optional<std::uint64_t> parse_bytes(const std::string& text);

// 64 hex digits -> 32 bytes. Empty on anything else.
std::optional<std::array<std::uint8_t, 32>> parse_model_id(const std::string& text);

// Reads the variables above with `get` (getenv outside tests). On failure false, and `error` is one
// sentence that names the variable.
bool read_config(const char* (*get)(const char* name), Config* config, std::string* error);

}  // namespace kvmm::llama

#endif  // KVMM_TOOLS_ENGINES_LLAMA_CONFIG_H_
