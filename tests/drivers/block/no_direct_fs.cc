// SPDX-License-Identifier: Apache-2.0
//
// A file system that refuses O_DIRECT, as some network and FUSE file systems do: one folder, one
// empty file "there", and files that may be created and keep nothing.
//
//   no_direct_fs -f MOUNTPOINT      serves until it is unmounted
#define FUSE_USE_VERSION 31
#include <fcntl.h>
#include <fuse3/fuse.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <set>
#include <string>

namespace {

std::set<std::string>& files() {
  static std::set<std::string> names{"/there"};
  return names;
}

int get_attr(const char* path, struct stat* out, fuse_file_info*) {
  *out = {};
  if (std::strcmp(path, "/") == 0) {
    out->st_mode = S_IFDIR | 0755;
    out->st_nlink = 2;
    return 0;
  }
  if (files().count(path) == 0) {
    return -ENOENT;
  }
  out->st_mode = S_IFREG | 0600;
  out->st_nlink = 1;
  return 0;
}

int refuse_direct(const fuse_file_info* info) {
  return (info->flags & O_DIRECT) != 0 ? -EINVAL : 0;
}

int open_file(const char* path, fuse_file_info* info) {
  return files().count(path) == 0 ? -ENOENT : refuse_direct(info);
}

int create_file(const char* path, mode_t, fuse_file_info* info) {
  files().insert(path);  // created first, refused afterwards: as the kernel does it
  return refuse_direct(info);
}

int unlink_file(const char* path) {
  return files().erase(path) == 0 ? -ENOENT : 0;
}

int read_dir(const char*, void* buffer, fuse_fill_dir_t fill, off_t, fuse_file_info*,
             fuse_readdir_flags) {
  for (const std::string& name : files()) {
    fill(buffer, name.c_str() + 1, nullptr, 0, static_cast<fuse_fill_dir_flags>(0));
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  fuse_operations operations{};
  operations.getattr = get_attr;
  operations.open = open_file;
  operations.create = create_file;
  operations.unlink = unlink_file;
  operations.readdir = read_dir;
  return fuse_main(argc, argv, &operations, nullptr);
}
