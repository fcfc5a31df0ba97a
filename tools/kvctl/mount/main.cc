// SPDX-License-Identifier: Apache-2.0
//
// kvctl-mount: the process behind `kvctl mount`. It shows the attribute tree of one runtime as
// files (tree_fs.h) and is all of kvmm that links libfuse. kvctl has chosen the runtime and checked
// the directory.
//
//   threads   kThreads of libfuse, each with a connection of its own while it asks
//   ends      by SIGINT, SIGTERM, SIGHUP (unmounts), or when it has been unmounted
//
// The exit status is kvctl's: 0 mounted (or, in the foreground, unmounted again), 1 it cannot be, 2
// wrong command line, 3 no runtime.
#define FUSE_USE_VERSION 312
#include <fuse.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <exception>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "tools/kvctl/context.h"
#include "tools/kvctl/mount/tree_fs.h"
#include "tools/kvctl/output.h"

namespace kvmm::ctl {
namespace {

using Json = nlohmann::ordered_json;

// Of libfuse; the runtime serves 16 clients, and some are to stay for others.
constexpr unsigned kThreads = 4;

TreeFs& tree() {
  return *static_cast<TreeFs*>(fuse_get_context()->private_data);
}

TreeFs::File* file_of(const fuse_file_info* info) {
  return reinterpret_cast<TreeFs::File*>(info->fh);
}

// The time of all files: when they appeared here.
timespec mounted_at{};

// No exception passes through libfuse's C.
template <class Fn>
int guarded(Fn&& fn) {
  try {
    return fn();
  } catch (const std::exception&) {
    return -ENOMEM;
  }
}

struct stat stat_of(const Node& node) {
  struct stat st {};
  st.st_mode = (node.directory ? S_IFDIR : S_IFREG) | node.rights;
  st.st_nlink = 1;
  st.st_uid = geteuid();
  st.st_gid = getegid();
  st.st_size = node.size;
  st.st_blksize = 4096;
  st.st_mtim = st.st_ctim = st.st_atim = mounted_at;
  return st;
}

void* op_init(fuse_conn_info*, fuse_config* config) {
  // Nothing is kept: what was true a moment ago is not what somebody asks for.
  config->direct_io = 1;
  config->entry_timeout = 0;
  config->negative_timeout = 0;
  config->attr_timeout = 0;
  return fuse_get_context()->private_data;
}

int op_getattr(const char* path, struct stat* st, fuse_file_info*) {
  return guarded([&] {
    Node node;
    const int error = tree().stat(path, &node);
    if (error == 0) {
      *st = stat_of(node);
    }
    return error;
  });
}

int op_readdir(const char* path, void* buffer, fuse_fill_dir_t fill, off_t, fuse_file_info*,
               fuse_readdir_flags) {
  return guarded([&] {
    std::vector<std::pair<std::string, Node>> entries;
    if (const int error = tree().list(path, &entries); error != 0) {
      return error;
    }
    constexpr auto kNone = static_cast<fuse_fill_dir_flags>(0);
    fill(buffer, ".", nullptr, 0, kNone);
    fill(buffer, "..", nullptr, 0, kNone);
    for (const auto& [name, node] : entries) {
      const struct stat st = stat_of(node);
      if (fill(buffer, name.c_str(), &st, 0, kNone) != 0) {
        return -ENOMEM;
      }
    }
    return 0;
  });
}

int op_open(const char* path, fuse_file_info* info) {
  return guarded([&] {
    std::unique_ptr<TreeFs::File> file;
    const int error = tree().open(path, info->flags, &file);
    info->fh = reinterpret_cast<uint64_t>(file.release());
    return error;
  });
}

int op_release(const char*, fuse_file_info* info) {
  delete file_of(info);
  return 0;
}

int op_read(const char*, char* to, size_t size, off_t offset, fuse_file_info* info) {
  return guarded([&] { return tree().read(*file_of(info), to, size, offset); });
}

int op_write(const char*, const char* from, size_t size, off_t offset, fuse_file_info* info) {
  return guarded([&] { return tree().write(*file_of(info), {from, size}, offset); });
}

int op_truncate(const char* path, off_t size, fuse_file_info*) {
  return guarded([&] { return tree().truncate(path, size); });
}

// What fits: xattr calls first ask for the size, with none.
int put(const std::string& value, char* to, size_t size) {
  if (size != 0 && value.size() > size) {
    return -ERANGE;
  }
  if (size != 0) {
    value.copy(to, value.size());
  }
  return static_cast<int>(value.size());
}

int op_getxattr(const char* path, const char* name, char* to, size_t size) {
  return guarded([&] {
    std::string value;
    const int error = tree().xattr(path, name, &value);
    return error != 0 ? error : put(value, to, size);
  });
}

int op_listxattr(const char* path, char* to, size_t size) {
  return guarded([&] {
    std::vector<std::string> names;
    if (const int error = tree().list_xattrs(path, &names); error != 0) {
      return error;
    }
    std::string all;
    for (const std::string& name : names) {
      all += name + '\0';
    }
    return put(all, to, size);
  });
}

// Attributes are the runtime's: nobody makes, removes or renames them, or gives them other rights.
int op_mknod(const char*, mode_t, dev_t) {
  return -EPERM;
}
int op_mkdir(const char*, mode_t) {
  return -EPERM;
}
int op_unlink(const char*) {
  return -EPERM;
}
int op_rmdir(const char*) {
  return -EPERM;
}
int op_symlink(const char*, const char*) {
  return -EPERM;
}
int op_link(const char*, const char*) {
  return -EPERM;
}
int op_rename(const char*, const char*, unsigned) {
  return -EPERM;
}
int op_chmod(const char*, mode_t, fuse_file_info*) {
  return -EPERM;
}
int op_chown(const char*, uid_t, gid_t, fuse_file_info*) {
  return -EPERM;
}
int op_setxattr(const char*, const char*, const char*, size_t, int) {
  return -EPERM;
}
int op_removexattr(const char*, const char*) {
  return -EPERM;
}

fuse_operations operations() {
  fuse_operations ops{};
  ops.init = op_init;
  ops.getattr = op_getattr;
  ops.readdir = op_readdir;
  ops.open = op_open;
  ops.release = op_release;
  ops.read = op_read;
  ops.write = op_write;
  ops.truncate = op_truncate;
  ops.getxattr = op_getxattr;
  ops.listxattr = op_listxattr;
  ops.mknod = op_mknod;
  ops.mkdir = op_mkdir;
  ops.unlink = op_unlink;
  ops.rmdir = op_rmdir;
  ops.symlink = op_symlink;
  ops.link = op_link;
  ops.rename = op_rename;
  ops.chmod = op_chmod;
  ops.chown = op_chown;
  ops.setxattr = op_setxattr;
  ops.removexattr = op_removexattr;
  return ops;
}

// What libfuse says goes where kvctl's errors go; the last line is the reason of a failure.
std::string last_message;  // NOLINT(cert-err58-cpp): an empty string does not throw
void log_message(fuse_log_level, const char* format, va_list arguments) {
  char line[512];
  if (vsnprintf(line, sizeof line, format, arguments) > 0) {
    last_message = line;
    last_message.erase(last_message.find_last_not_of('\n') + 1);
  }
}

// In the list of options a comma ends one.
std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    out += c == ',' || c == '\\' ? std::string("\\") + c : std::string(1, c);
  }
  return out;
}

