// SPDX-License-Identifier: Apache-2.0
//
// The attribute tree as files, without FUSE: what each system call on the mount means to a runtime.
//
//   DIR/tiers/dram/used            "192MiB\n"         0444
//   DIR/tiers/dram/watermark_low   "16MiB\n"          0644   echo 32MiB > watermark_low
//   DIR/.last_error                why the last write was refused, here or in a subdirectory
//   xattr user.kvmm.range          "4MiB..256MiB"; besides type, unit, default, help, stability,
//                                  and error: why this attribute's last write was refused
//
// As in sysfs: one value a file, a write is a whole value in one system call and is answered by
// that call; what an open file has read from its start stays one text until it is read from the
// start again. A value's size is said to be 4096, a text's 0: it is what it is when it is read.
//
//   errno    means
//   ENODEV   the runtime has ended
//   ENOENT   no such attribute, or its session or swap area has gone
//   EINVAL   the value is refused; .last_error says why
//   EACCES   reading what is write-only, writing what is read-only, another user's runtime
//   EPERM    making, removing, renaming: attributes are the runtime's
//   EBUSY    the runtime does not answer in time
//   EUSERS   it has no place for one more client
//
// Thread safety: every function. Handles are used by several threads at once if a program does so.
#pragma once

#include <sys/types.h>

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "tools/kvctl/client.h"
#include "tools/kvctl/mount/connections.h"

namespace kvmm::ctl {

inline constexpr const char* kLastErrorName = ".last_error";

// The errno of a runtime's refusal.
int errno_of(Errc code) noexcept;

struct Node {
  bool directory = false;
  mode_t rights = 0;
  off_t size = 0;
};

class TreeFs {
 public:
  // Paths are absolute in the mount: "/tiers/dram/used". Functions that give an int give 0 or a
  // count, or the negative of an errno.
  TreeFs(std::string socket, int timeout_ms);
  ~TreeFs();
  TreeFs(const TreeFs&) = delete;
  TreeFs& operator=(const TreeFs&) = delete;

  int stat(std::string_view path, Node* node);
  int list(std::string_view path, std::vector<std::pair<std::string, Node>>* entries);

  // One open file.
  class File {
   public:
    File(std::string path, int flags, bool is_text)
        : path_(std::move(path)), flags_(flags), is_text_(is_text) {}

   private:
    friend class TreeFs;
    // constant after construction
    const std::string path_;
    const int flags_;
    const bool is_text_;
    std::mutex mutex_;
    // guarded by mutex_
    bool read_ = false;
    std::string text_;  // what reading from the start found
  };
  int open(std::string_view path, int flags, std::unique_ptr<File>* file);
  int read(File& file, char* to, size_t size, off_t offset);
  int write(File& file, std::string_view value, off_t offset);
  // What a shell's `>` does before it writes. `size` must be 0.
  int truncate(std::string_view path, off_t size);

  // -ENODATA: no such attribute, or it is empty.
  int xattr(std::string_view path, std::string_view name, std::string* value);
  int list_xattrs(std::string_view path, std::vector<std::string>* names);

 private:
  int text_of(const std::string& path, std::string* text);
  std::map<std::string, std::string> xattrs_of(const std::string& path, const Stat& stat);
  // Notes why a write was refused; gives the errno.
  int refused(const std::string& path, const Error& error);

  Connections connections_;
  std::mutex mutex_;
  // guarded by mutex_
  std::string last_error_;
  std::map<std::string, std::string> errors_;  // by path; at most kErrorsMax
};

}  // namespace kvmm::ctl
