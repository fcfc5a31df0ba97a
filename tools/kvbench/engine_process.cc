// SPDX-License-Identifier: Apache-2.0
#include "tools/kvbench/engine_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <optional>
#include <random>
#include <utility>

#include "tools/kvbench/benchmark.h"
#include "tools/kvbench/child_process.h"
#include "tools/kvbench/plain_reads.h"
#include "tools/kvbench/scratch.h"

namespace kvmm::bench {
namespace {

using Json = nlohmann::json;

}  // namespace

EngineFiles find_engine() {
  const std::string fetch = std::string(KVBENCH_ENGINE_DIR) + "/fetch.py";
  if (access(fetch.c_str(), R_OK) != 0) {
    throw Failure(kExitImpossible, fmt::format("{}: {}; `engine` runs from a tree of the sources",
                                               fetch, std::strerror(errno)));
  }
  const int out = anonymous_file();
  const int err = anonymous_file();
  const int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
  const pid_t pid = run_child({"python3", fetch, "--offline"}, {}, {in, out, err}, SIGKILL);
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  const std::string text = text_of(out);
  std::string why = text_of(err);
  for (const int fd : {in, out, err}) {
    close(fd);
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    while (!why.empty() && why.back() == '\n') {
      why.pop_back();
    }
    throw Failure(kExitImpossible,
                  why.empty() ? "python3 3.10 or later is needed for `engine`" : why);
  }
  try {
    const Json found = Json::parse(text);
    return {found.at("engine"), found.at("model"), found.at("model_sha256"),
            found.at("engine_name").get<std::string>() + ", " +
                found.at("model_name").get<std::string>()};
  } catch (const Json::exception& e) {
    throw Failure(kExitFailed, fmt::format("{}: {}", fetch, e.what()));
  }
}

EngineProcess::EngineProcess(const EngineFiles& files, const Config& config) {
  try {
    std::optional<ScratchDir> scratch;
    std::string swap;
    if (config.dram_bytes != 0) {
      scratch.emplace(config.dir, config.swap_bytes);
      swap = scratch->file("swap");
    }
    spawn(files, config, swap);
    const Json ready = answer();
    start_s_ = ready.at("start_s");
    if (!swap.empty()) {
      swap_ = open_direct(swap);
    }
  } catch (...) {
    end();
    throw;
  }
}

EngineProcess::~EngineProcess() {
  end();
}

void EngineProcess::spawn(const EngineFiles& files, const Config& config, const std::string& swap) {
  std::vector<std::string> arguments = {
      "python3",       std::string(KVBENCH_ENGINE_DIR) + "/engine.py",
      "--engine",      files.engine,
      "--model",       files.model,
      "--lanes",       std::to_string(config.lanes),
      "--lane-tokens", std::to_string(config.lane_tokens),
      "--threads",     std::to_string(config.threads)};
  std::vector<std::pair<std::string, std::string>> environment;
  if (!swap.empty()) {
    arguments.insert(arguments.end(), {"--plugin", KVBENCH_PLUGIN});
    environment = {{"KVMM_MODEL_ID", files.model_sha256},
                   {"KVMM_DRAM_BYTES", std::to_string(config.dram_bytes)},
                   {"KVMM_SWAP_PATH", swap},
                   {"KVMM_SWAP_BYTES", std::to_string(config.swap_bytes)},
                   {"KVMM_LLAMA_NAME", "kvbench"},
                   {"KVMM_CONFIG", swap.substr(0, swap.rfind('/'))}};  // no installed tuning
  }
  const std::array<int, 2> to = make_pipe();
  const std::array<int, 2> from = make_pipe();
  in_ = to[1];
  out_ = from[0];
  log_ = anonymous_file();
  pid_ = run_child(arguments, environment, {to[0], from[1], log_}, SIGKILL);
  close(to[0]);
  close(from[1]);
}

Json EngineProcess::answer() {
  std::string line;
  if (!read_line(out_, &pending_, &line)) {
    throw Failure(kExitFailed, "the engine has ended" + last_words());
  }
  Json reply = Json::parse(line, nullptr, false);
  if (reply.is_discarded() || !reply.contains("event")) {
    throw Failure(kExitFailed, "the engine says what is no answer: " + line.substr(0, 200));
  }
  if (reply["event"] == "error") {
    throw Failure(kExitFailed,
                  "the engine: " + reply.value("text", std::string("error")) + last_words());
  }
  return reply;
}

// kvmm's lines in the engine's log, else its end.
std::string EngineProcess::last_words() const {
  const std::string log = text_of(log_);
  std::string ours;
  size_t at = 0;
  while (at < log.size()) {
    const size_t end = std::min(log.find('\n', at), log.size());
    if (log.compare(at, 4, "kvmm") == 0) {
      ours += "\n  " + log.substr(at, end - at);
    }
    at = end + 1;
  }
  constexpr size_t kMost = 600;
  return !ours.empty() ? ours : "\n" + log.substr(log.size() - std::min(log.size(), kMost));
}

Json EngineProcess::ask(const Json& command) {
  write_line(in_, command.dump());
  return answer();
}

uint64_t EngineProcess::counter(uint64_t session, const std::string& name) {
  const std::string text = attribute(fmt::format("sessions/{}/stat", session));
  const size_t at = text.rfind(name + " ", 0) == 0 ? 0 : text.find("\n" + name + " ");
  if (at == std::string::npos) {
    throw Failure(kExitFailed, "sessions have no counter " + name);
  }
  return std::strtoull(text.c_str() + text.find(' ', at) + 1, nullptr, 10);
}

std::string EngineProcess::attribute(const std::string& path) {
  return ask({{"op", "attr"}, {"path", path}}).at("value");
}

void EngineProcess::set(const std::string& path, const std::string& value) {
  ask({{"op", "set"}, {"path", path}, {"value", value}});
}

uint64_t EngineProcess::resident_bytes() const {
  std::ifstream status(fmt::format("/proc/{}/status", pid_));
  std::string line;
  while (std::getline(status, line)) {
    if (line.rfind("VmRSS:", 0) == 0) {
      return std::strtoull(line.c_str() + 6, nullptr, 10) * 1024;
    }
  }
  throw Failure(kExitFailed, "the engine has ended" + last_words());
}

int EngineProcess::take_swap_fd() {
  return std::exchange(swap_, -1);
}

void EngineProcess::end() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  for (const int fd : {in_, out_, log_, swap_}) {
    if (fd >= 0) {
      close(fd);
    }
  }
}

