// SPDX-License-Identifier: Apache-2.0
//
// What an engine may do on its pages, on the real kernel: system calls on missing pages, fork while
// pages are mapped, and a touch of a page that cannot come back.
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <thread>

#include "tests/drivers/host/host_rig.h"
#include "tests/drivers/mmu_suite/mmu_suite.h"

namespace kvmm::test {
namespace {

constexpr Bytes kSize = kib(64);

// One page of a device, with its frame.
template <class Mmu>
struct OnePage {
  std::unique_ptr<Mmu> mmu = make_mmu<Mmu>();
  AddressRange range;
  FrameAddr frame;
  explicit OnePage(Bytes size = kSize) {
    range = *mmu->reserve(size, size, size);
    frame = mmu->info().fixed_frames ? mmu->fixed_frame(range.start)
                                     : mmu->create_frames(size, 1, NodeId(0))->base;
  }
  void fill(uint64_t seed) {
    const std::vector<std::byte> bytes = pattern(range.length, seed);
    memcpy(at<void>(frame), bytes.data(), bytes.size());
  }
  Errc op(MmuOp what) { return run_one(*mmu, what, range.start, frame, range.length); }
  // Waits for one fault and answers it.
  void answer() {
    pollfd p{mmu->fault_fd(), POLLIN, 0};
    ASSERT_EQ(::poll(&p, 1, 20000), 1);
    std::array<FaultEvent, 4> faults;
    ASSERT_EQ(mmu->read_faults(faults), 1U);
    EXPECT_TRUE(range.contains(faults[0].va));
    ASSERT_EQ(op(MmuOp::kMap), Errc::kOk);
  }
};

template <class Mmu>
class Engine : public testing::Test {};
using Faulting = testing::Types<HostMoveMmu, HostShareMmu>;
TYPED_TEST_SUITE(Engine, Faulting);

TYPED_TEST(Engine, SystemCallReadsFromAMissingPage) {
  OnePage<TypeParam> page;
  page.fill(1);
  std::array<int, 2> ends;
  ASSERT_EQ(pipe(ends.data()), 0);
  ssize_t written = 0;
  std::thread engine([&] { written = write(ends[1], at<void>(page.range.start, 100), 4096); });
  page.answer();
  engine.join();
  EXPECT_EQ(written, 4096);
  std::vector<std::byte> got(4096);
  ASSERT_EQ(read(ends[0], got.data(), got.size()), 4096);
  EXPECT_EQ(memcmp(got.data(), pattern(kSize, 1).data() + 100, got.size()), 0);
  close(ends[0]);
  close(ends[1]);
  EXPECT_EQ(page.op(MmuOp::kUnmap), Errc::kOk);
}

TYPED_TEST(Engine, SystemCallWritesToAMissingPage) {
  OnePage<TypeParam> page;
  page.fill(2);
  std::array<int, 2> ends;
  ASSERT_EQ(pipe(ends.data()), 0);
  const char text[] = "from the kernel";
  ASSERT_EQ(write(ends[1], text, sizeof(text)), static_cast<ssize_t>(sizeof(text)));
  ssize_t got = 0;
  std::thread engine([&] { got = read(ends[0], at<void>(page.range.start, 8192), sizeof(text)); });
  page.answer();
  engine.join();
  EXPECT_EQ(got, static_cast<ssize_t>(sizeof(text)));
  EXPECT_EQ(page.op(MmuOp::kUnmap), Errc::kOk);
  EXPECT_STREQ(at<char>(page.frame, 8192), text);
  EXPECT_EQ(memcmp(at<void>(page.frame), pattern(kSize, 2).data(), 8192), 0) << "the rest stayed";
  close(ends[0]);
  close(ends[1]);
}

TYPED_TEST(Engine, ForkedChildHasNoneOfTheMemory) {
  OnePage<TypeParam> page;
  OnePage<TypeParam> other;
  page.fill(3);
  other.fill(4);
  ASSERT_EQ(page.op(MmuOp::kMap), Errc::kOk);
  std::array<int, 2> go, ready;
  ASSERT_EQ(pipe(go.data()), 0);
  ASSERT_EQ(pipe(ready.data()), 0);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    char held = 0;
    unsigned char resident[16];
    for (const uint64_t a : {page.range.start.value(), page.frame.value(), other.frame.value(),
                             other.range.start.value()}) {
      // ENOMEM: nothing is mapped there.
      held |= mincore(at<void>(VirtAddr(a)), kSize.value(), resident) == 0 || errno != ENOMEM;
    }
    char stop = 0;
    if (write(ready[1], &held, 1) != 1 || read(go[0], &stop, 1) != 1) {
      held = 1;
    }
    _exit(held);
  }
  char held = 1;
  ASSERT_EQ(read(ready[0], &held, 1), 1);
  EXPECT_EQ(held, 0);
  // While the child lives: nothing is shared with it, so nothing is busy.
  EXPECT_EQ(page.op(MmuOp::kUnmap), Errc::kOk);
  EXPECT_EQ(page.mmu->stats().busy_retries, 0U);
  EXPECT_EQ(other.op(MmuOp::kMap), Errc::kOk);
  EXPECT_EQ(memcmp(at<void>(page.frame), pattern(kSize, 3).data(), kSize.value()), 0);
  EXPECT_EQ(other.op(MmuOp::kUnmap), Errc::kOk);
  ASSERT_EQ(write(go[1], "x", 1), 1);
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  for (const int fd : {go[0], go[1], ready[0], ready[1]}) {
    close(fd);
  }
}

// Runs in a child process, which dies of the signal.
template <class Mmu>
void touch_poison() {
  signal(SIGBUS, SIG_DFL);  // a sanitizer's handler would turn the signal into an exit
  signal(SIGSEGV, SIG_DFL);
  OnePage<Mmu> page;
  page.fill(5);
  if (page.op(MmuOp::kPoison) != Errc::kOk) {
    _exit(1);
  }
  volatile unsigned char byte = *at<volatile unsigned char>(page.range.start, 5000);
  (void)byte;
  _exit(2);
}

TYPED_TEST(Engine, PoisonedPageIsSigbusNeverBytes) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(touch_poison<TypeParam>(), testing::KilledBySignal(SIGBUS), "");
}

