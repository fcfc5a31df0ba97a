// SPDX-License-Identifier: Apache-2.0
#include "drivers/uring/uring_block.h"

#include <linux/falloc.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "drivers/block_request.h"
#include "runtime/base/check.h"

namespace kvmm {
namespace {

constexpr uint32_t kRetriesMax = 64;  // of one request; the kernel's reasons last microseconds
constexpr uint64_t kProbeRead = ~uint64_t{0};

Errc io_errc(int e) {
  switch (e) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return Errc::kNoSpace;
    case ENODEV:
    case ENXIO:
    case ESHUTDOWN:
      return Errc::kDeviceGone;
    case EOPNOTSUPP:
      return Errc::kNotSupported;
    case ECANCELED:  // again and again: the kernel can start no worker thread for it
      return Errc::kLimit;
    default:
      return Errc::kIo;
  }
}

// Best effort class: needs no privilege. 0 is its most urgent level. (linux/ioprio.h of some
// distributions has an argument called `class` and does not compile here.)
uint16_t io_priority(Urgency u) {
  constexpr uint16_t kClassBestEffort = 2 << 13;
  constexpr uint16_t kLevel[] = {0, 3, 5, 7};
  return static_cast<uint16_t>(kClassBestEffort | kLevel[static_cast<size_t>(u) & 3]);
}

// BLKDISCARD without its waiting (Linux 6.12); older kernels answer EOPNOTSUPP or EINVAL.
void prepare_discard(io_uring_sqe* sqe, int fd, uint64_t offset, uint64_t length) {
  constexpr uint32_t kBlockUringCmdDiscard = _IO(0x12, 0);
  io_uring_prep_nop(sqe);
  sqe->opcode = IORING_OP_URING_CMD;
  sqe->fd = fd;
  sqe->cmd_op = kBlockUringCmdDiscard;
  sqe->addr = offset;
  sqe->addr3 = length;
}

// What /proc/sys/kernel/io_uring_disabled says, or -1 on kernels without it.
int io_uring_disabled() {
  int v = -1;
  if (FILE* f = std::fopen("/proc/sys/kernel/io_uring_disabled", "re"); f != nullptr) {
    if (std::fscanf(f, "%d", &v) != 1) {
      v = -1;
    }
    std::fclose(f);
  }
  return v;
}

Error ring_refused(int e) {
  const std::string container =
      "in a container allow io_uring_setup, io_uring_enter and io_uring_register in its seccomp "
      "profile (docker run --security-opt seccomp=PROFILE.json)";
  switch (e) {
    case EPERM:
    case EACCES: {
      const int disabled = io_uring_disabled();
      std::string text = "io_uring is not allowed here: ";
      if (disabled > 0) {
        text += "kernel.io_uring_disabled is " + std::to_string(disabled) +
                "; as root: sysctl kernel.io_uring_disabled=0" +
                (disabled == 1 ? ", or put the user into the group kernel.io_uring_group" : "");
      } else {
        text += container;
      }
      return Error(Errc::kPermission, text, e);
    }
    case ENOSYS:
      return Error(Errc::kNotSupported,
                   "this kernel has no io_uring, or the container hides it: Linux 5.6 or newer is "
                   "needed; " +
                       container,
                   e);
    case ENOMEM:
      return Error(Errc::kLimit,
                   "no locked memory for the ring; raise ulimit -l or lower depth=", e);
    case EMFILE:
    case ENFILE:
      return Error(Errc::kLimit, "too many open files; raise ulimit -n", e);
    default:
      return Error(Errc::kNotSupported, "io_uring does not work here; " + container, e);
  }
}

}  // namespace

Result<std::unique_ptr<UringBlock>> UringBlock::create(const UringCalls& calls,
                                                       const SwapFileConfig& config,
                                                       uint32_t depth) {
  std::unique_ptr<UringBlock> block(new UringBlock(calls, depth));
  // The ring first: where it is refused, no file has been made for nothing.
  Result<void> r = block->open_ring();
  if (!r) {
    return r.error();
  }
  Result<SwapFile> file = SwapFile::open(calls, config);
  if (!file) {
    return file.error();
  }
  block->file_ = std::make_unique<SwapFile>(std::move(*file));
  block->slots_.resize(depth);
  block->queued_.reserve(depth);
  for (uint32_t s = depth; s > 0; --s) {
    block->free_.push_back(s - 1);
  }
  r = block->try_read();
  if (!r) {
    block->file_->undo_open();
    return r.error();
  }
  return block;
}

