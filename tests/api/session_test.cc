// SPDX-License-Identifier: Apache-2.0
//
// Options of planes, sessions and advice that change what happens, and every answer that a pin can
// give.
#include <poll.h>

#include <cstring>
#include <string>
#include <thread>

#include "tests/api/rig.h"

namespace kvmm_api {
namespace {

constexpr uint64_t kPage = 64 * kKi;

class Sessions : public ApiTest {
 protected:
  Options with_swap() const {
    Options o;
    o.swap = folder_.file("swap");
    return o;
  }
};

// An arena of two lanes beside the rig's.
struct Arena {
  kvmm_arena* arena = nullptr;
  std::vector<kvmm_session*> sessions;

  kvmm_status create(kvmm_runtime* runtime, uint32_t placement) {
    kvmm_arena_options o = kvmmpp::init<kvmm_arena_options>();
    o.lanes = 2;
    o.placement = placement;
    return kvmm_arena_create(runtime, &o, &arena);
  }
  kvmm_status plane(uint64_t lane_stride, uint64_t token, uint64_t page, uint32_t window = 0) {
    kvmm_plane_options o = kvmmpp::init<kvmm_plane_options>();
    o.lane_stride = lane_stride;
    o.token_stride = token;
    o.page_size = page;
    o.layers = 4;
    o.window = window;
    return kvmm_arena_add_plane(arena, &o, nullptr);
  }
  kvmm_status open(const char* domain, uint32_t kind = KVMM_SESSION_STRUCTURED) {
    kvmm_session_options o = kvmmpp::init<kvmm_session_options>();
    o.tenant = "t";
    o.sharing_domain = domain;
    o.kind = kind;
    kvmm_session* s = nullptr;
    const kvmm_status status = kvmm_session_open(arena, &o, &s);
    if (status == KVMM_OK) {
      sessions.push_back(s);
    }
    return status;
  }
  unsigned char* address(size_t session, uint32_t plane) const {
    void* p = nullptr;
    EXPECT_KVMM_OK(kvmm_session_address(sessions[session], plane, &p));
    return static_cast<unsigned char*>(p);
  }
  ~Arena() {
    for (kvmm_session* s : sessions) {
      EXPECT_KVMM_OK(kvmm_session_close(s));
    }
    EXPECT_KVMM_OK(kvmm_arena_destroy(arena));
  }
};

kvmm_session_stat stat_of(kvmm_session* s) {
  kvmm_session_stat stat = kvmmpp::init<kvmm_session_stat>();
  EXPECT_KVMM_OK(kvmm_session_stats(s, &stat));
  return stat;
}

bool readable(int fd, int wait_ms) {
  pollfd p{fd, POLLIN, 0};
  return poll(&p, 1, wait_ms) == 1;
}

TEST_F(Sessions, AWindowIsRewrittenAndLimitsNothing) {
  constexpr uint64_t kToken = 4 * kKi;
  constexpr uint64_t kTokens = 64, kWindow = 16;
  World w;
  ASSERT_KVMM_OK(w.open(with_swap()));
  Arena a;
  ASSERT_KVMM_OK(a.create(w.runtime(), KVMM_PLACE_STRIDED));
  ASSERT_KVMM_OK(a.plane(kTokens * kToken, kToken, 4 * kKi));
  ASSERT_KVMM_OK(a.plane(kWindow * kToken, kToken, 4 * kKi, kWindow));
  ASSERT_KVMM_OK(a.open("domain"));
  kvmm_session* s = a.sessions[0];
  for (uint64_t t = 0; t < kTokens; ++t) {
    std::memset(a.address(0, 0) + t * kToken, static_cast<int>(t + 1), kToken);
    std::memset(a.address(0, 1) + t % kWindow * kToken, static_cast<int>(t + 1), kToken);
    ASSERT_KVMM_OK(kvmm_append(s, nullptr, 1)) << t;
  }
  EXPECT_REFUSED(kvmm_append(s, nullptr, 1), KVMM_ERANGE);

  // The full plane is sealed, the ring never is: not for a pin, and not at the next turn of it.
  kvmm_pin* pin = nullptr;
  kvmm_pin_range r{s, 0, 1, 0, kWindow};
  EXPECT_REFUSED(kvmm_pin_batch(w.runtime(), &r, 1, &pin, nullptr), KVMM_ESEALED);
  r.plane = 1;
  ASSERT_KVMM_OK(kvmm_pin_batch(w.runtime(), &r, 1, &pin, nullptr));
  ASSERT_KVMM_OK(kvmm_unpin(pin, nullptr));
  ASSERT_KVMM_OK(kvmm_sync(s, nullptr));
  std::memset(a.address(0, 1), 0xee, kToken);
  ASSERT_KVMM_OK(kvmm_sync(s, nullptr));
  EXPECT_EQ(stat_of(s).seal_violations, 0u);
  ASSERT_KVMM_OK(kvmm_advise(s, KVMM_ADVISE_EVICT));
  while (stat_of(s).bytes_resident != 0) {
    std::this_thread::yield();
  }
  EXPECT_EQ(a.address(0, 1)[0], 0xee);
  EXPECT_EQ(a.address(0, 1)[kToken], kTokens - kWindow + 2);
  EXPECT_EQ(a.address(0, 0)[kToken], 2);
}

TEST_F(Sessions, ASharingDomainIsAName) {
  World w;
  ASSERT_KVMM_OK(w.open(with_swap()));
  Arena a;
  ASSERT_KVMM_OK(a.create(w.runtime(), KVMM_PLACE_STRIDED));
  ASSERT_KVMM_OK(a.plane(kMi, kKi, kPage));
  EXPECT_REFUSED(a.open(std::string(256, 'd').c_str()), KVMM_EINVALID);
  EXPECT_KVMM_OK(a.open(nullptr));
  EXPECT_KVMM_OK(a.open(std::string(255, 'd').c_str()));
}

TEST_F(Sessions, ContiguousPlanesGoOutAndComeBack) {
  World w;
  ASSERT_KVMM_OK(w.open(with_swap()));
  Arena a;
  ASSERT_KVMM_OK(a.create(w.runtime(), KVMM_PLACE_CONTIGUOUS));
  ASSERT_KVMM_OK(a.plane(kMi, 0, kPage));
  ASSERT_KVMM_OK(a.plane(kMi, 0, kPage));
  ASSERT_KVMM_OK(a.open(nullptr, KVMM_SESSION_RAW));
  ASSERT_KVMM_OK(a.open(nullptr, KVMM_SESSION_RAW));
  for (size_t s = 0; s < 2; ++s) {
    EXPECT_GE(a.address(s, 1), a.address(s, 0) + kMi) << "its planes behind one another";
    EXPECT_LT(a.address(s, 1), a.address(s, 0) + 4 * kMi);
    for (uint32_t plane = 0; plane < 2; ++plane) {
      for (uint64_t i = 0; i < kMi; i += 8) {
        const uint64_t value = i + (s << 40) + (uint64_t{plane} << 32);
        std::memcpy(a.address(s, plane) + i, &value, 8);
      }
    }
  }
  for (kvmm_session* s : a.sessions) {
    ASSERT_KVMM_OK(kvmm_advise(s, KVMM_ADVISE_EVICT));
    while (stat_of(s).bytes_resident != 0) {
      std::this_thread::yield();
    }
    EXPECT_EQ(stat_of(s).bytes_swapped, 2 * kMi);
  }
  for (size_t s = 0; s < 2; ++s) {
    for (uint32_t plane = 0; plane < 2; ++plane) {
      for (uint64_t i = 0; i < kMi; i += 8) {
        uint64_t value = 0;
        std::memcpy(&value, a.address(s, plane) + i, 8);
        ASSERT_EQ(value, i + (s << 40) + (uint64_t{plane} << 32)) << s << " " << plane;
      }
    }
  }
  EXPECT_GT(stat_of(a.sessions[1]).faults_major, 0u);
}

TEST_F(Sessions, APinWithoutAFrameHasFailed) {
  Options o;  // no swap: what is written stays
  o.dram = 4 * kMi;
  World w;
  ASSERT_KVMM_OK(w.open(o));
  ASSERT_NE(w.session(0), nullptr);
  ASSERT_NE(w.session(1), nullptr);
  w.fill(0, 1);
  w.fill(1, 2);
  kvmm_pin_range r{w.session(2), 0, 0, 0, KVMM_ALL_TOKENS};
  kvmm_pin* pin = nullptr;
  uint32_t answer = KVMM_PIN_READY;
  ASSERT_KVMM_OK(kvmm_pin_batch(w.runtime(), &r, 1, &pin, &answer));
  ASSERT_TRUE(readable(kvmm_pin_fd(pin), 20'000));
  ASSERT_KVMM_OK(kvmm_pin_poll(pin, &answer, 1));
  EXPECT_EQ(answer, static_cast<uint32_t>(KVMM_PIN_FAILED));
  EXPECT_EQ(w.stat(2).pages_poisoned, 0u) << "a pin is told, no touch is answered for it";
  ASSERT_KVMM_OK(kvmm_unpin(pin, nullptr));
  EXPECT_TRUE(w.holds(0, 1) && w.holds(1, 2));
}

TEST_F(Sessions, ThePinsDescriptorIsReadableOnceNothingIsComing) {
  World w;
  ASSERT_KVMM_OK(w.open(with_swap()));
  ASSERT_NE(w.session(0), nullptr);
  w.fill(0, 1);
  // All of the memory: whoever comes now has to wait for this pin's end.
  const kvmm_pin_range all[2] = {{w.session(0), 0, 0, 0, KVMM_ALL_TOKENS},
                                 {w.session(1), 0, 0, 0, KVMM_ALL_TOKENS}};
  kvmm_pin* first = nullptr;
  uint32_t answers[2] = {};
  ASSERT_KVMM_OK(kvmm_pin_batch(w.runtime(), all, 2, &first, answers));
  ASSERT_TRUE(readable(kvmm_pin_fd(first), 20'000));
  ASSERT_KVMM_OK(kvmm_pin_poll(first, answers, 2));
  ASSERT_EQ(answers[0], static_cast<uint32_t>(KVMM_PIN_READY));
  ASSERT_EQ(answers[1], static_cast<uint32_t>(KVMM_PIN_READY));

  const kvmm_pin_range one{w.session(2), 0, 1, 0, KVMM_ALL_TOKENS};
  kvmm_pin* second = nullptr;
  uint32_t answer = KVMM_PIN_READY;
  ASSERT_KVMM_OK(kvmm_pin_batch(w.runtime(), &one, 1, &second, &answer));
  EXPECT_EQ(answer, static_cast<uint32_t>(KVMM_PIN_COMING));
  EXPECT_FALSE(readable(kvmm_pin_fd(second), 50)) << "not while it is coming";
  ASSERT_KVMM_OK(kvmm_pin_poll(second, &answer, 1));
  EXPECT_EQ(answer, static_cast<uint32_t>(KVMM_PIN_COMING));

  ASSERT_KVMM_OK(kvmm_unpin(first, nullptr));
  ASSERT_TRUE(readable(kvmm_pin_fd(second), 20'000));
  ASSERT_KVMM_OK(kvmm_pin_poll(second, &answer, 1));
  EXPECT_EQ(answer, static_cast<uint32_t>(KVMM_PIN_READY));
  w.fill(2, 3);
  EXPECT_TRUE(w.holds(2, 3));
  ASSERT_KVMM_OK(kvmm_unpin(second, nullptr));
  EXPECT_TRUE(w.holds(0, 1));
}

}  // namespace
}  // namespace kvmm_api
