// SPDX-License-Identifier: Apache-2.0
#include "drivers/uring/swap_file.h"

#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <limits>
#include <utility>

#include "runtime/base/check.h"

namespace kvmm {
namespace {

constexpr uint64_t kAlignmentDefault = 4096;  // covers every disk; a kernel that knows better says
constexpr uint64_t kAlignmentMax = 64 * kKiB;

Errc open_errc(int e) {
  switch (e) {
    case EACCES:
    case EPERM:
    case EROFS:
      return Errc::kPermission;
    case ENOENT:
    case ENOTDIR:
    case ELOOP:
      return Errc::kNotFound;
    case EBUSY:
    case ETXTBSY:
      return Errc::kBusy;
    case EMFILE:
    case ENFILE:
      return Errc::kLimit;
    case ENOSPC:
    case EDQUOT:
      return Errc::kNoSpace;
    case ENOMEM:
      return Errc::kNoMemory;
    case EINVAL:  // what open(2) answers to O_DIRECT on a file system without it
    case EOPNOTSUPP:
      return Errc::kNotSupported;
    default:
      return Errc::kIo;
  }
}

const char* open_advice(Errc code) {
  switch (code) {
    case Errc::kPermission:
      return "the user of this process needs read and write permission on it";
    case Errc::kNotFound:
      return "the folder must exist";
    case Errc::kBusy:
      return "it is in use: mounted, swap of the system or of another runtime, or a running "
             "program";
    case Errc::kLimit:
      return "too many open files; raise ulimit -n";
    case Errc::kNotSupported:
      return "this file system refuses direct I/O (O_DIRECT); put the file on ext4, xfs or btrfs, "
             "or name a block device";
    default:
      return "cannot open it";
  }
}

uint64_t read_queue_limit(dev_t device, const char* name) {
  // A partition's queue is its disk's.
  for (const char* up : {"", "../"}) {
    char path[128];
    std::snprintf(path, sizeof path, "/sys/dev/block/%u:%u/%squeue/%s", major(device),
                  minor(device), up, name);
    if (FILE* f = std::fopen(path, "re"); f != nullptr) {
      unsigned long long v = 0;
      const int n = std::fscanf(f, "%llu", &v);
      std::fclose(f);
      return n == 1 ? v : 0;
    }
  }
  return 0;
}

}  // namespace

SwapFile& SwapFile::operator=(SwapFile&& o) noexcept {
  std::swap(calls_, o.calls_);
  std::swap(path_, o.path_);
  std::swap(fd_, o.fd_);
  std::swap(is_device_, o.is_device_);
  std::swap(prealloc_, o.prealloc_);
  std::swap(holes_, o.holes_);
  std::swap(grows_to_, o.grows_to_);
  std::swap(discards_, o.discards_);
  std::swap(created_, o.created_);
  std::swap(size_before_, o.size_before_);
  std::swap(capacity_, o.capacity_);
  std::swap(alignment_, o.alignment_);
  return *this;
}

SwapFile::~SwapFile() {
  if (fd_ >= 0) {
    (void)calls_.flock(fd_, LOCK_UN);  // cannot fail on a lock that is held
    ::close(fd_);
  }
}

Error SwapFile::refuse(Errc code, const std::string& text, int os_error) const {
  return Error(code, path_ + ": " + text, os_error);
}

Result<SwapFile> SwapFile::open(const UringCalls& calls, const SwapFileConfig& config) {
  SwapFile file(calls);
  file.prealloc_ = config.prealloc;
  // Until it is locked the file may be somebody else's: nothing to undo but our creation of it.
  Result<void> r = file.open_locked(config.path);
  if (!r) {
    return r.error();
  }
  r = file.find_alignment();
  if (r) {
    r = file.find_size(config.size);
  }
  if (r) {
    r = file.find_discard();
  }
  if (r) {
    file.find_growth();
  }
  if (!r) {
    file.undo_open();
    return r.error();
  }
  return file;
}

// swapon(8) warns of this; who reads KV reads the text that made it, so here it is an error.
Result<void> SwapFile::check_private(const struct stat& file) const {
  const bool device = S_ISBLK(file.st_mode);
  if (const mode_t others = device ? 0007 : 0077; (file.st_mode & others) != 0) {
    char mode[8];
    std::snprintf(mode, sizeof mode, "%04o", file.st_mode & 07777u);
    return refuse(Errc::kPermission,
                  "has mode " + std::string(mode) +
                      ": other users could read the KV in it; chmod " +
                      (device ? "o-rwx " : "600 ") + path_,
                  0);
  }
  if (!device && file.st_uid != ::geteuid()) {
    return refuse(Errc::kPermission,
                  "belongs to user " + std::to_string(file.st_uid) +
                      ", who could read the KV in it; give this process (user " +
                      std::to_string(::geteuid()) + ") a file of its own, or chown it",
                  0);
  }
  return {};
}

Result<void> SwapFile::open_locked(const std::string& path) {
  path_ = path;
  struct stat before {};
  const bool exists = ::stat(path.c_str(), &before) == 0;
  if (exists && !S_ISREG(before.st_mode) && !S_ISBLK(before.st_mode)) {
    // Asked before the open: opening a FIFO or a tape has effects of its own.
    return refuse(Errc::kInvalid, "is neither a regular file nor a block device", 0);
  }
  int flags = O_RDWR | O_DIRECT | O_CLOEXEC | O_NOCTTY;
  if (!exists) {
    flags |= O_CREAT;  // only then: fs.protected_regular refuses O_CREAT on another user's file
  } else if (S_ISBLK(before.st_mode)) {
    flags |= O_EXCL;
  }
  fd_ = calls_.open(path.c_str(), flags, 0600);
  const int open_error = errno;
  if (fd_ < 0) {
    struct stat after {};
    if (!exists && open_error == EINVAL && ::stat(path.c_str(), &after) == 0 &&
        after.st_size == 0) {
      ::unlink(path.c_str());  // the kernel creates first and refuses O_DIRECT afterwards
    }
    const Errc code = open_errc(open_error);
    return refuse(code, open_advice(code), open_error);
  }
  struct stat now {};
  check(::fstat(fd_, &now) == 0, "fstat of an open file");
  if (!S_ISREG(now.st_mode) && !S_ISBLK(now.st_mode)) {
    return refuse(Errc::kInvalid, "is neither a regular file nor a block device", 0);
  }
  if (Result<void> hidden = check_private(now); !hidden) {
    if (!exists) {
      ::unlink(path.c_str());  // a file system with modes of its own
    }
    return hidden;
  }
  if (calls_.flock(fd_, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) {
      return refuse(Errc::kBusy,
                    "another process, or another runtime of this one, uses it as swap; give each "
                    "runtime a file of its own",
                    EWOULDBLOCK);
    }
    const int e = errno;
    return refuse(Errc::kNotSupported, "the file system cannot lock it (flock)", e);
  }
  created_ = !exists;
  is_device_ = S_ISBLK(now.st_mode);
  size_before_ = static_cast<uint64_t>(now.st_size);
  return {};
}

void SwapFile::undo_open() {
  if (is_device_) {
    return;
  }
  struct stat now {};
  check(::fstat(fd_, &now) == 0, "fstat of an open file");
  struct stat named {};
  if (created_ && ::lstat(path_.c_str(), &named) == 0 && named.st_ino == now.st_ino &&
      named.st_dev == now.st_dev) {  // else the path is a symbolic link: not ours to remove
    ::unlink(path_.c_str());
    return;
  }
  if (static_cast<uint64_t>(now.st_size) > size_before_) {
    // Nothing of ours is in the grown part yet. Should even this fail, the file is sparse there.
    (void)calls_.ftruncate(fd_, static_cast<off_t>(size_before_));
  }
}

Result<void> SwapFile::find_alignment() {
  alignment_ = Bytes(kAlignmentDefault);
#ifdef STATX_DIOALIGN
  struct statx x {};
  if (calls_.statx(fd_, STATX_DIOALIGN, &x) == 0 && (x.stx_mask & STATX_DIOALIGN) != 0) {
    const uint64_t a = std::max<uint64_t>(x.stx_dio_mem_align, x.stx_dio_offset_align);
    if (x.stx_dio_offset_align == 0 || x.stx_dio_mem_align == 0) {
      return refuse(Errc::kNotSupported, open_advice(Errc::kNotSupported), 0);
    }
    if (!std::has_single_bit(a) || a > kAlignmentMax) {
      return refuse(Errc::kNotSupported,
                    "direct I/O needs an alignment of " + std::to_string(a) + " bytes", 0);
    }
    alignment_ = Bytes(std::max<uint64_t>(a, 512));
  }
#endif
  return {};
}

Result<void> SwapFile::find_size(Bytes wanted) {
  const uint64_t align = alignment_.value();
  if (wanted.value() % align != 0) {
    return refuse(Errc::kInvalid, "size must be a multiple of " + std::to_string(align), 0);
  }
  if (is_device_) {
    uint64_t bytes = 0;
    if (::ioctl(fd_, BLKGETSIZE64, &bytes) != 0) {
      const int e = errno;
      return refuse(Errc::kIo, "cannot ask for the size of the device", e);
    }
    capacity_ = Bytes(round_down(bytes, align));
    if (capacity_ < wanted) {
      return refuse(Errc::kInvalid,
                    "the device has " + std::to_string(bytes) + " bytes, less than size=", 0);
    }
    // A device may be used in part: a size was asked for, or all of it.
    capacity_ = wanted.value() != 0 ? wanted : capacity_;
  } else {
    capacity_ = Bytes(round_down(size_before_, align));
    if (capacity_ < wanted) {
      Result<void> r = grow(wanted);
      if (!r) {
        return r;
      }
    } else if (prealloc_ && capacity_.value() != 0) {
      Result<void> r = fill(Bytes(0), capacity_);
      if (!r) {
        return r;
      }
    }
  }
  if (capacity_.value() == 0) {
    return refuse(Errc::kInvalid,
                  size_before_ == 0 ? "is empty; give its size, for example size=8G"
                                    : "is smaller than one block of the disk; use a new file",
                  0);
  }
  return {};
}

Result<void> SwapFile::find_discard() {
  if (is_device_) {
    struct stat now {};
    check(::fstat(fd_, &now) == 0, "fstat of an open device");
    // A hole in a device is "write zeroes" without a fallback to writing them.
    holes_ = read_queue_limit(now.st_rdev, "write_zeroes_max_bytes") != 0;
    discards_ = read_queue_limit(now.st_rdev, "discard_max_bytes") != 0 ? Discards::kDevice
                : holes_                                                ? Discards::kHole
                                                                        : Discards::kNot;
    return {};
  }
  // A hole behind the end of the file: no content there, but the same answer as inside.
  const off_t end = static_cast<off_t>(round_up(std::max(size_before_, capacity_.value()), kMiB));
  holes_ = calls_.fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, end,
                            static_cast<off_t>(alignment_.value())) == 0;
  discards_ = holes_ ? Discards::kHole : Discards::kNot;
  return {};
}

