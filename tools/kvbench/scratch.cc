// SPDX-License-Identifier: Apache-2.0
#include "tools/kvbench/scratch.h"

#include <fmt/format.h>
#include <linux/magic.h>
#include <pthread.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "tools/kvbench/benchmark.h"

namespace kvmm::bench {
namespace {

constexpr uint64_t kMiB = 1 << 20;

struct statfs stat_of(const std::string& dir) {
  struct statfs s {};
  if (statfs(dir.c_str(), &s) != 0) {
    throw Failure(kExitFailed, fmt::format("{}: {}; name an existing directory with --dir", dir,
                                           std::strerror(errno)));
  }
  return s;
}

}  // namespace

ScratchDir::ScratchDir(const std::string& dir, uint64_t bytes_needed) {
  const struct statfs s = stat_of(dir);
  const uint64_t free = s.f_bavail * static_cast<uint64_t>(s.f_bsize);
  if (free < bytes_needed) {
    throw Failure(kExitFailed,
                  fmt::format("{}: {} MiB free, {} MiB needed; free some, name another directory "
                              "with --dir, or try --quick",
                              dir, free / kMiB, bytes_needed / kMiB));
  }
  sigset_t ending;
  sigemptyset(&ending);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) {
    sigaddset(&ending, signal);
  }
  pthread_sigmask(SIG_BLOCK, &ending, &before_);
  path_ = dir + "/kvbench-XXXXXX";
  if (mkdtemp(path_.data()) == nullptr) {
    const int error = errno;
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
    throw Failure(kExitFailed,
                  fmt::format("{}: cannot make files there: {}; name a directory that you may "
                              "write to with --dir",
                              dir, std::strerror(error)));
  }
}

ScratchDir::~ScratchDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
  pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

void require_disk(const std::string& dir) {
  const auto type = static_cast<uint64_t>(stat_of(dir).f_type);
  if (type == TMPFS_MAGIC || type == RAMFS_MAGIC) {
    throw Failure(
        kExitFailed,
        fmt::format("{} is memory (tmpfs), not a disk; name another directory with --dir", dir));
  }
}

}  // namespace kvmm::bench
