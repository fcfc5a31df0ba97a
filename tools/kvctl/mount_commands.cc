// SPDX-License-Identifier: Apache-2.0
//
// mount, umount: the attribute tree as files. The file system is another program, kvctl-mount, so
// that kvctl itself needs no libfuse (docs/decisions/0013-mount-is-a-program-of-its-own.md).
#include <fmt/format.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tools/kvctl/context.h"
#include "tools/kvctl/output.h"

extern char** environ;  // NOLINT(readability-redundant-declaration): POSIX wants it so

namespace kvmm::ctl {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kHelper = "kvctl-mount";
constexpr std::string_view kType = "fuse.kvmm";

struct Mounted {
  std::string directory;
  std::string socket;
};

// "\040" in /proc/self/mountinfo is a blank.
std::string unescaped(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      int code = 0;
      for (size_t k = 1; k <= 3; ++k) {
        code = code * 8 + (text[i + k] - '0');
      }
      out += static_cast<char>(code);
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

// Mounts of kvmm in this mount namespace, oldest first. A line of mountinfo:
// "36 35 0:31 / /mnt rw,nosuid - fuse.kvmm SOURCE rw,..."
std::vector<Mounted> mounts() {
  std::vector<Mounted> all;
  std::ifstream in("/proc/self/mountinfo");
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string skip, directory, type, source;
    words >> skip >> skip >> skip >> skip >> directory;
    while (words >> skip && skip != "-") {
    }
    if (words >> type >> source && type == kType) {
      all.push_back({unescaped(directory), unescaped(source)});
    }
  }
  return all;
}

// The mount on top of `directory`.
std::optional<Mounted> mount_at(const std::string& directory) {
  std::optional<Mounted> found;
  for (Mounted& one : mounts()) {
    if (one.directory == directory) {
      found = std::move(one);
    }
  }
  return found;
}

// Absolute and without links, and without touching what is mounted there: it may be dead.
std::string canonical(const std::string& given) {
  std::error_code error;
  const fs::path path = fs::absolute(given, error).lexically_normal();
  const fs::path named = path.has_filename() ? path : path.parent_path();
  const fs::path folder = fs::canonical(named.parent_path(), error);
  std::string direct = (error ? named : folder / named.filename()).string();
  if (mount_at(direct)) {
    return direct;
  }
  const fs::path whole = fs::canonical(direct, error);
  return error ? direct : whole.string();
}

// Beside kvctl in a build, in libexec when installed. "": neither.
std::string find_helper() {
  std::error_code error;
  const fs::path here = fs::read_symlink("/proc/self/exe", error).parent_path();
  for (const fs::path& folder : {here, here / KVCTL_LIBEXEC_FROM_BIN}) {
    const fs::path helper = folder / kHelper;
    if (!error && access(helper.c_str(), X_OK) == 0) {
      return helper.string();
    }
  }
  return "";
}

// Whether something can be mounted there.
Result<void> check_directory(const std::string& directory) {
  if (const auto mounted = mount_at(directory)) {
    return Error(Errc::kExists, directory + ": " + mounted->socket +
                                    " is mounted there already; kvctl umount " + directory);
  }
  std::error_code error;
  const fs::file_status status = fs::status(directory, error);
  if (!fs::exists(status)) {
    return Error(Errc::kNotFound, directory + ": there is no such directory; make it first");
  }
  if (!fs::is_directory(status)) {
    return Error(Errc::kInvalid, directory + ": is no directory");
  }
  const bool empty = fs::is_empty(directory, error);
  if (error) {
    return Error(Errc::kPermission, directory + ": " + error.message());
  }
  if (!empty) {
    return Error(Errc::kInvalid, directory + ": is not empty; the mount would hide what is in it");
  }
  return {};
}

int list_mounts(const Context& context) {
  Table table({"STATE", "SOCKET", "DIRECTORY"});
  Json json = Json::array();
  for (const Mounted& one : mounts()) {
    const Result<Client> client = Client::connect(one.socket, context.options.timeout_ms);
    const char* const state = client ? "live" : "ended";
    table.add({state, one.socket, one.directory});
    json.push_back({{"state", state}, {"socket", one.socket}, {"directory", one.directory}});
  }
  return context.options.json ? context.print(json) : context.print(table.text());
}

// Those who are not root ask the helper of libfuse that may.
Result<void> unmount_as_user(const std::string& directory, bool lazy) {
  std::vector<std::string> words = {"fusermount3", "-u", "-q"};
  if (lazy) {
    words.emplace_back("-z");
  }
  words.emplace_back("--");
  words.push_back(directory);
  std::vector<char*> argv;
  for (std::string& word : words) {
    argv.push_back(word.data());
  }
  argv.push_back(nullptr);
  pid_t pid = 0;
  if (const int error = posix_spawnp(&pid, "fusermount3", nullptr, nullptr, argv.data(), environ);
      error != 0) {
    return Error(Errc::kNotSupported, "fusermount3 cannot be run; install fuse3, or umount as root",
                 error);
  }
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
    return {};
  }
  return Error(Errc::kBusy, directory + ": fusermount3 refuses; it is in use, or somebody else's");
}