Chat::Chat(unsigned number, unsigned tokens) {
  static constexpr std::array<const char*, 6> kWho = {"the pilot",   "the guard",  "the baker",
                                                      "the foreman", "the picker", "the clerk"};
  static constexpr std::array<const char*, 6> kDid = {"counted", "repaired", "painted",
                                                      "moved",   "sold",     "measured"};
  static constexpr std::array<const char*, 6> kWhat = {"boats",   "lamps", "sacks",
                                                       "ladders", "ropes", "charts"};
  constexpr unsigned kTokensOfSentence = 16;  // about 19 for this model
  std::mt19937 random(number);
  const auto one_of = [&](const auto& words) { return words[random() % words.size()]; };
  std::string text = fmt::format("Report number {}.", number);
  for (unsigned day = 1; day <= tokens / kTokensOfSentence + 1; ++day) {
    text += fmt::format(" On day {} {} {} {} {} although nobody had asked for it.", day,
                        one_of(kWho), one_of(kDid), 2 + random() % 900, one_of(kWhat));
  }
  parts_ = Json::array({text});
}

Json Chat::turn(EngineProcess& engine, unsigned slot, unsigned tokens) {
  const std::string question = fmt::format("\n\nQuestion {}: And then?\nAnswer:", turns_ + 1);
  if (parts_.back().is_string()) {
    parts_.back() = parts_.back().get<std::string>() + question;
  } else {
    parts_.push_back(question);
  }
  Json reply = engine.ask({{"op", "turn"}, {"slot", slot}, {"prompt", parts_}, {"tokens", tokens}});
  const uint64_t prompt = reply.at("prompt_tokens");
  const uint64_t cached = reply.at("cached_tokens");
  if (turns_ != 0 && cached + 1 < length_) {
    throw Failure(kExitFailed, fmt::format("the engine computed a chat again: {} of {} tokens came "
                                           "from its cache",
                                           cached, length_));
  }
  for (const Json& id : reply.at("ids")) {
    parts_.push_back(id);
  }
  length_ = prompt + reply["ids"].size();
  ++turns_;
  return reply;
}

}  // namespace kvmm::bench
