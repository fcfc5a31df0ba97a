// SPDX-License-Identifier: Apache-2.0
//
// Kernel definitions that this project needs and that the headers of Debian 12 (Linux 6.1) lack.
//
//   what                     since    used for
//   UFFD_FEATURE_POISON      6.6      a page that cannot come back: SIGBUS instead of bytes
//   UFFD_FEATURE_MOVE        6.8      map and unmap of movable frames
//   UFFD_FEATURE_WP_ASYNC    6.7      known here so that a feature mask can be printed; not used
//   PAGEMAP_SCAN             6.7      is it present, is it one huge page?
//   USERFAULTFD_IOC_NEW      6.1      a userfaultfd from /dev/userfaultfd
//
// The names are ours (a namespace, no macros), so that this header and newer system headers do not
// collide. Layouts and numbers are the kernel's ABI and never change.
#pragma once

#include <linux/ioctl.h>
#include <linux/userfaultfd.h>

#include <cstdint>

namespace kvmm::uapi {

// Bits of uffdio_api.features.
inline constexpr uint64_t kFeatureMissingShmem = uint64_t{1} << 5;
inline constexpr uint64_t kFeatureThreadId = uint64_t{1} << 8;
inline constexpr uint64_t kFeatureMinorShmem = uint64_t{1} << 10;
inline constexpr uint64_t kFeaturePoison = uint64_t{1} << 14;
inline constexpr uint64_t kFeatureWpAsync = uint64_t{1} << 15;
inline constexpr uint64_t kFeatureMove = uint64_t{1} << 16;

inline constexpr uint64_t kModeDontWake = uint64_t{1} << 0;  // of MOVE, CONTINUE and POISON alike

struct UffdMove {
  uint64_t dst;
  uint64_t src;
  uint64_t len;
  uint64_t mode;
  int64_t move;  // out: bytes moved, or -errno
};
static_assert(sizeof(UffdMove) == 40);
inline constexpr unsigned long kUffdMove = _IOWR(UFFDIO, 0x05, UffdMove);

struct UffdPoison {
  uffdio_range range;
  uint64_t mode;
  int64_t updated;  // out: bytes poisoned, or -errno
};
static_assert(sizeof(UffdPoison) == 32);
inline constexpr unsigned long kUffdPoison = _IOWR(UFFDIO, 0x08, UffdPoison);

inline constexpr unsigned long kUserfaultfdNew = _IO(0xAA, 0x00);

struct PageRegion {
  uint64_t start;
  uint64_t end;
  uint64_t categories;
};
struct PagemapScan {
  uint64_t size;
  uint64_t flags;
  uint64_t start;
  uint64_t end;
  uint64_t walk_end;
  uint64_t vec;
  uint64_t vec_len;
  uint64_t max_pages;
  uint64_t category_inverted;
  uint64_t category_mask;
  uint64_t category_anyof_mask;
  uint64_t return_mask;
};
static_assert(sizeof(PagemapScan) == 96);
inline constexpr unsigned long kPagemapScan = _IOWR('f', 16, PagemapScan);
inline constexpr uint64_t kPageIsPresent = uint64_t{1} << 3;
inline constexpr uint64_t kPageIsHuge = uint64_t{1}
                                        << 6;  // mapped by one page-middle-directory entry

}  // namespace kvmm::uapi