Result<void> UringBlock::open_ring() {
  io_uring_params params{};
  params.flags = IORING_SETUP_CLAMP;
  int rc = calls_.ring_init(depth_, &ring_, &params);
  if (rc < 0) {
    return ring_refused(-rc);
  }
  ring_open_ = true;
  constexpr unsigned kOpcodes = 256;
  std::unique_ptr<void, void (*)(void*)> memory(
      std::calloc(1, sizeof(io_uring_probe) + kOpcodes * sizeof(io_uring_probe_op)), std::free);
  if (memory == nullptr) {
    return Errc::kNoMemory;
  }
  auto* probe = static_cast<io_uring_probe*>(memory.get());
  rc = io_uring_register_probe(&ring_, probe, kOpcodes);
  if (rc < 0) {
    return ring_refused(-rc);
  }
  bool all = true;
  for (int op : {IORING_OP_READ, IORING_OP_WRITE, IORING_OP_FSYNC, IORING_OP_FALLOCATE}) {
    all = all && io_uring_opcode_supported(probe, op);
  }
  if (!all || params.sq_entries < depth_) {
    return Error(Errc::kNotSupported,
                 all ? "depth= is more than this kernel's io_uring takes"
                     : "this kernel's io_uring lacks read, write, fsync or fallocate; Linux 5.6 or "
                       "newer is needed");
  }
  event_fd_ = calls_.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (event_fd_ < 0) {
    return ring_refused(errno);
  }
  rc = calls_.ring_eventfd(&ring_, event_fd_);
  if (rc < 0) {
    return ring_refused(-rc);
  }
  return {};
}

// One read at bind. Some file systems accept O_DIRECT and fail its I/O, some containers allow
// io_uring_setup alone; both must be known before a page depends on it.
Result<void> UringBlock::try_read() {
  const size_t length = file_->alignment().value();
  std::unique_ptr<void, void (*)(void*)> buffer(std::aligned_alloc(length, length), std::free);
  if (buffer == nullptr) {
    return Errc::kNoMemory;
  }
  io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
  check(sqe != nullptr, "an empty ring has an entry");
  io_uring_prep_read(sqe, file_->fd(), buffer.get(), static_cast<unsigned>(length), 0);
  io_uring_sqe_set_data64(sqe, kProbeRead);
  int rc = calls_.ring_submit(&ring_);
  if (rc < 0) {
    return ring_refused(-rc);
  }
  io_uring_cqe* cqe = nullptr;
  do {
    rc = io_uring_wait_cqe(&ring_, &cqe);
  } while (rc == -EINTR);
  if (rc < 0) {
    return ring_refused(-rc);
  }
  const int32_t res = cqe->res;
  io_uring_cqe_seen(&ring_, cqe);
  if (res == -EINVAL || res == -EOPNOTSUPP) {
    return Error(Errc::kNotSupported,
                 file_->path() +
                     ": the file system accepts O_DIRECT but refuses direct reads; put the file on "
                     "ext4, xfs or btrfs, or name a block device",
                 -res);
  }
  if (res != static_cast<int32_t>(length)) {
    return Error(Errc::kIo, file_->path() + ": the first read failed", res < 0 ? -res : ENODATA);
  }
  return {};
}

UringBlock::~UringBlock() {
  if (ring_open_) {
    if (!queued_.empty()) {
      push_batch();
    }
    while (free_.size() < slots_.size()) {
      if (!queued_.empty()) {
        ring_failed(ECANCELED);  // the kernel never saw these
        continue;
      }
      io_uring_cqe* cqe = nullptr;
      const int rc = io_uring_wait_cqe(&ring_, &cqe);
      check(rc == 0 || rc == -EINTR, "waiting for what is in flight", -rc, 0);
      ring_error_ = ring_error_ == 0 ? ECANCELED : ring_error_;  // no retries any more
      poll();
    }
    io_uring_queue_exit(&ring_);
  }
  if (event_fd_ >= 0) {
    ::close(event_fd_);
  }
}

