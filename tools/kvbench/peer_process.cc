// SPDX-License-Identifier: Apache-2.0
#include "tools/kvbench/peer_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <nlohmann/json.hpp>

#include "tools/kvbench/benchmark.h"
#include "tools/kvbench/child_process.h"

namespace kvmm::bench {
namespace {

using Json = nlohmann::json;

std::string script(const char* name) {
  std::string path = std::string(KVBENCH_PEERS_DIR) + "/" + name;
  if (access(path.c_str(), R_OK) != 0) {
    throw Failure(kExitImpossible, fmt::format("{}: {}; `peers` runs from a tree of the sources",
                                               path, std::strerror(errno)));
  }
  return path;
}

std::string last_of(int log) {
  constexpr size_t kMost = 400;
  const std::string text = text_of(log);
  return text.substr(text.size() - std::min(text.size(), kMost));
}

}  // namespace

PeerProcess::PeerProcess(const PeerKind& kind, const std::string& dir, uint64_t pages,
                         unsigned depth)
    : kind_(kind) {
  const std::string python = fmt::format("{}/{}/bin/python", dir, kind.environment);
  const std::string install = fmt::format("kvbench peers --install --dir {}", dir);
  if (access(python.c_str(), X_OK) != 0) {
    missing_ = fmt::format("{}: not there; {}", python, install);
    return;
  }
  try {
    const std::array<int, 2> to = make_pipe();
    const std::array<int, 2> from = make_pipe();
    in_ = to[1];
    out_ = from[0];
    log_ = anonymous_file();
    pid_ = run_child({python, script(kind.script), "--dir", dir, "--pages", std::to_string(pages),
                      "--depth", std::to_string(depth)},
                     {}, {to[0], from[1], log_}, 0);
    close(to[0]);
    close(from[1]);
    const Json ready = Json::parse(answer(), nullptr, false);
    if (ready.is_object() && ready.contains("ready")) {
      version_ = ready.value("version", std::string("?"));
      of_memory_ = ready.value("tier", std::string()) == "memory";
      return;
    }
    missing_ = ready.is_object() && ready.contains("error")
                   ? ready.value("error", std::string("?"))
                   : fmt::format("it does not start: {}; {}", last_of(log_), install);
  } catch (...) {
    end();
    throw;
  }
}

PeerProcess::~PeerProcess() {
  end();
}

std::string PeerProcess::answer() {
  std::string line;
  return read_line(out_, &pending_, &line) ? line : "";
}

double PeerProcess::read(const std::vector<uint64_t>& order) {
  write_line(in_, Json{{"order", order}}.dump());
  const Json reply = Json::parse(answer(), nullptr, false);
  if (!reply.is_object() || !reply.contains("seconds") || !reply["seconds"].is_number()) {
    throw Failure(kExitFailed, fmt::format("{}: {}", kind_.name,
                                           reply.is_object() && reply.contains("error")
                                               ? reply.value("error", std::string("?"))
                                               : "it has ended: " + last_of(log_)));
  }
  return reply["seconds"];
}

void PeerProcess::end() {
  for (int* const fd : {&in_, &out_, &log_}) {
    if (*fd >= 0) {
      close(*fd);
      *fd = -1;
    }
  }
  if (pid_ > 0) {  // its input has ended: it removes its files and goes
    while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
  }
}

void install_peers(const std::string& dir) {
  const int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
  const pid_t pid = run_child({"python3", script("install.py"), "--dir", dir}, {},
                              {in, STDERR_FILENO, STDERR_FILENO}, SIGTERM);
  close(in);
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    throw Failure(kExitFailed, "not everything could be installed; what was said above says why");
  }
}

}  // namespace kvmm::bench
