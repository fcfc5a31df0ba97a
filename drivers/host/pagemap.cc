// SPDX-License-Identifier: Apache-2.0
#include "drivers/host/pagemap.h"

#include <fcntl.h>

#include <cerrno>

#include "drivers/host/uapi.h"
#include "runtime/base/units.h"

namespace kvmm {
namespace {

// The first region in [start, start + length) whose pages have all of `categories`.
// Returns the number of regions found (0 or 1), or -1.
int scan(const SystemCalls& calls, int fd, uint64_t start, uint64_t length, uint64_t categories,
         uapi::PageRegion* region) {
  uapi::PagemapScan s{};
  s.size = sizeof(s);
  s.start = start;
  s.end = start + length;
  s.vec = reinterpret_cast<uint64_t>(region);
  s.vec_len = 1;
  s.category_mask = categories;
  s.return_mask = categories;
  return calls.ioctl(fd, uapi::kPagemapScan, &s);
}

}  // namespace

Result<Pagemap> Pagemap::open(const SystemCalls& calls) {
  const int fd = calls.open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    const int os_error = errno;
    const Errc code = os_error == ENOENT ? Errc::kNotSupported : errc_of_errno(os_error);
    return Error(code,
                 code == Errc::kLimit ? "/proc/self/pagemap; raise ulimit -n"
                                      : "/proc/self/pagemap: movable frames need /proc",
                 os_error);
  }
  Pagemap map(calls, fd);
  uapi::PageRegion region{};
  if (scan(calls, fd, 0, kPageSizeMin.value(), uapi::kPageIsPresent, &region) < 0) {
    return Error(Errc::kNotSupported,
                 "this kernel has no PAGEMAP_SCAN (Linux 6.7 and later have it), which movable "
                 "frames need; shareable frames work without it: frames=shareable",
                 errno);
  }
  return map;
}

Pagemap::~Pagemap() {
  if (fd_ >= 0) {
    calls_->close(fd_);
  }
}

bool Pagemap::any_present(uint64_t start, uint64_t length) const {
  uapi::PageRegion region{};
  return scan(*calls_, fd_, start, length, uapi::kPageIsPresent, &region) != 0;
}

uint64_t Pagemap::first_absent(uint64_t start, uint64_t length) const {
  uapi::PageRegion region{};
  switch (scan(*calls_, fd_, start, length, uapi::kPageIsPresent, &region)) {
    case 0:
      return start;
    case 1:
      return region.start > start ? start : region.end;
    default:
      return start + length;
  }
}

bool Pagemap::is_huge(uint64_t start) const {
  uapi::PageRegion region{};
  return scan(*calls_, fd_, start, kPageSizeMax.value(), uapi::kPageIsHuge, &region) == 1 &&
         region.start == start && region.end == start + kPageSizeMax.value();
}

}  // namespace kvmm
