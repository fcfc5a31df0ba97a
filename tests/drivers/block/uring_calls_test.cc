// SPDX-License-Identifier: Apache-2.0
//
// The uring driver when system calls fail: replaced one by one through its table, and refused for
// real by a seccomp filter, as in containers.
#include <fcntl.h>
#include <liburing.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>

#include "drivers/uring/uring_driver.h"
#include "tests/drivers/block/block_rig.h"

namespace kvmm {
namespace {

// What the replaced calls do. Functions in a table have no state of their own.
int injected_errno = 0;
int injected_times = 0;
void (*edit_entry)(io_uring_sqe* sqe) = nullptr;

class UringCallsTest : public testing::Test {
 protected:
  void SetUp() override {
    injected_errno = 0;
    injected_times = 0;
    edit_entry = nullptr;
  }
  Error refusal(const UringCalls& calls, const std::string& options = "size=1M") {
    auto device = make_uring_driver(calls)->bind(file_info(path_, options), nullptr);
    if (device.ok()) {
      ADD_FAILURE() << "the injected failure went unseen";
      return Errc::kInvalid;
    }
    EXPECT_NE(::access(path_.c_str(), F_OK), 0) << "a failed bind leaves no file behind";
    return device.error();
  }
  void expect(Errc code, const UringCalls& calls, const std::string& text,
              const std::string& options = "size=1M") {
    const Error e = refusal(calls, options);
    EXPECT_EQ(e.code, code) << e.message();
    EXPECT_NE(e.detail.find(text), std::string::npos) << e.message();
  }
  void build(const UringCalls& calls, const std::string& options = "size=1M,depth=8") {
    rig_.device = bind_or_fail(make_uring_driver(calls), file_info(path_, options));
    ASSERT_NE(rig_.device, nullptr);
  }