BlockInfo UringBlock::info() const {
  BlockInfo i;
  i.name = "uring";
  i.capacity = file_->capacity();
  i.alignment = file_->alignment();
  i.length_max = kBlockLengthMax;
  i.depth = depth_;
  i.discards = file_->discards() != SwapFile::Discards::kNot;
  i.grows_to = file_->grows_to();
  return i;
}

void UringBlock::prepare(uint32_t slot) {
  Slot& s = slots_[slot];
  BlockRequest& r = *s.request;
  io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
  check(sqe != nullptr, "a free slot has an entry of the ring", slot, depth_);
  const uint64_t offset = r.offset + s.done;
  const uint64_t length = r.length.value() - s.done;
  switch (r.op) {
    case BlockOp::kRead:
      io_uring_prep_read(sqe, file_->fd(), r.data + s.done, static_cast<unsigned>(length), offset);
      sqe->ioprio = io_priority(r.urgency);
      break;
    case BlockOp::kWrite:
      io_uring_prep_write(sqe, file_->fd(), r.data + s.done, static_cast<unsigned>(length), offset);
      sqe->ioprio = io_priority(r.urgency);
      break;
    case BlockOp::kFlush:
      io_uring_prep_fsync(sqe, file_->fd(), IORING_FSYNC_DATASYNC);
      break;
    case BlockOp::kDiscard:
      if (file_->discards() == SwapFile::Discards::kDevice) {
        prepare_discard(sqe, file_->fd(), offset, length);
        break;
      }
      io_uring_prep_fallocate(sqe, file_->fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                              static_cast<off_t>(offset), static_cast<off_t>(length));
      break;
    case BlockOp::kGrow:
      io_uring_prep_fallocate(sqe, file_->fd(), 0, static_cast<off_t>(offset),
                              static_cast<off_t>(length));
      break;
  }
  io_uring_sqe_set_data64(sqe, slot);
  queued_.push_back(slot);
}

size_t UringBlock::submit(std::span<BlockRequest* const> requests) {
  const BlockInfo limits = info();
  size_t taken = 0;
  for (BlockRequest* r : requests) {
    Errc refused = check_block_request(*r, limits);
    if (refused == Errc::kOk && r->op == BlockOp::kDiscard && !limits.discards) {
      refused = Errc::kNotSupported;
    }
    if (refused == Errc::kOk && r->op == BlockOp::kGrow &&
        Bytes(r->offset + r->length.value()) > file_->size_limit()) {
      refused = Errc::kNoSpace;
    }
    if (refused == Errc::kOk && ring_error_ != 0) {
      refused = Errc::kDeviceGone;
    }
    if (refused != Errc::kOk) {
      finish_block_request(*r, refused, refused == Errc::kDeviceGone ? ring_error_ : 0);
    } else {
      if (free_.empty()) {
        break;
      }
      const uint32_t slot = free_.back();
      free_.pop_back();
      slots_[slot] = Slot{r, 0, 0};
      prepare(slot);
    }
    ++taken;
  }
  if (!queued_.empty()) {
    push_batch();
  }
  return taken;
}

void UringBlock::push_batch() {
  int rc;
  do {
    rc = calls_.ring_submit(&ring_);
  } while (rc == -EINTR);
  if (rc >= 0) {
    const size_t n = std::min(static_cast<size_t>(rc), queued_.size());
    queued_.erase(queued_.begin(), queued_.begin() + static_cast<ptrdiff_t>(n));
    rc = queued_.empty() ? 0 : -EAGAIN;
  }
  if (rc == -EAGAIN || rc == -EBUSY || rc == -ENOMEM) {
    // The kernel is short of something; the entries stay in the ring for the next poll. With
    // nothing in flight no completion would lead to one: be readable ourselves.
    (void)eventfd_write(event_fd_, 1);
  } else if (rc < 0) {
    ring_failed(-rc);
  }
}

