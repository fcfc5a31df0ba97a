// SPDX-License-Identifier: Apache-2.0
//
// One userfaultfd: how the host driver hears of missing pages and moves pages in and out.
//
//   engine thread --touches a missing page--> kernel --message--> read_faults()
//        ^                                                             |
//        `------ runs on <-- move / continue_range / poison / wake <---'
//
// Opening asks the system call first and /dev/userfaultfd second; both want either rights or a
// setting, and the error says which. UFFD_USER_MODE_ONLY is never asked for, although it needs no
// rights: with it, a system call of the engine on a cold page fails with EFAULT.
//
// Features are negotiated by bits, not by kernel version: what the kernel offers is asked with one
// descriptor and enabled on a second (the kernel lets a descriptor be told only once).
//
// Invariants
//   1. The descriptor is non-blocking and closed on exec.
//   2. Nothing after `open` allocates memory: all of it may run on the fault path.
// Thread safety: after `open` any thread may call anything; the kernel serialises. Ownership: one
// MMU owns its Uffd; closing it ends the registration of every range.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "drivers/host/system_calls.h"
#include "drivers/ops.h"
#include "runtime/base/result.h"
#include "runtime/base/units.h"

namespace kvmm {

// How far one ioctl came. `os_error` 0: all of it.
struct UffdStep {
  uint64_t done = 0;  // bytes
  int os_error = 0;
};

class Uffd {
 public:
  // `required` and `optional`: bits of uapi::kFeature*.
  // Errors: kPermission (the text lists what allows it), kNotSupported (no userfaultfd in this
  // kernel, or a required feature is missing: the text names it and the way around), kLimit (file
  // descriptors), kNoMemory.
  static Result<Uffd> open(const SystemCalls& calls, uint64_t required, uint64_t optional);

  Uffd(Uffd&& o) noexcept
      : calls_(o.calls_), fd_(std::exchange(o.fd_, -1)), features_(o.features_) {}
  Uffd& operator=(Uffd&&) = delete;
  ~Uffd();

  int fd() const { return fd_; }
  bool has(uint64_t feature) const { return (features_ & feature) == feature; }

  // `mode`: UFFDIO_REGISTER_MODE_*. Errors: kInvalid, kNoMemory, kBusy (registered elsewhere).
  Result<void> register_range(AddressRange range, uint64_t mode) const;

  // Moves pages from `src` to `dst` without a copy; `wake`: lets threads that wait on `dst` go on.
  // os_error: EAGAIN (go on behind `done`), EBUSY (pinned or in I/O), EEXIST (something is at dst),
  // ENOENT (nothing is at src), EINVAL.
  UffdStep move(uint64_t dst, uint64_t src, uint64_t length, bool wake) const;
  // Gives missing pages the bytes at `from`, in memory of their own, and lets threads that wait go
  // on. os_error: EEXIST (something is at dst), ENOENT (no mapping), ENOMEM, EAGAIN.
  UffdStep copy(uint64_t dst, const void* from, uint64_t length) const;
  // Maps the page-cache pages of a shared mapping. os_error: EEXIST, EFAULT (a hole), EAGAIN.
  UffdStep continue_range(uint64_t start, uint64_t length) const;
  // Accesses get SIGBUS from now on. os_error: EEXIST (a page or a marker is there), EAGAIN.
  UffdStep poison(uint64_t start, uint64_t length) const;

  // NON-BLOCKING. Page faults that wait, oldest first; other events are dropped.
  size_t read_faults(std::span<FaultEvent> out) const;
  void wake(AddressRange range) const;

 private:
  Uffd(const SystemCalls& calls, int fd, uint64_t features)
      : calls_(&calls), fd_(fd), features_(features) {}

  // Constant after construction.
  const SystemCalls* calls_;
  int fd_;
  uint64_t features_;
};

}  // namespace kvmm
