// SPDX-License-Identifier: Apache-2.0
//
// Engines that misbehave: they touch what is not theirs, close what is pinned, fork, drop memory
// behind our back, or end in the middle.
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <memory>
#include <thread>

#include "tests/api/rig.h"

namespace kvmm_api {
namespace {

class Engine : public ApiTest {
 protected:
  Options with_swap() const {
    Options s;
    s.swap = folder_.file("swap");
    return s;
  }
};

TEST_F(Engine, ATouchOutsideEverySessionIsSigbus) {
  World w;
  ASSERT_KVMM_OK(w.open(with_swap()));
  ASSERT_NE(w.session(0), nullptr);
  w.fill(0, 1);
  EXPECT_EQ(signal_of_touch(w.base(1)), SIGBUS) << "a lane without a session";
  EXPECT_EQ(signal_of_touch(w.base(1)), SIGBUS) << "again";
  EXPECT_EQ(signal_of_touch(w.base(3) + w.lane_bytes() - 1), SIGBUS) << "the last byte";
  EXPECT_GE(w.counter("faults_stray"), 2u);
  // The kernel touches for the engine: an error of that call, no hang.
  const int null = open("/dev/zero", O_RDONLY | O_CLOEXEC);
  EXPECT_EQ(read(null, w.base(2), 4096), -1);
  EXPECT_TRUE(errno == EFAULT || errno == EHWPOISON) << errno;
  close(null);
  EXPECT_REFUSED(kvmm_arena_clear(w.arena(), w.base(4), 4096), KVMM_ERANGE, "range");
  EXPECT_REFUSED(kvmm_arena_clear(w.arena(), w.base(3), 2 * w.lane_bytes()), KVMM_ERANGE, "range");
  EXPECT_TRUE(w.holds(0, 1));
  // A session that comes later has all of its lane, whatever was touched there before.
  for (const uint32_t lane : {1u, 2u, 3u}) {
    ASSERT_NE(w.session(lane), nullptr);
    EXPECT_EQ(*w.base(lane), 0);
    w.fill(lane, 2);
  }
  for (const uint32_t lane : {1u, 2u, 3u}) {
    EXPECT_TRUE(w.holds(lane, 2));
  }
  ASSERT_KVMM_OK(w.close_session(2));
  EXPECT_EQ(signal_of_touch(w.base(2)), SIGBUS) << "a session that was closed";
  EXPECT_TRUE(w.holds(0, 1));
}

TEST_F(Engine, ClosesWithPinsHeld) {
  for (const uint32_t flags : {0u, KVMM_RUNTIME_PIN_ONLY}) {
    World w;
    Options o = with_swap();
    o.flags |= flags;
    ASSERT_KVMM_OK(w.open(o));
    kvmm_pin_range r{w.session(0), KVMM_ALL_PLANES, 1, 0, KVMM_ALL_TOKENS};
    kvmm_pin* pin = nullptr;
    uint32_t answer = 0;
    ASSERT_KVMM_OK(kvmm_pin_batch(w.runtime(), &r, 1, &pin, &answer));
    EXPECT_REFUSED(w.close_session(0), KVMM_EBUSY, "unpin");
    EXPECT_REFUSED(kvmm_arena_destroy(w.arena()), KVMM_EBUSY, "session");
    EXPECT_REFUSED(kvmm_runtime_close(w.runtime()), KVMM_EBUSY, "unpin");
    EXPECT_REFUSED(kvmm_arena_clear(w.arena(), w.base(0), w.lane_bytes()), KVMM_EBUSY);
    // A fence that is not done holds the pages as well.
    static volatile int done;
    done = 0;
    kvmm_fence f = kvmmpp::init<kvmm_fence>();
    f.type = KVMM_FENCE_CALLBACK;
    f.done = [](void*) -> int { return done; };
    ASSERT_KVMM_OK(kvmm_unpin(pin, &f));
    EXPECT_REFUSED(w.close_session(0), KVMM_EBUSY, "unpin");
    EXPECT_REFUSED(kvmm_runtime_close(w.runtime()), KVMM_EBUSY, "fence");
    done = 1;
    EXPECT_KVMM_OK(kvmm_prefetch(w.session(0), 0, 0, 0));  // any call steps
    EXPECT_KVMM_OK(w.close_session(0));
  }
}

TEST_F(Engine, ATouchOutsideEverySessionIsSaidWithItsAddress) {
  const Ended e = in_child([&] {
    World w;
    ASSERT_KVMM_OK(w.open(with_swap()));
    ASSERT_NE(w.session(0), nullptr);
    EXPECT_EQ(signal_of_touch(w.base(1) + 4096 + 77), SIGBUS);
    printf("touched %p\n", static_cast<void*>(w.base(1) + 4096));  // the kernel tells the page
    fflush(stdout);
    EXPECT_KVMM_OK(w.close());  // what is to be said is said by then
  });
  EXPECT_CHILD_OK(e);
  const size_t at = e.out.find("touched 0x");
  ASSERT_NE(at, std::string::npos) << e.out;
  const std::string address = e.out.substr(at + 8, e.out.find('\n', at) - at - 8);
  EXPECT_NE(e.out.find("kvmm: a touch of the page at " + address + ", outside every open session"),
            std::string::npos)
      << e.out;
}

// Writes into a page that the engine itself gave back to the system.
TEST_F(Engine, DropsMemoryBehindOurBack) {
  const struct {
    const char* frames;
    uint64_t page;
  } kCases[] = {{"movable", 64 * kKi}, {"movable", 2 * kMi}, {"shareable", 64 * kKi}};
  for (const auto& c : kCases) {
    SCOPED_TRACE(std::string(c.frames) + " " + std::to_string(c.page));
    Options o = with_swap();
    o.frames = c.frames;
    o.page = c.page;
    o.dram = 16 * kMi;
    World w;
    ASSERT_KVMM_OK(w.open(o));
    ASSERT_NE(w.session(0), nullptr);
    w.fill(0, 1);
    const unsigned char first = w.base(0)[0];
    constexpr uint64_t kTouched = 24 * kKi;
    constexpr uint64_t kUntouched = 72 * kKi;
    const bool shared = std::string(c.frames) == "shareable";
    const unsigned char at_touched = shared ? w.base(0)[kTouched] : 0;
    const unsigned char at_untouched = shared ? w.base(0)[kUntouched] : 0;
    ASSERT_EQ(madvise(w.base(0) + kTouched, 4096, MADV_DONTNEED), 0);
    ASSERT_EQ(madvise(w.base(0) + kUntouched, 4096, MADV_DONTNEED), 0);
    // As on any memory: zeros if it is private, the bytes if it is shared.
    EXPECT_EQ(w.base(0)[kTouched], at_touched);
    EXPECT_EQ(w.base(0)[0], first);
    ASSERT_TRUE(w.send_out(0));
    EXPECT_EQ(w.base(0)[0], first);
    EXPECT_EQ(w.base(0)[kTouched], at_touched);
    EXPECT_EQ(w.base(0)[kUntouched], at_untouched);
    w.fill(0, 2);
    ASSERT_TRUE(w.send_out(0));
    EXPECT_TRUE(w.holds(0, 2));
  }
}

// ----------------------------------------------------------------------------------------- forks

TEST_F(Engine, AForkedChildHasNoKvAndHangsNowhere) {
  ASSERT_EQ(setenv("XDG_RUNTIME_DIR", folder_.path().c_str(), 1), 0);
  Options o = with_swap();
  o.flags = 0;  // with a control socket
  World w;
  ASSERT_KVMM_OK(w.open(o));
  for (uint32_t lane = 0; lane < 4; ++lane) {
    ASSERT_NE(w.session(lane), nullptr);
    w.fill(lane, 1);
  }
  kvmm_pin_range r{w.session(1), KVMM_ALL_PLANES, 0, 0, KVMM_ALL_TOKENS};
  kvmm_pin* pin = nullptr;
  uint32_t answer = 0;
  ASSERT_KVMM_OK(kvmm_pin_batch(w.runtime(), &r, 1, &pin, &answer));
  EXPECT_CHILD_OK(in_child([&] {
    EXPECT_EQ(signal_of_touch(w.base(0)), SIGSEGV);
    char text[64];
    void* p = nullptr;
    size_t n = 0;
    kvmm_session_stat stat = kvmmpp::init<kvmm_session_stat>();
    kvmm_session* s = w.session(0);
    kvmm_session* another = nullptr;
    kvmm_pin* more = nullptr;
    const kvmm_status answers[] = {kvmm_runtime_close(w.runtime()),
                                   kvmm_arena_destroy(w.arena()),
                                   kvmm_arena_reserve(w.arena(), kMi, &p),
                                   kvmm_arena_clear(w.arena(), w.base(0), kMi),
                                   kvmm_arena_add_plane(w.arena(), nullptr, nullptr),
                                   kvmm_session_open(w.arena(), nullptr, &another),
                                   kvmm_session_close(s),
                                   kvmm_session_address(s, 0, &p),
                                   kvmm_append(s, nullptr, 1),
                                   kvmm_truncate(s, 0),
                                   kvmm_discard(s, 0, 1),
                                   kvmm_recompute_ranges(s, nullptr, 0, &n),
                                   kvmm_recompute_begin(s, 0, 1),
                                   kvmm_recompute_end(s, 0, 1),
                                   kvmm_prefetch(s, 0, 1, 0),
                                   kvmm_advise(s, KVMM_ADVISE_EVICT),
                                   kvmm_sync(s, nullptr),
                                   kvmm_session_stats(s, &stat),
                                   kvmm_pin_batch(w.runtime(), &r, 1, &more, nullptr),
                                   kvmm_pin_poll(pin, &answer, 1),
                                   kvmm_unpin(pin, nullptr),
                                   kvmm_swapon(w.runtime(), "x", kMi, 0),
                                   kvmm_swapoff(w.runtime(), "x"),
                                   kvmm_attr_get(w.runtime(), "name", text, sizeof text),
                                   kvmm_attr_set(w.runtime(), "name", "x")};
    for (size_t i = 0; i < std::size(answers); ++i) {
      EXPECT_EQ(answers[i], KVMM_ECLOSED) << "call " << i;
    }
    EXPECT_REFUSED(kvmm_advise(s, KVMM_ADVISE_IDLE), KVMM_ECLOSED, "forked child", "exec");
    World own;  // one of its own it may have
    Options mine;
    ASSERT_KVMM_OK(own.open(mine));
    ASSERT_NE(own.session(0), nullptr);
    own.fill(0, 3);
    EXPECT_TRUE(own.holds(0, 3));
  }));
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    std::exit(0);  // with static destructors and all
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  const std::string socket = folder_.file("kvmm/" + std::to_string(getpid()) + "-0.sock");
  const std::string roots = "/run/kvmm/" + std::to_string(getpid()) + "-0.sock";
  EXPECT_TRUE(access(socket.c_str(), F_OK) == 0 || access(roots.c_str(), F_OK) == 0)
      << "the child took the parent's socket away";
  ASSERT_KVMM_OK(kvmm_unpin(pin, nullptr));
  for (uint32_t lane = 0; lane < 4; ++lane) {
    EXPECT_TRUE(w.holds(lane, 1));
  }
}

TEST_F(Engine, ForksWhilePagesGoOutAndIn) {
  World w;
  ASSERT_KVMM_OK(w.open(with_swap()));
  for (int round = 0; round < 10; ++round) {
    const auto seed = static_cast<uint32_t>(round);
    for (uint32_t lane = 0; lane < 4; ++lane) {  // 8 MiB in 4
      ASSERT_NE(w.session(lane), nullptr);
      w.fill(lane, seed);
      const pid_t child = fork();
      if (child == 0) {
        _exit(0);
      }
      EXPECT_EQ(waitpid(child, nullptr, 0), child);
    }
    for (uint32_t lane = 0; lane < 4; ++lane) {
      ASSERT_TRUE(w.holds(lane, seed));
    }
  }
}

// ----------------------------------------------------------------------------------------- ends

// An engine with a thread that touches while pages go out, which ends as `end` says.
void end_in_the_middle(const Options& o, const std::function<void()>& end) {
  auto* w = new World;  // never closed
  ASSERT_KVMM_OK(w->open(o));
  for (uint32_t lane = 0; lane < 4; ++lane) {
    ASSERT_NE(w->session(lane), nullptr);
    w->fill(lane, 1);
  }
  std::thread([w] {
    for (uint32_t i = 0;; ++i) {
      w->fill(i % 4, i);
    }
  }).detach();
  for (uint32_t lane = 0; lane < 4; ++lane) {
    ASSERT_KVMM_OK(kvmm_advise(w->session(lane), KVMM_ADVISE_EVICT));
  }
  end();
}

TEST_F(Engine, EndsInTheMiddleAndTheFileOpensAgain) {
  const Options o = with_swap();
  const struct {
    const char* name;
    std::function<void()> end;
    int exit, signal;
  } kEnds[] = {{"_exit", [] { _exit(5); }, 5, 0},
               {"exit", [] { std::exit(6); }, 6, 0},
               {"quick_exit", [] { std::quick_exit(7); }, 7, 0},
               {"abort", [] { signal(SIGABRT, SIG_DFL), std::abort(); }, -1, SIGABRT},
               {"kill", [] { raise(SIGKILL); }, -1, SIGKILL},
               {"term", [] { raise(SIGTERM); }, -1, SIGTERM}};
  for (int round = 0; round < 3; ++round) {
    for (const auto& e : kEnds) {
      const Ended ended = in_child([&] { end_in_the_middle(o, e.end); });
      EXPECT_EQ(ended.exit, e.exit) << e.name << " signal " << ended.signal << "\n" << ended.out;
      EXPECT_EQ(ended.signal, e.signal) << e.name << "\n" << ended.out;
      World next;
      ASSERT_KVMM_OK(next.open(o)) << "after " << e.name;
      ASSERT_NE(next.session(0), nullptr);
      EXPECT_EQ(*next.base(0), 0) << "nothing of the other process is found";
      next.fill(0, 9);
      ASSERT_TRUE(next.send_out(0));
      EXPECT_TRUE(next.holds(0, 9));
    }
  }
}

TEST_F(Engine, ExecsWithARuntimeOpen) {
  const Options o = with_swap();
  const Ended ended =
      in_child([&] { end_in_the_middle(o, [] { execl("/bin/true", "true", nullptr); }); });
  EXPECT_EQ(ended.exit, 0) << ended.signal << ended.out;
  World next;
  EXPECT_KVMM_OK(next.open(o));
}

}  // namespace
}  // namespace kvmm_api