// Place for the first bytes, which are written next in any case. A full disk says that it would.
void SwapFile::find_growth() {
  const bool works =
      !is_device_ &&
      (calls_.fallocate(fd_, FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(alignment_.value())) == 0 ||
       errno == ENOSPC || errno == EDQUOT);
  grows_to_ = works ? size_limit() : Bytes(0);
}

Bytes SwapFile::size_limit() const {
  struct rlimit limit {};
  check(::getrlimit(RLIMIT_FSIZE, &limit) == 0, "getrlimit");
  const auto most = static_cast<uint64_t>(std::numeric_limits<off_t>::max());
  return Bytes(round_down(std::min<uint64_t>(limit.rlim_cur, most), alignment_.value()));
}

Error SwapFile::refuse_growth(Bytes capacity, int os_error) const {
  const std::string bytes = std::to_string(capacity.value());
  switch (os_error) {
    case ENOSPC:
    case EDQUOT:
      return refuse(Errc::kNoSpace, "no space on the file system for " + bytes + " bytes",
                    os_error);
    case EFBIG:
      return refuse(Errc::kNoSpace, bytes + " bytes are more than one file may have here",
                    os_error);
    case EOPNOTSUPP:
      return refuse(Errc::kNotSupported, "this file system has no fallocate; leave prealloc=1 away",
                    os_error);
    default:
      return refuse(Errc::kIo, "cannot grow to " + bytes + " bytes", os_error);
  }
}

