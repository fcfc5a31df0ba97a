// SPDX-License-Identifier: Apache-2.0
//
// What a machine may refuse: userfaultfd, MOVE, io_uring, huge pages, locked memory, threads,
// descriptors, root. Each is refused in a child, and kvmm says what to do about it or does without.
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "tests/api/rig.h"

namespace kvmm_api {
namespace {

class Rights : public ApiTest {
 protected:
  Options with_swap() const {
    Options s;
    s.swap = folder_.file("swap");
    return s;
  }
};

// <linux/userfaultfd.h> of 6.1 does not have these two.
constexpr uint32_t kMove = static_cast<uint32_t>(_IOC(_IOC_READ | _IOC_WRITE, 0xAA, 0x05, 40));
constexpr uint32_t kNew = static_cast<uint32_t>(_IO(0xAA, 0x00));

// Sessions go out and come back as they were.
void round_trip(const Options& setup) {
  World w;
  ASSERT_KVMM_OK(w.open(setup));
  for (uint32_t lane = 0; lane < 3; ++lane) {
    ASSERT_NE(w.session(lane), nullptr);
    w.fill(lane, 7);
  }
  for (uint32_t lane = 0; lane < 3; ++lane) {
    ASSERT_TRUE(w.send_out(lane));
  }
  for (uint32_t lane = 0; lane < 3; ++lane) {
    EXPECT_TRUE(w.holds(lane, 7));
  }
  EXPECT_GE(w.counter("swap_in_bytes"), 3 * w.lane_bytes());
}

// As round_trip, by pins: nothing is touched that is not pinned.
void pinned_round_trip(Options setup) {
  setup.flags |= KVMM_RUNTIME_PIN_ONLY;
  World w;
  ASSERT_KVMM_OK(w.open(setup));
  for (const bool again : {false, true}) {
    kvmm_pin_range r{w.session(1), KVMM_ALL_PLANES, 1, 0, KVMM_ALL_TOKENS};
    kvmm_pin* pin = nullptr;
    uint32_t answer = KVMM_PIN_COMING;
    ASSERT_KVMM_OK(kvmm_pin_batch(w.runtime(), &r, 1, &pin, &answer));
    while (answer == KVMM_PIN_COMING) {
      sched_yield();
      ASSERT_KVMM_OK(kvmm_pin_poll(pin, &answer, 1));
    }
    ASSERT_EQ(answer, KVMM_PIN_READY);
    if (again) {
      EXPECT_TRUE(w.holds(1, 3));
    } else {
      w.fill(1, 3);
    }
    ASSERT_KVMM_OK(kvmm_unpin(pin, nullptr));
    ASSERT_TRUE(w.send_out(1));
  }
}

// ----------------------------------------------------------------------------------- userfaultfd

TEST_F(Rights, WithoutUserfaultfdTheTextNamesEveryWayToAllowIt) {
  EXPECT_CHILD_OK(in_child([&] {
    ASSERT_TRUE(forbid({{SYS_userfaultfd, EPERM}, {SYS_ioctl, EPERM, 1, kNew}}));
    const Options setup = with_swap();
    World w;
    EXPECT_REFUSED(w.open(setup), KVMM_EPERMISSION, "CAP_SYS_PTRACE",
                   "vm.unprivileged_userfaultfd=1", "/dev/userfaultfd", "pin");
    EXPECT_NE(access(setup.swap.c_str(), F_OK), 0) << "a swap file was made for nothing";
  }));
}

TEST_F(Rights, WithoutUserfaultfdPinningEnginesWork) {
  EXPECT_CHILD_OK(in_child([&] {
    ASSERT_TRUE(forbid({{SYS_userfaultfd, EPERM}, {SYS_ioctl, EPERM, 1, kNew}}));
    pinned_round_trip(with_swap());
  }));
}

TEST_F(Rights, WithoutTheSystemCallTheDeviceServes) {
  if (access("/dev/userfaultfd", R_OK | W_OK) != 0) {
    GTEST_SKIP() << "api_uffd_device: no /dev/userfaultfd";
  }
  EXPECT_CHILD_OK(in_child([&] {
    ASSERT_TRUE(forbid({{SYS_userfaultfd, ENOSYS}}));
    round_trip(with_swap());
  }));
}

TEST_F(Rights, AKernelWithoutMoveIsToldToUseShareableFrames) {
  for (const int error : {EINVAL, ENOTTY}) {
    EXPECT_CHILD_OK(in_child([&] {
      ASSERT_TRUE(forbid({{SYS_ioctl, error, 1, kMove}}));
      Options setup = with_swap();
      World w;
      EXPECT_REFUSED(w.open(setup), KVMM_ENOTSUPPORTED, "frames", "shareable");
      setup.frames = "shareable";
      round_trip(setup);
    }));
  }
}

// -----------------------------------------------------------------------------------------
// io_uring

TEST_F(Rights, WithoutIoUringTheSwapIsRefusedAndNothingElse) {
  const struct {
    int error;
    kvmm_status status;
    const char* text;
  } kCases[] = {{EPERM, KVMM_EPERMISSION, "seccomp"},
                {ENOSYS, KVMM_ENOTSUPPORTED, "io_uring"},
                {ENOMEM, KVMM_ELIMIT, "ulimit -l"},
                {EMFILE, KVMM_ELIMIT, "ulimit -n"}};
  for (const auto& c : kCases) {
    EXPECT_CHILD_OK(in_child([&] {
      ASSERT_TRUE(forbid({{SYS_io_uring_setup, c.error}}));
      Options setup = with_swap();
      const size_t before = open_descriptors();
      {
        World refused_world;
        EXPECT_REFUSED(refused_world.open(setup), c.status, c.text);
      }
      EXPECT_EQ(open_descriptors(), before);
      EXPECT_TRUE(threads_become(1));
      EXPECT_NE(access(setup.swap.c_str(), F_OK), 0) << "a swap file was made for nothing";
      const std::string swap = setup.swap;
      setup.swap = "";
      World w;
      ASSERT_KVMM_OK(w.open(setup));
      ASSERT_NE(w.session(0), nullptr);
      w.fill(0, 1);
      EXPECT_REFUSED(kvmm_swapon(w.runtime(), swap.c_str(), kMi, 0), c.status, c.text);
      EXPECT_REFUSED(kvmm_sync(w.session(0), nullptr), KVMM_ENOSPACE, "swapon");
      EXPECT_TRUE(w.holds(0, 1));
    }));
  }
}

// ----------------------------------------------------------------------------------- huge pages

TEST_F(Rights, WithoutHugePagesLargePagesAreMadeOfSmallOnes) {
  Options setup = with_swap();
  setup.page = 2 * kMi;
  setup.dram = 8 * kMi;
  EXPECT_CHILD_OK(in_child([&] {
    ASSERT_EQ(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);
    round_trip(setup);
  }));
  EXPECT_CHILD_OK(in_child([&] {  // a kernel that is built without them
    ASSERT_TRUE(forbid(
        {{SYS_madvise, EINVAL, 2, MADV_HUGEPAGE}, {SYS_madvise, EINVAL, 2, MADV_NOHUGEPAGE}}));
    round_trip(setup);
  }));
}

// ----------------------------------------------------------------------------------------- limits

TEST_F(Rights, LittleLockedMemoryIsNeeded) {
  Folder home("/var/tmp");
  ASSERT_EQ(chmod(home.path().c_str(), 0777), 0);
  for (const rlim_t limit : {rlim_t{0}, rlim_t{128 * 1024}}) {
    EXPECT_CHILD_OK(in_child([&] {
      const rlimit memlock{limit, limit};
      ASSERT_EQ(setrlimit(RLIMIT_MEMLOCK, &memlock), 0);
      ASSERT_TRUE(become_nobody());  // CAP_IPC_LOCK goes with it, and userfaultfd
      Options setup;
      setup.swap = home.file("swap");
      if (limit != 0) {
        pinned_round_trip(setup);
        return;
      }
      setup.flags |= KVMM_RUNTIME_PIN_ONLY;
      World w;
      const kvmm_status s = w.open(setup);  // kernels before 5.12, and some since, charge the ring
      if (s != KVMM_OK) {
        EXPECT_REFUSED(s, KVMM_ELIMIT, "ulimit -l");
        EXPECT_NE(access(setup.swap.c_str(), F_OK), 0);
      }
    }));
  }
}

TEST_F(Rights, TooFewDescriptorsIsALimitAndLeavesNothing) {
  EXPECT_CHILD_OK(in_child([&] {
    const Options setup = with_swap();
    const size_t before = open_descriptors();
    size_t refusals = 0;
    bool worked = false;
    for (rlim_t n = 3; n < 64 && !worked; ++n) {
      const rlimit limit{n, 1024};
      ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
      kvmm_runtime* runtime = nullptr;
      const kvmm_runtime_options o = runtime_options(setup);
      const kvmm_status s = kvmm_runtime_open(&o, &runtime);
      worked = s == KVMM_OK;
      if (!worked) {
        EXPECT_REFUSED(s, KVMM_ELIMIT, "ulimit -n") << "with " << n << " descriptors";
        EXPECT_EQ(runtime, nullptr);
        ++refusals;
      }
      EXPECT_EQ(kvmm_runtime_close(runtime), KVMM_OK);
      const rlimit enough{1024, 1024};
      ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &enough), 0);
      EXPECT_EQ(open_descriptors(), before);
      EXPECT_TRUE(threads_become(1));
    }
    EXPECT_TRUE(worked);
    EXPECT_GE(refusals, 5u);
  }));
}

