// SPDX-License-Identifier: Apache-2.0
//
// One llama.cpp server in a process of its own, driven by lines of JSON (tools/engines/llama/
// engine.py), stock or on kvmm.
//
//   kvbench --{"op": ...}--> engine.py: the unmodified engine [+ kvmm plugin] --{"event": ...}-->
//   kvbench
//
// It ends when the object goes, and when kvbench ends in whatever way. Its log and its swap file
// have no name once it runs.
//
// Thread safety: none. Make it from the main thread: the process lives as long as that thread.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace kvmm::bench {

// Where engine and model are. Both are checked against their hashes; nothing is downloaded.
struct EngineFiles {
  std::string engine, model, model_sha256, name;
};
// Throws Failure (77: not in the cache, or no Python; the text says which command gets them).
EngineFiles find_engine();

class EngineProcess {
 public:
  struct Config {
    std::string dir;          // scratch
    uint64_t dram_bytes = 0;  // of kvmm; 0: the stock engine
    uint64_t swap_bytes = 0;
    unsigned lanes = 32;
    unsigned lane_tokens = 32768;
    unsigned threads = 2;
  };
  // Starts it and waits until it serves. Throws Failure.
  EngineProcess(const EngineFiles& files, const Config& config);
  ~EngineProcess();
  EngineProcess(const EngineProcess&) = delete;
  EngineProcess& operator=(const EngineProcess&) = delete;

  double start_seconds() const { return start_s_; }
  uint64_t resident_bytes() const;  // VmRSS
  // The swap file, opened O_DIRECT for reading; -1 for the stock engine, and after it was taken.
  int take_swap_fd();

  // Throws Failure: the engine says no, or has ended.
  nlohmann::json ask(const nlohmann::json& command);
  // Counter `name` of a session of kvmm.
  uint64_t counter(uint64_t session, const std::string& name);
  void set(const std::string& path, const std::string& value);
  std::string attribute(const std::string& path);

 private:
  void spawn(const EngineFiles& files, const Config& config, const std::string& swap);
  nlohmann::json answer();
  std::string last_words() const;
  void end();

  pid_t pid_ = -1;
  int in_ = -1, out_ = -1, log_ = -1, swap_ = -1;
  std::string pending_;  // read from out_, not yet a line
  double start_s_ = 0;
};

// A chat that grows turn by turn; the same number gives the same texts.
class Chat {
 public:
  Chat(unsigned number, unsigned tokens);
  // Asks for `tokens` more in `slot`. Returns what the engine said ("ids", "first_token_ms", ...).
  // Throws Failure: the engine computed again what it should have had.
  nlohmann::json turn(EngineProcess& engine, unsigned slot, unsigned tokens);

 private:
  nlohmann::json parts_;  // texts and token ids by turns
  uint64_t length_ = 0;   // tokens the engine holds for it
  uint64_t turns_ = 0;
};

}  // namespace kvmm::bench
