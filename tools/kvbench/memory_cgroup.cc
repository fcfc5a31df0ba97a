// SPDX-License-Identifier: Apache-2.0
#include "tools/kvbench/memory_cgroup.h"

#include <fmt/format.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <vector>

#include "tools/kvbench/benchmark.h"

namespace kvmm::bench {
namespace {

// 0, or what went wrong.
int write_text(const std::string& path, const std::string& text) {
  std::FILE* const file = std::fopen(path.c_str(), "we");
  if (file == nullptr) {
    return errno;
  }
  std::setbuf(file, nullptr);  // one write(2): a cgroup file takes its text whole
  const bool written = std::fwrite(text.data(), 1, text.size(), file) == text.size();
  const int error = written ? 0 : errno;
  std::fclose(file);
  return error;
}

std::string text_of(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

bool has_word(const std::string& text, const std::string& word, char between) {
  std::istringstream words(text);
  std::string one;
  while (std::getline(words, one, between)) {
    if (one.substr(0, one.find('\n')) == word) {
      return true;
    }
  }
  return false;
}

[[noreturn]] void refuse(const std::string& what, int error) {
  throw Failure(kExitImpossible,
                fmt::format("a memory cgroup: {}: {}; run as root, where cgroups may be made", what,
                            std::strerror(error)));
}

}  // namespace

MemoryCgroup::MemoryCgroup(uint64_t limit) {
  find("/proc/self/mounts", "/proc/self/cgroup");
  try {
    make(limit);
  } catch (...) {
    release();
    throw;
  }
}

// Sets version_ and path_, the cgroup that we are in.
void MemoryCgroup::find(const std::string& mounts, const std::string& own) {
  std::string of_v1 = "/";
  std::string of_v2 = "/";
  std::ifstream groups(own);
  for (std::string line; std::getline(groups, line);) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (second == std::string::npos) {
      continue;
    }
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (controllers.empty()) {
      of_v2 = line.substr(second + 1);
    } else if (has_word(controllers, "memory", ',')) {
      of_v1 = line.substr(second + 1);
    }
  }
  std::ifstream table(mounts);
  std::string device, at, type, options, rest;
  while (table >> device >> at >> type >> options && std::getline(table, rest)) {
    if (type == "cgroup" && has_word(options, "memory", ',')) {
      version_ = 1;
      path_ = at + of_v1;
    } else if (type == "cgroup2" && version_ == 0 &&
               has_word(text_of(at + "/cgroup.controllers"), "memory", ' ')) {
      version_ = 2;
      // A cgroup of version 2 that has processes cannot pass its memory on: ours stands beside.
      path_ = at + of_v2.substr(0, of_v2.rfind('/'));
    }
  }
  if (version_ != 0) {
    // Inside a container the path in /proc may not be below what is mounted.
    if (access(path_.c_str(), F_OK) != 0) {
      path_ = path_.substr(0, path_.size() - (version_ == 1 ? of_v1 : of_v2).size());
    }
    return;
  }
  std::string dir = "/tmp/kvbench-cgroup-XXXXXX";
  if (mkdtemp(dir.data()) == nullptr) {
    refuse(dir, errno);
  }
  if (mount("kvbench", dir.c_str(), "cgroup", MS_NOSUID | MS_NODEV | MS_NOEXEC, "memory") != 0) {
    const int error = errno;
    rmdir(dir.c_str());
    refuse("none is mounted, and mounting one", error);
  }
  mounted_ = dir;
  path_ = dir;
  version_ = 1;
}

void MemoryCgroup::make(uint64_t limit) {
  if (version_ == 2) {
    (void)write_text(path_ + "/cgroup.subtree_control", "+memory");  // it may be there already
  }
  path_ += fmt::format("/kvbench-{}", getpid());
  if (mkdir(path_.c_str(), 0755) != 0) {
    refuse(path_, errno);
  }
  made_ = true;
  const std::string file = version_ == 1 ? "/memory.limit_in_bytes" : "/memory.max";
  if (const int error = write_text(path_ + file, std::to_string(limit)); error != 0) {
    refuse(path_ + file, error);
  }
  if (version_ == 1) {
    (void)write_text(path_ + "/memory.swappiness", "100");
  }
}

MemoryCgroup::~MemoryCgroup() {
  release();
}

void MemoryCgroup::release() {
  if (made_) {
    rmdir(path_.c_str());
  }
  if (!mounted_.empty()) {
    umount(mounted_.c_str());
    rmdir(mounted_.c_str());
  }
}

void MemoryCgroup::enter() const {
  if (const int error = write_text(path_ + "/cgroup.procs", std::to_string(getpid())); error != 0) {
    refuse(path_ + "/cgroup.procs", error);
  }
}

void MemoryCgroup::reclaim_all() const {
  // Less than asked for is no error here: usage() says what is left.
  if (version_ == 1) {
    (void)write_text(path_ + "/memory.force_empty", "0");
  } else {
    (void)write_text(path_ + "/memory.reclaim", std::to_string(usage()));
  }
}

uint64_t MemoryCgroup::usage() const {
  const char* const file = version_ == 1 ? "/memory.usage_in_bytes" : "/memory.current";
  return std::strtoull(text_of(path_ + file).c_str(), nullptr, 10);
}

}  // namespace kvmm::bench