TEST_F(Rights, NoMoreThreadsIsALimitAndLeavesNothing) {
  // Threads: workers, core, log, control. The n-th is refused.
  for (const int error : {EAGAIN, EPERM}) {
    EXPECT_CHILD_OK(in_child([&] {
      ASSERT_TRUE(forbid({{SYS_clone3, error}, {SYS_clone, error}}));
      const size_t before = open_descriptors();
      kvmm_runtime* runtime = nullptr;
      const Options setup = with_swap();
      kvmm_runtime_options o = runtime_options(setup);
      o.data_workers = 3;
      EXPECT_REFUSED(kvmm_runtime_open(&o, &runtime), KVMM_ELIMIT, "thread", "ulimit -u");
      EXPECT_EQ(open_descriptors(), before);
      EXPECT_TRUE(threads_become(1));
    }));
  }
}

TEST_F(Rights, TheNthThreadIsRefused) {
  Folder home("/var/tmp");
  ASSERT_EQ(chmod(home.path().c_str(), 0777), 0);
  for (rlim_t n = 1; n <= 7; ++n) {
    EXPECT_CHILD_OK(in_child([&] {
      Options setup;
      setup.swap = home.file("swap");
      setup.flags = KVMM_RUNTIME_PIN_ONLY;
      ASSERT_EQ(setenv("XDG_RUNTIME_DIR", home.path().c_str(), 1), 0);
      ASSERT_TRUE(become_nobody());
      const rlimit limit{n, n};  // threads of the user: this one and n - 1 more
      ASSERT_EQ(setrlimit(RLIMIT_NPROC, &limit), 0);
      const size_t before = open_descriptors();
      kvmm_runtime* runtime = nullptr;
      kvmm_runtime_options o = runtime_options(setup);
      o.data_workers = 2;
      const kvmm_status s = kvmm_runtime_open(&o, &runtime);
      if (s == KVMM_OK) {
        EXPECT_GE(n, 5u) << "itself, two workers, core, log";
      } else {
        EXPECT_REFUSED(s, KVMM_ELIMIT, "thread", "ulimit -u");
      }
      EXPECT_EQ(kvmm_runtime_close(runtime), KVMM_OK);
      EXPECT_EQ(open_descriptors(), before);
      EXPECT_TRUE(threads_become(1));
    }));
  }
}