Result<void> unmount(const std::string& directory, bool lazy) {
  if (geteuid() != 0) {
    return unmount_as_user(directory, lazy);
  }
  if (umount2(directory.c_str(), UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0) {
    return {};
  }
  const int error = errno;
  if (error == EBUSY) {
    return Error(Errc::kBusy, directory +
                                  ": is in use: an open file, or somebody's working "
                                  "directory; end that, or take --lazy");
  }
  return Error(error == EPERM ? Errc::kPermission : Errc::kIo, directory + ": cannot be unmounted",
               error);
}

}  // namespace

std::vector<std::string> mounted_directories() {
  std::vector<std::string> all;
  for (Mounted& one : mounts()) {
    all.push_back(std::move(one.directory));
  }
  return all;
}

int run_mount(const Context& context) {
  const Options& options = context.options;
  if (options.path.empty()) {
    return list_mounts(context);
  }
  const std::string directory = canonical(options.path);
  if (const Result<void> ok = check_directory(directory); !ok) {
    return context.fail(ok.error());
  }
  const std::string helper = find_helper();
  if (helper.empty()) {
    return context.fail(Error(Errc::kNotSupported,
                              "the program kvctl-mount is not installed; build with libfuse3-dev"));
  }
  std::string socket;
  {
    int status = 0;
    const std::optional<Runtime> runtime = context.choose(&status);
    if (!runtime) {
      return status;
    }
    socket = runtime->client.path();
  }
  std::error_code error;
  socket = fs::absolute(socket, error).string();  // the helper changes its directory
  std::vector<std::string> words = {kHelper, "--socket", socket, "--timeout",
                                    std::to_string(options.timeout_ms)};
  if (options.foreground) {
    words.emplace_back("--foreground");
  }
  if (options.json) {
    words.emplace_back("--json");
  }
  words.emplace_back("--");
  words.push_back(directory);
  std::vector<char*> argv;
  for (std::string& word : words) {
    argv.push_back(word.data());
  }
  argv.push_back(nullptr);
  execv(helper.c_str(), argv.data());
  return context.fail(Error(Errc::kNotSupported, helper + ": cannot be run", errno));
}

int run_umount(const Context& context) {
  const std::string directory = canonical(context.options.path);
  if (!mount_at(directory)) {
    return context.fail(
        Error(Errc::kNotFound, directory + ": nothing of kvmm is mounted there; kvctl mount"));
  }
  if (const Result<void> ok = unmount(directory, context.options.lazy); !ok) {
    return context.fail(ok.error());
  }
  return context.options.json ? context.print(Json{{"ok", true}, {"directory", directory}})
                              : kExitOk;
}

}  // namespace kvmm::ctl