struct Mount {
  Options options;
  std::string socket;
  std::string directory;  // absolute
  bool foreground = false;

  int run() const;

 private:
  int serve(const Context& context, fuse* fuse) const;
};

int Mount::serve(const Context& context, fuse* fuse) const {
  if (options.json) {
    const int status =
        context.print(Json{{"ok", true}, {"directory", directory}, {"socket", socket}});
    if (status != kExitOk) {
      return status;
    }
  }
  // From here on the kernel keeps accesses until they are served: whoever started us may go on.
  if (fuse_daemonize(foreground ? 1 : 0) != 0) {
    return context.fail(Error(Errc::kLimit, "no process can be made", errno));
  }
  if (fuse_set_signal_handlers(fuse_get_session(fuse)) != 0) {
    return context.fail(Error(Errc::kLimit, "signals cannot be handled"));
  }
  const std::unique_ptr<fuse_loop_config, decltype(&fuse_loop_cfg_destroy)> config(
      fuse_loop_cfg_create(), fuse_loop_cfg_destroy);
  fuse_loop_cfg_set_max_threads(config.get(), kThreads);
  const int ended = fuse_loop_mt(fuse, config.get());  // > 0: by that signal
  fuse_remove_signal_handlers(fuse_get_session(fuse));
  return ended >= 0 ? kExitOk
                    : context.fail(Error(Errc::kIo, directory + ": cannot be served", -ended));
}

int Mount::run() const {
  const Context context(options);
  {
    Result<Client> client = Client::connect(socket, options.timeout_ms);
    const Result<Hello> hello = client ? client->hello() : Result<Hello>(client.error());
    if (!hello) {
      return context.fail(hello.error());
    }
  }
  clock_gettime(CLOCK_REALTIME, &mounted_at);
  fuse_set_log_func(log_message);
  TreeFs tree_fs(socket, options.timeout_ms);
  std::string names = "subtype=kvmm,default_permissions,nosuid,nodev,noexec,fsname=";
  names += escaped(socket);
  std::vector<std::string> words = {"kvctl-mount", "-o", names};
  std::vector<char*> argv;
  for (std::string& word : words) {
    argv.push_back(word.data());
  }
  fuse_args args = FUSE_ARGS_INIT(static_cast<int>(argv.size()), argv.data());
  const fuse_operations ops = operations();
  fuse* const fuse = fuse_new(&args, &ops, sizeof ops, &tree_fs);
  fuse_opt_free_args(&args);
  if (fuse == nullptr || fuse_mount(fuse, directory.c_str()) != 0) {
    const int status =
        context.fail(Error(Errc::kPermission, directory + ": cannot be mounted: " + last_message +
                                                  "; it needs /dev/fuse, and root or fusermount3"));
    if (fuse != nullptr) {
      fuse_destroy(fuse);
    }
    return status;
  }
  const int status = serve(context, fuse);
  fuse_unmount(fuse);
  fuse_destroy(fuse);
  return status;
}

int run(int argc, char** argv) {
  Mount mount;
  CLI::App app{"Serves `kvctl mount`; see kvctl(1).", "kvctl-mount"};
  app.set_version_flag("--version", "kvctl-mount " KVCTL_VERSION);
  app.add_option("--socket", mount.socket, "Control socket of the runtime")->required();
  app.add_option("--timeout", mount.options.timeout_ms, "Wait so long for an answer, in ms");
  app.add_flag("--json", mount.options.json, "Print JSON");
  app.add_flag("-f,--foreground", mount.foreground, "Stay in the foreground");
  app.add_option("DIR", mount.directory, "An empty directory, absolute")->required();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? kExitOk : kExitUsage;
  }
  return mount.run();
}

}  // namespace
}  // namespace kvmm::ctl

int main(int argc, char** argv) {
  try {
    return kvmm::ctl::run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "kvctl-mount: %s\n", e.what());
    return kvmm::ctl::kExitRefused;
  }
}