TYPED_TEST(Engine, PoisonEndsTheWaitOfAThreadInASystemCall) {
  OnePage<TypeParam> page;
  page.fill(6);
  std::array<int, 2> ends;
  ASSERT_EQ(pipe(ends.data()), 0);
  ssize_t written = 0;
  int os_error = 0;
  std::thread engine([&] {
    written = write(ends[1], at<void>(page.range.start), 4096);
    os_error = errno;
  });
  pollfd p{page.mmu->fault_fd(), POLLIN, 0};
  ASSERT_EQ(::poll(&p, 1, 20000), 1);
  std::array<FaultEvent, 4> faults;
  ASSERT_EQ(page.mmu->read_faults(faults), 1U);
  EXPECT_EQ(page.op(MmuOp::kPoison), Errc::kOk);
  engine.join();
  EXPECT_EQ(written, -1);
  EXPECT_EQ(os_error, EFAULT);
  close(ends[0]);
  close(ends[1]);
}

TYPED_TEST(Engine, WakeLetsAThreadTryAgain) {
  OnePage<TypeParam> page;
  page.fill(7);
  std::thread engine([&] { EXPECT_EQ(*at<std::byte>(page.range.start), pattern(kSize, 7)[0]); });
  pollfd p{page.mmu->fault_fd(), POLLIN, 0};
  std::array<FaultEvent, 4> faults;
  // Woken without a page, the thread faults again.
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(::poll(&p, 1, 20000), 1);
    ASSERT_EQ(page.mmu->read_faults(faults), 1U);
    page.mmu->wake(page.range);
  }
  page.answer();
  engine.join();
  EXPECT_EQ(page.op(MmuOp::kUnmap), Errc::kOk);
}

void touch_unmapped_pin() {
  signal(SIGSEGV, SIG_DFL);
  OnePage<HostPinMmu> page;
  page.fill(8);
  if (page.op(MmuOp::kMap) != Errc::kOk || page.op(MmuOp::kUnmap) != Errc::kOk) {
    _exit(1);
  }
  volatile unsigned char byte = *at<volatile unsigned char>(page.range.start);
  (void)byte;
  _exit(2);
}

void write_read_only_pin() {
  signal(SIGSEGV, SIG_DFL);
  OnePage<HostPinMmu> page;
  page.fill(9);
  CompletionQueue queue;
  MapEntry e{page.range.start, page.frame};
  MmuRequest r;
  r.queue = &queue;
  r.op = MmuOp::kMap;
  r.prot = Prot::kRead;
  r.page_size = kSize;
  r.entries = std::span<MapEntry>(&e, 1);
  MmuRequest* const list[] = {&r};
  page.mmu->submit(list);
  if (r.result != Errc::kOk || *at<std::byte>(page.range.start) != pattern(kSize, 9)[0]) {
    _exit(1);
  }
  *at<volatile unsigned char>(page.range.start) = 1;
  _exit(2);
}

TEST(PinEngine, TouchOfAnUnpinnedPageIsSigsegv) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(touch_unmapped_pin(), testing::KilledBySignal(SIGSEGV), "");
}

TEST(PinEngine, WriteToAReadOnlyPageIsSigsegv) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(write_read_only_pin(), testing::KilledBySignal(SIGSEGV), "");
}

}  // namespace
}  // namespace kvmm::test
