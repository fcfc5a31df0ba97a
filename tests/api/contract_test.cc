// SPDX-License-Identifier: Apache-2.0
//
// What kvmm.h promises of arguments that fit the types and not each other: refused with a text
// before anything is changed, or done as it says.
#include <cstring>
#include <thread>

#include "tests/api/rig.h"

namespace kvmm_api {
namespace {

class Contract : public ApiTest {
 protected:
  Options with_swap(uint32_t flags = 0) const {
    Options o;
    o.swap = folder_.file("swap");
    o.flags |= flags;
    return o;
  }
};

size_t count(const std::string& text, const std::string& word) {
  size_t n = 0;
  for (size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) {
    ++n;
  }
  return n;
}

// An arena of two lanes beside the rig's.
struct Beside {
  kvmm_arena* arena = nullptr;
  kvmm_session* sessions[2] = {};

  kvmm_status create(kvmm_runtime* runtime, uint32_t engine) {
    kvmm_arena_options o = kvmmpp::init<kvmm_arena_options>();
    o.lanes = 2;
    o.engine = engine;
    return kvmm_arena_create(runtime, &o, &arena);
  }
  kvmm_status plane(uint64_t lane_stride, uint64_t token, uint64_t page, void* base = nullptr) {
    kvmm_plane_options o = kvmmpp::init<kvmm_plane_options>();
    o.name = "beside";
    o.lane_stride = lane_stride;
    o.token_stride = token;
    o.page_size = page;
    o.base = base;
    return kvmm_arena_add_plane(arena, &o, nullptr);
  }
  kvmm_status open(uint32_t kind, uint32_t lane) {
    kvmm_session_options o = kvmmpp::init<kvmm_session_options>();
    o.kind = kind;
    o.lane = lane + 1;
    return kvmm_session_open(arena, &o, &sessions[lane]);
  }
  unsigned char* address(uint32_t lane, uint32_t plane) const {
    void* p = nullptr;
    EXPECT_KVMM_OK(kvmm_session_address(sessions[lane], plane, &p));
    return static_cast<unsigned char*>(p);
  }
  ~Beside() {
    for (kvmm_session* s : sessions) {
      EXPECT_KVMM_OK(kvmm_session_close(s));
    }
    EXPECT_KVMM_OK(kvmm_arena_destroy(arena));
  }
};

TEST_F(Contract, ErrorTextsSayNothingTwice) {
  World w;
  ASSERT_KVMM_OK(w.open(with_swap()));
  // With a detail: that alone. Without: the status's sentence.
  EXPECT_REFUSED(kvmm_append(w.session(0), nullptr, 1), KVMM_EINVALID, "a raw session");
  EXPECT_EQ(std::string(kvmm_last_error()).find("invalid"), std::string::npos) << kvmm_last_error();
  EXPECT_EQ(kvmm_recompute_begin(w.session(0), 0, 1), KVMM_EINVALID);
  EXPECT_STREQ(kvmm_last_error(), kvmm_status_text(KVMM_EINVALID));
  EXPECT_KVMM_OK(kvmm_advise(w.session(0), KVMM_ADVISE_NORMAL));
  EXPECT_STREQ(kvmm_last_error(), "");
  kvmm_pin_range r{w.session(0), 0, 1, 0, KVMM_ALL_TOKENS};
  kvmm_pin* pin = nullptr;
  ASSERT_KVMM_OK(kvmm_pin_batch(w.runtime(), &r, 1, &pin, nullptr));
  const std::string busy = kvmmpp::Status::of(w.close_session(0)).message();
  EXPECT_EQ(count(busy, "busy:"), 1u) << busy;
  EXPECT_EQ(count(busy, "unpin first"), 1u) << busy;
  EXPECT_KVMM_OK(kvmm_unpin(pin, nullptr));
  const kvmmpp::Status bare = kvmmpp::Status::of(kvmm_recompute_begin(w.session(0), 0, 1));
  EXPECT_EQ(bare.message(), std::string("invalid: ") + kvmm_status_text(KVMM_EINVALID));
  // The errno is part of it, once.
  const kvmmpp::Status none =
      kvmmpp::Status::of(kvmm_swapon(w.runtime(), folder_.file("no/x").c_str(), 16 * kMi, 0));
  EXPECT_EQ(none.code(), KVMM_ENOTFOUND);
  EXPECT_EQ(count(none.detail(), "(errno 2: "), 1u) << none.detail();
  EXPECT_EQ(count(none.message(), "not_found:"), 1u) << none.message();
  EXPECT_EQ(kvmmpp::Status().message(), "ok: success");
}

TEST_F(Contract, PrioritiesOfSwapAreas) {
  World w;
  ASSERT_KVMM_OK(w.open(with_swap()));
  const std::string more = folder_.file("more");
  for (const int32_t p : {-32769, 32768, INT32_MIN, INT32_MAX}) {
    EXPECT_REFUSED(kvmm_swapon(w.runtime(), more.c_str(), 16 * kMi, p), KVMM_ERANGE, "-32768");
  }
  for (const int32_t p : {-32768, 32767}) {
    EXPECT_KVMM_OK(kvmm_swapon(w.runtime(), more.c_str(), 16 * kMi, p));
    char value[16] = "";
    EXPECT_KVMM_OK(kvmm_attr_get(w.runtime(), p < 0 ? "swap/swap1/priority" : "swap/swap2/priority",
                                 value, sizeof value));
    EXPECT_EQ(std::to_string(p), value);
    EXPECT_KVMM_OK(kvmm_swapoff(w.runtime(), more.c_str()));
  }
}

TEST_F(Contract, FaultingEnginesNeedFaults) {
  World w;
  ASSERT_KVMM_OK(w.open(with_swap(KVMM_RUNTIME_PIN_ONLY)));
  kvmm_arena* a = nullptr;
  EXPECT_REFUSED(kvmm_arena_create(w.runtime(), nullptr, &a), KVMM_ENOTSUPPORTED,
                 "KVMM_RUNTIME_PIN_ONLY", "KVMM_ENGINE_PINNING");
  EXPECT_EQ(a, nullptr);
  kvmm_arena_options o = kvmmpp::init<kvmm_arena_options>();
  o.engine = KVMM_ENGINE_PINNING;
  ASSERT_KVMM_OK(kvmm_arena_create(w.runtime(), &o, &a));
  EXPECT_KVMM_OK(kvmm_arena_destroy(a));
}

TEST_F(Contract, StructuredSessionsNeedTokensAndWholePages) {
  World w;
  ASSERT_KVMM_OK(w.open(with_swap()));
  const struct {
    uint64_t lane_stride, token, shift;
    const char* text;
  } kBad[] = {
      {kMi, 0, 0, "token_stride"}, {66 * kKi, kKi, 0, "lane_stride"}, {kMi, kKi, 1024, "base"}};
  for (const auto& bad : kBad) {
    SCOPED_TRACE(bad.text);
    Beside b;
    ASSERT_KVMM_OK(b.create(w.runtime(), KVMM_ENGINE_FAULTING));
    void* base = nullptr;
    ASSERT_KVMM_OK(kvmm_arena_reserve(b.arena, 8 * kMi, &base));
    base = static_cast<char*>(base) + bad.shift;
    ASSERT_KVMM_OK(b.plane(bad.lane_stride, bad.token, 4096, base));
    EXPECT_REFUSED(b.open(KVMM_SESSION_STRUCTURED, 0), KVMM_EINVALID, "beside", bad.text, "raw");
    ASSERT_KVMM_OK(b.open(KVMM_SESSION_RAW, 0)) << "the lane is still free";
    *b.address(0, 0) = 1;
  }
  // The other way round: the session first.
  Beside b;
  ASSERT_KVMM_OK(b.create(w.runtime(), KVMM_ENGINE_FAULTING));
  ASSERT_KVMM_OK(b.plane(kMi, kKi, 4096));
  ASSERT_KVMM_OK(b.open(KVMM_SESSION_STRUCTURED, 0));
  EXPECT_REFUSED(b.plane(kMi, 0, 4096), KVMM_EINVALID, "token_stride");
  EXPECT_REFUSED(b.plane(66 * kKi, kKi, 4096), KVMM_EINVALID, "lane_stride");
  void* address = nullptr;
  EXPECT_REFUSED(kvmm_session_address(b.sessions[0], 1, &address), KVMM_ERANGE, "1 planes");
  ASSERT_KVMM_OK(b.plane(kMi, 2 * kKi, 4096));
  *b.address(0, 1) = 1;
  EXPECT_KVMM_OK(kvmm_append(b.sessions[0], nullptr, 512));
}

// The second lane of a plane whose lanes are smaller than a page has no page: the first one's is
// taken back.
TEST_F(Contract, APlaneThatASessionCannotHaveIsNotAdded) {
  World w;
  ASSERT_KVMM_OK(w.open(with_swap()));
  Beside b;
  ASSERT_KVMM_OK(b.create(w.runtime(), KVMM_ENGINE_FAULTING));
  ASSERT_KVMM_OK(b.plane(kMi, 0, 4096));
  ASSERT_KVMM_OK(b.open(KVMM_SESSION_RAW, 0));
  ASSERT_KVMM_OK(b.open(KVMM_SESSION_RAW, 1));
  void* base = nullptr;
  ASSERT_KVMM_OK(kvmm_arena_reserve(b.arena, 2 * kMi, &base));
  for (void* where : {static_cast<void*>(nullptr), base, base}) {
    EXPECT_REFUSED(b.plane(2048, 0, 4096, where), KVMM_EINVALID, "smaller than a page");
  }
  void* address = nullptr;
  EXPECT_REFUSED(kvmm_session_address(b.sessions[0], 1, &address), KVMM_ERANGE, "1 planes");
  // The addresses and the number are free for another plane.
  ASSERT_KVMM_OK(b.plane(kMi, 0, 4096, base));
  EXPECT_EQ(b.address(1, 1), static_cast<unsigned char*>(base) + kMi);
  for (const uint32_t lane : {0u, 1u}) {
    *b.address(lane, 1) = 5;
    EXPECT_EQ(*b.address(lane, 1), 5);
  }
}

TEST_F(Contract, DiscardOfTokensThatNobodyKnows) {
  World w;
  ASSERT_KVMM_OK(w.open(with_swap()));
  kvmm_session* s = w.session(0);
  w.fill(0, 1);
  EXPECT_KVMM_OK(kvmm_discard(s, 5, 5));
  EXPECT_KVMM_OK(kvmm_discard(s, 0, 0));
  EXPECT_REFUSED(kvmm_discard(s, 0, 5), KVMM_EINVALID, "k_l0", "token_stride", "KVMM_ALL_TOKENS");
  EXPECT_REFUSED(kvmm_discard(s, 5, KVMM_ALL_TOKENS), KVMM_EINVALID, "token_stride");
  EXPECT_REFUSED(kvmm_discard(s, 6, 5), KVMM_ERANGE);
  EXPECT_TRUE(w.holds(0, 1));
  EXPECT_KVMM_OK(kvmm_discard(s, 0, KVMM_ALL_TOKENS));
  EXPECT_EQ(w.stat(0).bytes_resident, 0u);
  EXPECT_EQ(*w.base(0), 0);
}

// Lanes of 66 KiB on pages of 4 KiB: the second begins in the middle of a page of the first.
TEST_F(Contract, LanesThatShareAPage) {
  constexpr uint64_t kLane = 66 * kKi;
  World w;
  ASSERT_KVMM_OK(w.open(with_swap()));
  Beside pinning;
  ASSERT_KVMM_OK(pinning.create(w.runtime(), KVMM_ENGINE_PINNING));
  EXPECT_REFUSED(pinning.plane(kLane, kKi, 4096), KVMM_EINVALID, "pins", "page_size");
  ASSERT_KVMM_OK(pinning.plane(64 * kKi, kKi, 4096));
  Beside b;
  ASSERT_KVMM_OK(b.create(w.runtime(), KVMM_ENGINE_FAULTING));
  ASSERT_KVMM_OK(b.plane(kLane, kKi, 4096));
  for (const uint32_t lane : {0u, 1u}) {
    ASSERT_KVMM_OK(b.open(KVMM_SESSION_RAW, lane));
    std::memset(b.address(lane, 0), 7, kLane);
  }
  for (const uint32_t lane : {0u, 1u}) {
    kvmm_pin_range r{b.sessions[lane], 0, 1, 0, 1};
    kvmm_pin* pin = nullptr;
    EXPECT_REFUSED(kvmm_pin_batch(w.runtime(), &r, 1, &pin, nullptr), KVMM_EINVALID, "beside",
                   "page_size");
  }
  // Bytes of the plane that are gone after a discard, all of them named by it.
  const auto gone = [&](uint64_t from, uint64_t to) {
    const unsigned char* plane = b.address(0, 0);
    uint64_t zeros = 0;
    for (uint64_t i = 0; i < 2 * kLane; ++i) {
      EXPECT_TRUE(plane[i] == 7 || (plane[i] == 0 && i >= from && i < to)) << i;
      zeros += plane[i] == 0 ? 1 : 0;
    }
    return zeros;
  };
  EXPECT_KVMM_OK(kvmm_discard(b.sessions[1], 0, 4));
  EXPECT_EQ(gone(kLane, kLane), 0u) << "no page lies within these tokens";
  EXPECT_KVMM_OK(kvmm_discard(b.sessions[1], 2, 6));
  EXPECT_EQ(gone(kLane + 2 * kKi, kLane + 6 * kKi), 4 * kKi);
  std::memset(b.address(1, 0), 7, kLane);
  EXPECT_KVMM_OK(kvmm_discard(b.sessions[0], 0, KVMM_ALL_TOKENS));
  EXPECT_EQ(gone(0, kLane), 64 * kKi) << "but for the page that is the other lane's as well";
}

// The parts of pages at the ends of a range are zeroed wherever the pages are.
TEST_F(Contract, ClearWithoutFaults) {
  constexpr uint64_t kPage = 64 * kKi;
  World w;
  ASSERT_KVMM_OK(w.open(with_swap(KVMM_RUNTIME_PIN_ONLY)));
  kvmm_pin_range r{w.session(0), 0, 1, 0, KVMM_ALL_TOKENS};
  kvmm_pin* pin = nullptr;
  const auto take = [&] {
    uint32_t answer = KVMM_PIN_COMING;
    ASSERT_KVMM_OK(kvmm_pin_batch(w.runtime(), &r, 1, &pin, &answer));
    while (answer == KVMM_PIN_COMING) {
      std::this_thread::yield();
      ASSERT_KVMM_OK(kvmm_pin_poll(pin, &answer, 1));
    }
    ASSERT_EQ(answer, KVMM_PIN_READY);
  };
  take();
  std::memset(w.base(0), 7, w.lane_bytes());
  ASSERT_KVMM_OK(kvmm_unpin(pin, nullptr));
  EXPECT_KVMM_OK(kvmm_arena_clear(w.arena(), w.base(0) + 50, 50)) << "within one page";
  ASSERT_TRUE(w.send_out(0));
  EXPECT_KVMM_OK(kvmm_arena_clear(w.arena(), w.base(0) + 100, 3 * kPage)) << "swapped out";
  EXPECT_KVMM_OK(kvmm_arena_clear(w.arena(), w.base(0) + 9 * kPage + 1, 0));
  ASSERT_TRUE(w.send_out(0)) << "nothing stays pinned";
  take();
  for (uint64_t i = 0; i < w.lane_bytes(); ++i) {
    ASSERT_EQ(w.base(0)[i], i >= 50 && i < 100 + 3 * kPage ? 0 : 7) << i;
  }
  // Pages of the engine's own pins do not stand in the way at the ends, only in the middle.
  EXPECT_KVMM_OK(kvmm_arena_clear(w.arena(), w.base(0) + 5 * kPage + 1, kPage - 1));
  EXPECT_EQ(w.base(0)[5 * kPage], 7);
  EXPECT_EQ(w.base(0)[5 * kPage + 1], 0);
  EXPECT_REFUSED(kvmm_arena_clear(w.arena(), w.base(0) + 7 * kPage + 1, 2 * kPage), KVMM_EBUSY);
  EXPECT_EQ(w.base(0)[7 * kPage + 1], 7) << "nothing was cleared";
  EXPECT_KVMM_OK(kvmm_unpin(pin, nullptr));
}

}  // namespace
}  // namespace kvmm_api