void UringBlock::ring_failed(int os_error) {
  ring_error_ = os_error;
  for (const uint32_t slot : queued_) {
    finish(slot, os_error == ECANCELED ? Errc::kCancelled : Errc::kDeviceGone, os_error);
  }
  queued_.clear();
}

void UringBlock::poll() {
  if (!arms_) {
    eventfd_t ticks = 0;
    // Before the reaping: a completion that comes in between leaves the descriptor readable.
    (void)eventfd_read(event_fd_, &ticks);
  } else if (io_uring_cq_eventfd_enabled(&ring_)) {
    check(io_uring_cq_eventfd_toggle(&ring_, false) == 0, "ticks can be switched off");
  }
  io_uring_cqe* cqe = nullptr;
  while (io_uring_peek_cqe(&ring_, &cqe) == 0) {
    const auto slot = static_cast<uint32_t>(io_uring_cqe_get_data64(cqe));
    const int32_t res = cqe->res;
    io_uring_cqe_seen(&ring_, cqe);
    check(slot < slots_.size() && slots_[slot].request != nullptr, "a completion names a busy slot",
          slot, depth_);
    complete(slot, res);
  }
  if (!queued_.empty()) {
    push_batch();
  }
}

bool UringBlock::arm() {
  if (ring_.cq.kflags == nullptr) {  // Linux before 5.8 cannot switch ticks off
    return io_uring_cq_ready(&ring_) != 0 || !queued_.empty();
  }
  arms_ = true;
  eventfd_t ticks = 0;
  (void)eventfd_read(event_fd_, &ticks);
  check(io_uring_cq_eventfd_toggle(&ring_, true) == 0, "ticks can be switched on");
  // The kernel publishes a completion, then looks whether ticks are on, with a full barrier in
  // between; here it is the other way round: one of the two sees the other.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return io_uring_cq_ready(&ring_) != 0 || !queued_.empty();
}

void UringBlock::complete(uint32_t slot, int32_t res) {
  Slot& s = slots_[slot];
  BlockRequest& r = *s.request;
  if (res < 0) {
    // ECANCELED: the thread that submitted it has ended, and its work with it.
    const bool passing = res == -EAGAIN || res == -EINTR || res == -ECANCELED;
    if (passing && ++s.retries <= kRetriesMax && ring_error_ == 0) {
      prepare(slot);
      return;
    }
    if (r.op == BlockOp::kDiscard && (res == -EOPNOTSUPP || res == -EINVAL || res == -ENOTTY) &&
        file_->discards() != SwapFile::Discards::kNot) {
      file_->discard_refused();
      if (file_->discards() != SwapFile::Discards::kNot && ring_error_ == 0) {
        prepare(slot);
        return;
      }
    }
    finish(slot, io_errc(-res), -res);
    return;
  }
  if (r.op != BlockOp::kRead && r.op != BlockOp::kWrite) {
    if (r.op == BlockOp::kGrow) {
      file_->grown(Bytes(r.offset + r.length.value()));
    }
    finish(slot, Errc::kOk, 0);
    return;
  }
  s.done += static_cast<uint32_t>(res);
  s.retries = 0;
  check(s.done <= r.length.value(), "no more bytes than asked for", s.done, r.length);
  if (s.done == r.length.value()) {
    finish(slot, Errc::kOk, 0);
  } else if (res == 0 || s.done % file_->alignment().value() != 0) {
    finish(slot, Errc::kIo, ENODATA);  // the file ends here: somebody truncated it
  } else if (ring_error_ != 0) {
    finish(slot, Errc::kDeviceGone, ring_error_);
  } else {
    prepare(slot);
  }
}

void UringBlock::finish(uint32_t slot, Errc result, int os_error) {
  BlockRequest* r = slots_[slot].request;
  slots_[slot].request = nullptr;
  free_.push_back(slot);
  finish_block_request(*r, result, os_error);
}

}  // namespace kvmm