  TestFolder folder_;
  std::string path_ = folder_.file("swap");
  UringCalls calls_ = uring_system_calls();
  BlockRig rig_;
};

TEST_F(UringCallsTest, RefusedIoUringSaysWhatAllowsIt) {
  calls_.ring_init = [](unsigned, io_uring*, io_uring_params*) { return -injected_errno; };
  injected_errno = EPERM;
  expect(Errc::kPermission, calls_, "seccomp");
  injected_errno = EACCES;
  expect(Errc::kPermission, calls_, "not allowed");
  injected_errno = ENOSYS;
  expect(Errc::kNotSupported, calls_, "Linux 5.6");
  injected_errno = ENOMEM;
  expect(Errc::kLimit, calls_, "ulimit -l");
  injected_errno = EMFILE;
  expect(Errc::kLimit, calls_, "ulimit -n");
  injected_errno = EINVAL;
  expect(Errc::kNotSupported, calls_, "io_uring");
}

TEST_F(UringCallsTest, SetUpOfTheEventDescriptorFails) {
  UringCalls calls = calls_;
  calls.eventfd = [](unsigned, int) {
    errno = EMFILE;
    return -1;
  };
  expect(Errc::kLimit, calls, "ulimit -n");
  calls = calls_;
  calls.ring_eventfd = [](io_uring*, int) { return -EPERM; };
  expect(Errc::kPermission, calls, "not allowed");
}

TEST_F(UringCallsTest, TheFirstReadFails) {
  calls_.ring_submit = [](io_uring*) { return -EPERM; };
  expect(Errc::kPermission, calls_, "io_uring_enter");
  // A file system that takes O_DIRECT and fails its reads: an operation that is none.
  calls_.ring_submit = [](io_uring* ring) {
    ring->sq.sqes[ring->sq.sqe_head & *ring->sq.kring_mask].opcode = 255;
    return io_uring_submit(ring);
  };
  expect(Errc::kNotSupported, calls_, "direct reads");
  calls_.ring_submit = [](io_uring* ring) {
    ring->sq.sqes[ring->sq.sqe_head & *ring->sq.kring_mask].fd = -1;
    return io_uring_submit(ring);
  };
  EXPECT_EQ(refusal(calls_).os_error, EBADF);
}

TEST_F(UringCallsTest, OpenFails) {
  calls_.open = [](const char*, int, mode_t) {
    errno = injected_errno;
    return -1;
  };
  const struct {
    int error;
    Errc code;
    const char* text;
  } kCases[] = {
      {EINVAL, Errc::kNotSupported, "O_DIRECT"}, {EOPNOTSUPP, Errc::kNotSupported, "O_DIRECT"},
      {EACCES, Errc::kPermission, "permission"}, {EROFS, Errc::kPermission, "permission"},
      {EMFILE, Errc::kLimit, "ulimit -n"},       {ENFILE, Errc::kLimit, "ulimit -n"},
      {ENOSPC, Errc::kNoSpace, "open"},          {EDQUOT, Errc::kNoSpace, "open"},
      {ENOTDIR, Errc::kNotFound, "folder"},      {ETXTBSY, Errc::kBusy, "in use"},
      {ENOMEM, Errc::kNoMemory, "open"},         {EIO, Errc::kIo, "open"},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.error);
    injected_errno = c.error;
    expect(c.code, calls_, c.text);
    EXPECT_EQ(refusal(calls_).os_error, c.error);
  }
}

TEST_F(UringCallsTest, RefusedDirectIoLeavesNoFile) {
  // As the kernel does it: the file is made, then O_DIRECT is refused.
  calls_.open = [](const char* path, int flags, mode_t mode) {
    const int fd = ::open(path, flags & ~O_DIRECT, mode);
    ::close(fd);
    errno = EINVAL;
    return -1;
  };
  expect(Errc::kNotSupported, calls_, "ext4");
}

TEST_F(UringCallsTest, TheFileSystemCannotLock) {
  calls_.flock = [](int fd, int operation) {
    if (operation == LOCK_UN) {
      return ::flock(fd, operation);
    }
    errno = EOPNOTSUPP;
    return -1;
  };
  auto device = make_uring_driver(calls_)->bind(file_info(path_, "size=1M"), nullptr);
  EXPECT_EQ(device.code(), Errc::kNotSupported);
}

TEST_F(UringCallsTest, GrowingFails) {
  UringCalls calls = calls_;
  calls.ftruncate = [](int, off_t) {
    errno = injected_errno;
    return -1;
  };
  injected_errno = ENOSPC;
  expect(Errc::kNoSpace, calls, "no space");
  injected_errno = EFBIG;
  expect(Errc::kNoSpace, calls, "one file");
  injected_errno = EIO;
  expect(Errc::kIo, calls, "grow");
  calls = calls_;
  calls.fallocate = [](int, int, off_t, off_t) {
    errno = injected_errno;
    return -1;
  };
  injected_errno = EOPNOTSUPP;
  expect(Errc::kNotSupported, calls, "prealloc", "size=1M,prealloc=1");
  injected_errno = EDQUOT;
  expect(Errc::kNoSpace, calls, "no space", "size=1M,prealloc=1");
}

TEST_F(UringCallsTest, AFailedBindShrinksWhatItGrew) {
  const int fd = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  ASSERT_EQ(::ftruncate(fd, 4096), 0);
  calls_.ring_submit = [](io_uring*) { return -EPERM; };
  EXPECT_EQ(make_uring_driver(calls_)->bind(file_info(path_, "size=1M"), nullptr).code(),
            Errc::kPermission);
  EXPECT_EQ(::lseek(fd, 0, SEEK_END), 4096);
  ::close(fd);
}

TEST_F(UringCallsTest, PreallocationIsRepeatedWhenInterrupted) {
  injected_times = 3;
  calls_.fallocate = [](int fd, int mode, off_t offset, off_t length) {
    if (mode == 0 && injected_times-- > 0) {
      errno = EINTR;
      return -1;
    }
    return ::fallocate(fd, mode, offset, length);
  };
  build(calls_, "size=1M,prealloc=1");
  EXPECT_LE(injected_times, 0);
}

#ifdef STATX_DIOALIGN
uint32_t statx_memory = 0, statx_offset = 0;

TEST_F(UringCallsTest, TheKernelSaysTheAlignment) {
  calls_.statx = [](int, unsigned, struct statx* out) {
    out->stx_mask = STATX_DIOALIGN;
    out->stx_dio_mem_align = statx_memory;
    out->stx_dio_offset_align = statx_offset;
    return 0;
  };
  statx_memory = 4;
  statx_offset = 512;
  build(calls_);
  EXPECT_EQ(rig_.block().info().alignment, Bytes(512));
  rig_.device.reset();
  statx_offset = 8192;
  build(calls_);
  EXPECT_EQ(rig_.block().info().alignment, Bytes(8192));
  rig_.device.reset();
  ::unlink(path_.c_str());
  statx_offset = 0;
  expect(Errc::kNotSupported, calls_, "O_DIRECT");
  statx_offset = 3000;
  expect(Errc::kNotSupported, calls_, "3000");
  statx_offset = 128 * 1024;
  expect(Errc::kNotSupported, calls_, "131072");
}
#endif

TEST_F(UringCallsTest, WithoutStatxTheAlignmentIs4096) {
  calls_.statx = [](int, unsigned, struct statx*) {
    errno = ENOSYS;
    return -1;
  };
  build(calls_);
  EXPECT_EQ(rig_.block().info().alignment, Bytes(4096));
}

TEST_F(UringCallsTest, AFileSystemWithoutHolesDoesNotDiscard) {
  calls_.fallocate = [](int, int, off_t, off_t) {
    errno = EOPNOTSUPP;
    return -1;
  };
  build(calls_);
  EXPECT_FALSE(rig_.block().info().discards);
  EXPECT_EQ(rig_.run(BlockOp::kDiscard, nullptr, 0, 4096), Errc::kNotSupported);
}

// --------------------------------------------------------------------------- while it is in use

TEST_F(UringCallsTest, AKernelShortOfMemoryIsAskedAgain) {
  calls_.ring_submit = [](io_uring* ring) {
    return injected_times > 0 ? (--injected_times, -injected_errno) : io_uring_submit(ring);
  };
  build(calls_);
  Buffer b(4096, 1);
  for (const int e : {EAGAIN, EBUSY, ENOMEM, EINTR}) {
    injected_errno = e;
    injected_times = 5;
    // rig_.wait sleeps on the descriptor: it must become readable although nothing is in flight.
    EXPECT_EQ(rig_.run(BlockOp::kWrite, &b, 0, 4096), Errc::kOk) << e;
    EXPECT_EQ(injected_times, 0);
  }
}

TEST_F(UringCallsTest, ADeadRingFinishesEverything) {
  calls_.ring_submit = [](io_uring* ring) {
    return injected_errno != 0 ? -injected_errno : io_uring_submit(ring);
  };
  build(calls_);
  Buffer b(4096, 1);
  BlockRequest r[3];
  std::vector<BlockRequest*> list;
  for (size_t i = 0; i < 3; ++i) {
    r[i] = rig_.request(BlockOp::kWrite, &b, i * 4096, 4096);
    list.push_back(&r[i]);
  }
  injected_errno = EBADF;
  EXPECT_EQ(rig_.block().submit(list), 3u);
  for (int i = 0; i < 3; ++i) {
    BlockRequest* done = rig_.wait();
    EXPECT_EQ(done->result, Errc::kDeviceGone);
    EXPECT_EQ(done->os_error, EBADF);
  }
  injected_errno = 0;
  EXPECT_EQ(rig_.run(BlockOp::kRead, &b, 0, 4096), Errc::kDeviceGone) << "and stays dead";
}

TEST_F(UringCallsTest, TearDownFinishesWhatTheKernelNeverTook) {
  calls_.ring_submit = [](io_uring* ring) {
    return injected_times > 0 ? -EAGAIN : io_uring_submit(ring);
  };
  build(calls_);
  Buffer b(4096, 1);
  BlockRequest taken = rig_.request(BlockOp::kWrite, &b, 0, 4096);
  BlockRequest* one = &taken;
  ASSERT_EQ(rig_.block().submit({&one, 1}), 1u);
  injected_times = 1;
  BlockRequest stuck = rig_.request(BlockOp::kWrite, &b, 4096, 4096);
  one = &stuck;
  ASSERT_EQ(rig_.block().submit({&one, 1}), 1u);
  rig_.device.reset();
  while (rig_.queue.pop() != nullptr) {
  }
  EXPECT_EQ(taken.result, Errc::kOk) << "what was in flight was waited for";
  EXPECT_EQ(stuck.result, Errc::kCancelled);
}

// Lets the driver prepare an entry and changes it before the kernel sees it.
int submit_edited(io_uring* ring) {
  for (unsigned i = ring->sq.sqe_head; edit_entry != nullptr && i != ring->sq.sqe_tail; ++i) {
    edit_entry(&ring->sq.sqes[i & *ring->sq.kring_mask]);
  }
  return io_uring_submit(ring);
}

TEST_F(UringCallsTest, ShortTransfersAreContinued) {
  calls_.ring_submit = submit_edited;
  build(calls_);
  // The kernel moves one 4096 bytes at a time, however many are asked for.
  edit_entry = [](io_uring_sqe* sqe) {
    ++injected_times;
    sqe->len = std::min<unsigned>(sqe->len, 4096);
  };
  Buffer out(64 * kKiB, 1), in(64 * kKiB, 2);
  ASSERT_EQ(rig_.run(BlockOp::kWrite, &out, 8192, out.size()), Errc::kOk);
  EXPECT_EQ(injected_times, 16);
  ASSERT_EQ(rig_.run(BlockOp::kRead, &in, 8192, in.size()), Errc::kOk);
  EXPECT_EQ(injected_times, 32);
  EXPECT_TRUE(in == out);
}

TEST_F(UringCallsTest, AnAnswerOfNothingIsIo) {
  calls_.ring_submit = submit_edited;
  build(calls_);
  edit_entry = [](io_uring_sqe* sqe) { sqe->opcode = IORING_OP_NOP; };  // answers 0
  Buffer b(4096, 1);
  EXPECT_EQ(rig_.run(BlockOp::kWrite, &b, 0, 4096), Errc::kIo);
  EXPECT_EQ(rig_.run(BlockOp::kRead, &b, 0, 4096), Errc::kIo);
}

TEST_F(UringCallsTest, ErrnoOfTheKernelBecomesATypedResult) {
  calls_.ring_submit = submit_edited;
  build(calls_);
  Buffer b(4096, 1);
  // IORING_NOP_INJECT_RESULT, Linux 6.10: the entry's result is its length field.
  edit_entry = [](io_uring_sqe* sqe) {
    sqe->opcode = IORING_OP_NOP;
    sqe->ioprio = 0;
    sqe->rw_flags = 1;
    sqe->len = static_cast<unsigned>(-injected_errno);
    sqe->addr = sqe->off = 0;
    if (injected_times-- <= 0) {
      edit_entry = nullptr;
    }
  };
  auto* const inject = edit_entry;
  injected_errno = ERANGE;
  BlockRequest r = rig_.request(BlockOp::kWrite, &b, 0, 4096);
  if (rig_.run(r) != Errc::kIo || r.os_error != ERANGE) {
    GTEST_SKIP() << "uring_injected_results: this kernel's io_uring injects no results";
  }
  const struct {
    int error;
    Errc result;
  } kCases[] = {{EIO, Errc::kIo},
                {ENOSPC, Errc::kNoSpace},
                {EDQUOT, Errc::kNoSpace},
                {EFBIG, Errc::kNoSpace},
                {ENODEV, Errc::kDeviceGone},
                {ENXIO, Errc::kDeviceGone},
                {EOPNOTSUPP, Errc::kNotSupported}};
  for (const auto& c : kCases) {
    edit_entry = inject;
    injected_times = 0;
    injected_errno = c.error;
    r = rig_.request(BlockOp::kWrite, &b, 0, 4096);
    EXPECT_EQ(rig_.run(r), c.result) << c.error;
    EXPECT_EQ(r.os_error, c.error);
  }
  for (const int e : {EAGAIN, EINTR, ECANCELED}) {
    edit_entry = inject;
    injected_errno = e;
    injected_times = 5;  // six times, then the real entry
    EXPECT_EQ(rig_.run(BlockOp::kWrite, &b, 0, 4096), Errc::kOk) << e;
    edit_entry = inject;
    injected_times = 1000;
    r = rig_.request(BlockOp::kRead, &b, 0, 4096);
    EXPECT_EQ(rig_.run(r), e == ECANCELED ? Errc::kLimit : Errc::kIo) << "not for ever: " << e;
    EXPECT_EQ(r.os_error, e);
  }
  edit_entry = inject;
  injected_times = 0;
  injected_errno = EOPNOTSUPP;
  EXPECT_TRUE(rig_.block().info().discards);
  EXPECT_EQ(rig_.run(BlockOp::kDiscard, nullptr, 0, 4096), Errc::kNotSupported);
  EXPECT_FALSE(rig_.block().info().discards) << "it learns";
  edit_entry = nullptr;
}

TEST_F(UringCallsTest, WorkOfAThreadThatHasEndedIsFinished) {
  build(calls_);
  Buffer b(64 * kKiB, 1);
  std::vector<BlockRequest> r(8);
  std::vector<BlockRequest*> list;
  for (size_t i = 0; i < r.size(); ++i) {
    r[i] = rig_.request(i % 2 == 0 ? BlockOp::kWrite : BlockOp::kFlush, &b, i * b.size(), b.size());
    list.push_back(&r[i]);
  }
  std::thread([&] { EXPECT_EQ(rig_.block().submit(list), r.size()); }).join();
  for (size_t i = 0; i < r.size(); ++i) {
    EXPECT_EQ(rig_.wait()->result, Errc::kOk);
  }
}

TEST_F(UringCallsTest, OneSystemCallABatch) {
  calls_.ring_submit = [](io_uring* ring) {
    ++injected_times;
    return io_uring_submit(ring);
  };
  build(calls_);
  injected_times = 0;
  Buffer b(4096, 1);
  std::vector<BlockRequest> r(8);
  std::vector<BlockRequest*> list;
  for (size_t i = 0; i < r.size(); ++i) {
    r[i] = rig_.request(BlockOp::kWrite, &b, i * 4096, 4096);
    list.push_back(&r[i]);
  }
  ASSERT_EQ(rig_.block().submit(list), r.size());
  EXPECT_EQ(injected_times, 1);
  for (size_t i = 0; i < r.size(); ++i) {
    rig_.wait();
  }
}

// ----------------------------------------------------------------------------- refused for real

// Makes one system call of this process answer `error` from now on.
bool forbid(long call, int error) {
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(call), 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<unsigned>(error)),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  sock_fprog program{4, code};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

TEST_F(UringCallsTest, AContainersSeccompProfile) {
  const struct {
    long call;
    int error;
    Errc code;
  } kCases[] = {{SYS_io_uring_setup, EPERM, Errc::kPermission},
                {SYS_io_uring_setup, ENOSYS, Errc::kNotSupported},
                {SYS_io_uring_enter, EPERM, Errc::kPermission},
                {SYS_io_uring_register, EPERM, Errc::kPermission},
                {SYS_io_uring_register, ENOSYS, Errc::kNotSupported}};
  for (const auto& c : kCases) {
    EXPECT_EQ(in_child([&] {
                if (!forbid(c.call, c.error)) {
                  return 3;
                }
                auto device = make_uring_driver()->bind(file_info(path_, "size=1M"), nullptr);
                if (device.code() != c.code) {
                  return 1;
                }
                return device.error().detail.find("seccomp") != std::string::npos ? 0 : 2;
              }),
              0)
        << "call " << c.call << " error " << c.error;
    EXPECT_NE(::access(path_.c_str(), F_OK), 0) << "a failed bind leaves no file behind";
  }
}

}  // namespace
}  // namespace kvmm
