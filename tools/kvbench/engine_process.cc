// SPDX-License-Identifier: Apache-2.0
#include "tools/kvbench/engine_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
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
#include "tools/kvbench/plain_reads.h"
#include "tools/kvbench/scratch.h"

namespace kvmm::bench {
namespace {

using Json = nlohmann::json;

// Runs `arguments` with these three descriptors and more environment. It dies with us, and no
// terminal's Ctrl-C but ours reaches it.
pid_t run_child(const std::vector<std::string>& arguments,
                const std::vector<std::pair<std::string, std::string>>& environment,
                const std::array<int, 3>& descriptors) {
  std::vector<char*> argv;
  for (const std::string& a : arguments) {
    argv.push_back(const_cast<char*>(a.c_str()));
  }
  argv.push_back(nullptr);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid != 0) {
    if (pid < 0) {
      throw Failure(kExitFailed, fmt::format("fork: {}", std::strerror(errno)));
    }
    return pid;
  }
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) {
    _exit(127);  // it ended before the line above
  }
  for (int fd = 0; fd < 3; ++fd) {
    dup2(descriptors[static_cast<size_t>(fd)], fd);
  }
  for (const auto& [name, value] : environment) {
    setenv(name.c_str(), value.c_str(), 1);
  }
  execvp(argv[0], argv.data());
  _exit(127);
}

int anonymous_file() {
  const int fd = memfd_create("kvbench-log", MFD_CLOEXEC);
  if (fd < 0) {
    throw Failure(kExitFailed, fmt::format("memfd: {}", std::strerror(errno)));
  }
  return fd;
}

std::string text_of(int fd) {
  std::string text;
  std::array<char, 4096> piece;
  for (off_t at = 0;;) {
    const ssize_t n = pread(fd, piece.data(), piece.size(), at);
    if (n <= 0) {
      return text;
    }
    text.append(piece.data(), static_cast<size_t>(n));
    at += n;
  }
}

std::array<int, 2> make_pipe() {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) {
    throw Failure(kExitFailed, fmt::format("pipe: {}", std::strerror(errno)));
  }
  return ends;
}

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
  const pid_t pid = run_child({"python3", fetch, "--offline"}, {}, {in, out, err});
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
  pid_ = run_child(arguments, environment, {to[0], from[1], log_});
  close(to[0]);
  close(from[1]);
}

Json EngineProcess::answer() {
  size_t end = 0;
  while ((end = pending_.find('\n')) == std::string::npos) {
    std::array<char, 4096> piece;
    const ssize_t n = read(out_, piece.data(), piece.size());
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n <= 0) {
      throw Failure(kExitFailed, "the engine has ended" + last_words());
    }
    pending_.append(piece.data(), static_cast<size_t>(n));
  }
  const std::string line = pending_.substr(0, end);
  pending_.erase(0, end + 1);
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
  const std::string line = command.dump() + "\n";
  for (size_t at = 0; at < line.size();) {
    const ssize_t n = write(in_, line.data() + at, line.size() - at);
    if (n < 0 && errno != EINTR) {
      break;  // answer() says how it ended
    }
    at += n > 0 ? static_cast<size_t>(n) : 0;
  }
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