TEST_F(Rights, TooFewAddressesIsNoMemory) {
  EXPECT_CHILD_OK(in_child([&] {
    World w;
    ASSERT_KVMM_OK(w.open(with_swap()));
    ASSERT_NE(w.session(0), nullptr);
    w.fill(0, 5);
    const rlimit few{256 * kMi, 256 * kMi};
    ASSERT_EQ(setrlimit(RLIMIT_AS, &few), 0);
    void* base = nullptr;
    EXPECT_REFUSED(kvmm_arena_reserve(w.arena(), 8192 * kMi, &base), KVMM_ENOMEMORY, "ulimit -v");
    EXPECT_TRUE(w.holds(0, 5));
  }));
}

// ----------------------------------------------------------------------------------------- nobody

class Nobody : public Rights {
 protected:
  Nobody() : home_("/var/tmp") {
    EXPECT_EQ(chown(home_.path().c_str(), 65534, 65534), geteuid() == 0 ? 0 : -1);
  }
  Folder home_;
};

TEST_F(Nobody, IsToldWhatAllowsFaultsAndPinsWithoutThem) {
  std::string allowed = read_file("/proc/sys/vm/unprivileged_userfaultfd");
  EXPECT_CHILD_OK(in_child([&] {
    ASSERT_TRUE(become_nobody());
    Options setup;
    setup.swap = home_.file("swap");
    if (allowed == "1\n" || access("/dev/userfaultfd", R_OK | W_OK) == 0) {
      round_trip(setup);
    } else {
      World w;
      EXPECT_REFUSED(w.open(setup), KVMM_EPERMISSION, "root", "sysctl", "/dev/userfaultfd");
    }
    pinned_round_trip(setup);
  }));
}

TEST_F(Nobody, HasAControlSocketOfItsOwn) {
  EXPECT_CHILD_OK(in_child([&] {
    ASSERT_EQ(setenv("XDG_RUNTIME_DIR", home_.path().c_str(), 1), 0);
    ASSERT_TRUE(become_nobody());
    Options setup;
    setup.flags = KVMM_RUNTIME_PIN_ONLY;
    World w;
    ASSERT_KVMM_OK(w.open(setup));
    struct stat st {};
    const std::string socket = home_.file("kvmm/" + std::to_string(getpid()) + "-0.sock");
    ASSERT_EQ(stat(socket.c_str(), &st), 0) << socket;
    EXPECT_EQ(st.st_mode & 07777, 0600u);
  }));
}

TEST_F(Nobody, CannotUseSomebodyElsesFileOrFolder) {
  const std::string file = folder_.file("roots-swap");
  write_file(file, "");
  ASSERT_EQ(chmod(file.c_str(), 0600), 0);
  ASSERT_EQ(chmod(folder_.path().c_str(), 0755), 0);
  EXPECT_CHILD_OK(in_child([&] {
    ASSERT_TRUE(become_nobody());
    for (const std::string& path : {file, folder_.file("new")}) {
      Options setup;
      setup.flags |= KVMM_RUNTIME_PIN_ONLY;
      setup.swap = path;
      World w;
      EXPECT_REFUSED(w.open(setup), KVMM_EPERMISSION, path, "permission");
    }
  }));
}

}  // namespace
}  // namespace kvmm_api