Result<void> SwapFile::fill(Bytes from, Bytes to) {
  int rc;
  do {
    rc = calls_.fallocate(fd_, 0, static_cast<off_t>(from.value()),
                          static_cast<off_t>((to - from).value()));
  } while (rc != 0 && errno == EINTR);
  if (rc != 0) {
    const int e = errno;
    return refuse_growth(to, e);
  }
  return {};
}

Result<void> SwapFile::grow(Bytes capacity) {
  if (capacity < capacity_ || capacity.value() % alignment_.value() != 0) {
    return refuse(Errc::kInvalid, "grows by multiples of its alignment and never shrinks", 0);
  }
  if (is_device_) {
    uint64_t bytes = 0;
    if (::ioctl(fd_, BLKGETSIZE64, &bytes) != 0 || bytes < capacity.value()) {
      return refuse(Errc::kNotSupported, "a block device does not grow on request", 0);
    }
    capacity_ = capacity;
    return {};
  }
  // The kernel answers growth beyond this limit with SIGXFSZ, which would end the engine.
  struct rlimit limit {};
  check(::getrlimit(RLIMIT_FSIZE, &limit) == 0, "getrlimit");
  if (limit.rlim_cur != RLIM_INFINITY && capacity.value() > limit.rlim_cur) {
    return refuse(Errc::kNoSpace,
                  "the file size limit of this process (ulimit -f) is " +
                      std::to_string(limit.rlim_cur) + " bytes",
                  EFBIG);
  }
  struct stat now {};
  check(::fstat(fd_, &now) == 0, "fstat of an open file");
  const off_t old_size = now.st_size;
  if (prealloc_) {
    // From 0 at first, so that holes of an older file are filled as well.
    Result<void> r = fill(Bytes(0), capacity);
    if (!r) {
      (void)calls_.ftruncate(fd_,
                             old_size);  // fallocate keeps what it got before the disk was full
      return r;
    }
  } else if (static_cast<uint64_t>(old_size) < capacity.value() &&
             calls_.ftruncate(fd_, static_cast<off_t>(capacity.value())) != 0) {
    const int e = errno;
    return refuse_growth(capacity, e);
  }
  capacity_ = capacity;
  return {};
}

}  // namespace kvmm
