// SPDX-License-Identifier: Apache-2.0
//
// Hostile arguments: null handles, structs of other sizes, numbers at the edge of their types. Each
// is refused with a text, nothing is changed by it, and what was there works as before.
#include <sys/resource.h>

#include <climits>
#include <cstring>
#include <random>

#include "tests/api/rig.h"

namespace kvmm_api {
namespace {

class Arguments : public ApiTest {
 protected:
  Options with_swap() const {
    Options s;
    s.swap = folder_.file("swap");
    return s;
  }
};

TEST_F(Arguments, NullHandlesAndResults) {
  World w;
  ASSERT_KVMM_OK(w.open(with_swap()));
  void* p = nullptr;
  size_t n = 0;
  char text[8];
  kvmm_pin* pin = nullptr;
  const kvmm_status refusals[] = {
      kvmm_runtime_open(nullptr, nullptr),
      kvmm_swapon(nullptr, "x", 1, 0),
      kvmm_swapon(w.runtime(), nullptr, 1, 0),
      kvmm_swapon(w.runtime(), "", 1, 0),
      kvmm_swapoff(nullptr, "x"),
      kvmm_swapoff(w.runtime(), nullptr),
      kvmm_attr_get(nullptr, "name", text, sizeof text),
      kvmm_attr_get(w.runtime(), nullptr, text, sizeof text),
      kvmm_attr_get(w.runtime(), "name", nullptr, 8),
      kvmm_attr_get(w.runtime(), "name", text, 0),
      kvmm_attr_set(nullptr, "name", "x"),
      kvmm_attr_set(w.runtime(), nullptr, "x"),
      kvmm_attr_set(w.runtime(), "name", nullptr),
      kvmm_arena_create(nullptr, nullptr, nullptr),
      kvmm_arena_create(w.runtime(), nullptr, nullptr),
      kvmm_arena_reserve(nullptr, 1, &p),
      kvmm_arena_reserve(w.arena(), 1, nullptr),
      kvmm_arena_add_plane(nullptr, nullptr, nullptr),
      kvmm_arena_add_plane(w.arena(), nullptr, nullptr),
      kvmm_arena_clear(nullptr, nullptr, 0),
      kvmm_session_open(nullptr, nullptr, nullptr),
      kvmm_session_open(w.arena(), nullptr, nullptr),
      kvmm_session_address(nullptr, 0, &p),
      kvmm_append(nullptr, nullptr, 1),
      kvmm_truncate(nullptr, 0),
      kvmm_discard(nullptr, 0, 1),
      kvmm_recompute_ranges(nullptr, nullptr, 0, &n),
      kvmm_recompute_ranges(w.session(0), nullptr, 0, nullptr),
      kvmm_recompute_ranges(w.session(0), nullptr, 1, &n),
      kvmm_recompute_begin(nullptr, 0, 1),
      kvmm_recompute_end(nullptr, 0, 1),
      kvmm_prefetch(nullptr, 0, 1, 0),
      kvmm_advise(nullptr, 0),
      kvmm_advise(w.session(0), 99),
      kvmm_sync(nullptr, nullptr),
      kvmm_session_stats(nullptr, nullptr),
      kvmm_session_stats(w.session(0), nullptr),
      kvmm_pin_batch(nullptr, nullptr, 0, nullptr, nullptr),
      kvmm_pin_batch(w.runtime(), nullptr, 1, &pin, nullptr),
      kvmm_pin_poll(nullptr, nullptr, 0),
      kvmm_unpin(nullptr, nullptr),
  };
  for (size_t i = 0; i < std::size(refusals); ++i) {
    EXPECT_EQ(refusals[i], KVMM_EINVALID) << "call " << i;
  }
  EXPECT_REFUSED(kvmm_advise(nullptr, 0), KVMM_EINVALID, "NULL");
  EXPECT_REFUSED(kvmm_session_address(w.session(0), 0, nullptr), KVMM_EINVALID, "NULL");
  // What has nothing to do says so by doing nothing.
  EXPECT_EQ(kvmm_runtime_close(nullptr), KVMM_OK);
  EXPECT_EQ(kvmm_arena_destroy(nullptr), KVMM_OK);
  EXPECT_EQ(kvmm_session_close(nullptr), KVMM_OK);
  EXPECT_EQ(kvmm_session_id(nullptr), 0u);
  EXPECT_EQ(kvmm_session_lane(nullptr), UINT32_MAX);
  EXPECT_EQ(kvmm_tokens(nullptr), 0u);
  EXPECT_EQ(kvmm_pin_fd(nullptr), -1);
  for (const kvmm_status s : {0, 1, -1, -22, -23, INT_MAX, INT_MIN}) {
    EXPECT_NE(kvmm_status_name(s), nullptr);
    EXPECT_NE(kvmm_status_text(s), nullptr);
  }
}

TEST_F(Arguments, StructsOfOtherSizes) {
  struct Newer {
    kvmm_runtime_options known;
    uint64_t unknown;
  } newer{};
  newer.known = kvmmpp::init<kvmm_runtime_options>();
  newer.known.flags = KVMM_RUNTIME_NO_CONTROL;
  newer.known.dram_bytes = 4 * kMi;
  newer.known.size = sizeof newer;
  kvmm_runtime* r = nullptr;
  ASSERT_KVMM_OK(kvmm_runtime_open(&newer.known, &r)) << "a newer header, nothing new used";
  EXPECT_KVMM_OK(kvmm_runtime_close(r));
  r = nullptr;
  newer.unknown = 1;
  EXPECT_REFUSED(kvmm_runtime_open(&newer.known, &r), KVMM_EINVALID, "newer", "KVMM_INIT");
  for (const size_t size : {size_t{0}, size_t{1}, size_t{7}, size_t{1} << 20, SIZE_MAX}) {
    newer.known.size = size;
    EXPECT_REFUSED(kvmm_runtime_open(&newer.known, &r), KVMM_EINVALID, "size");
    EXPECT_EQ(r, nullptr);
  }
  World w;
  ASSERT_KVMM_OK(w.open(with_swap()));
  kvmm_session_stat stat{};
  for (const size_t size : {size_t{0}, size_t{7}}) {
    stat.size = size;
    EXPECT_EQ(kvmm_session_stats(w.session(0), &stat), KVMM_EINVALID);
  }
  stat.size = offsetof(kvmm_session_stat, bytes_swapped);  // an older header
  stat.bytes_swapped = 77;
  EXPECT_KVMM_OK(kvmm_session_stats(w.session(0), &stat));
  EXPECT_EQ(stat.bytes_swapped, 77u) << "not written past the caller's struct";
}

TEST_F(Arguments, RuntimeOptionsAtTheEdge) {
  kvmm_runtime* r = nullptr;
  const auto open = [&](const auto& change) {
    kvmm_runtime_options o = kvmmpp::init<kvmm_runtime_options>();
    o.flags = KVMM_RUNTIME_NO_CONTROL;
    o.dram_bytes = 4 * kMi;
    change(o);
    return kvmm_runtime_open(&o, &r);
  };
  const std::string path = folder_.file("swap");
  const std::string longer(300, 'x');
  EXPECT_REFUSED(open([](auto& o) { o.flags = 1u << 31; }), KVMM_EINVALID, "flag");
  EXPECT_REFUSED(open([](auto& o) { o.frames = "paper"; }), KVMM_EINVALID, "movable", "paper");
  EXPECT_REFUSED(open([](auto& o) { o.data_workers = UINT32_MAX; }), KVMM_EINVALID, "64");
  EXPECT_REFUSED(open([&](auto& o) { o.name = longer.c_str(); }), KVMM_EINVALID, "255");
  EXPECT_REFUSED(open([](auto& o) { o.name = "a\nb"; }), KVMM_EINVALID, "control");
  for (const uint64_t dram :
       {UINT64_MAX, UINT64_MAX - kMi, uint64_t{1} << 63, (uint64_t{1} << 46) + 1}) {
    EXPECT_REFUSED(open([&](auto& o) { o.dram_bytes = dram; }), KVMM_ERANGE, "64 TiB");
  }
  for (const uint64_t dram : {uint64_t{1}, kMi}) {  // rounded up to one block
    EXPECT_EQ(open([&](auto& o) { o.dram_bytes = dram; }), KVMM_OK) << kvmm_last_error();
    EXPECT_KVMM_OK(kvmm_runtime_close(r));
    r = nullptr;
  }
  for (const uint64_t swap : {UINT64_MAX, uint64_t{1} << 63, uint64_t{1} << 62, uint64_t{1}, kMi}) {
    const kvmm_status s = open([&](auto& o) {
      o.swap_path = path.c_str();
      o.swap_bytes = swap;
    });
    EXPECT_TRUE(s == KVMM_EINVALID || s == KVMM_ENOSPACE || s == KVMM_EIO || s == KVMM_ERANGE)
        << swap << ": " << kvmm_status_name(s) << ": " << kvmm_last_error();
    EXPECT_NE(std::string(kvmm_last_error()).find(path), std::string::npos) << kvmm_last_error();
    EXPECT_EQ(r, nullptr);
  }
  EXPECT_TRUE(threads_become(1));
}

TEST_F(Arguments, ArenasAndPlanesAtTheEdge) {
  World w;
  ASSERT_KVMM_OK(w.open(with_swap()));
  const auto arena = [&](uint32_t lanes, uint64_t tokens, uint32_t placement) {
    kvmm_arena_options o = kvmmpp::init<kvmm_arena_options>();
    o.lanes = lanes;
    o.lane_tokens = tokens;
    o.placement = placement;
    kvmm_arena* a = nullptr;
    const kvmm_status s = kvmm_arena_create(w.runtime(), &o, &a);
    EXPECT_EQ(s == KVMM_OK, a != nullptr) << kvmm_last_error();
    return a;
  };
  EXPECT_EQ(arena(UINT32_MAX, 0, 0), nullptr);
  EXPECT_EQ(arena(1, 0, 2), nullptr);
  void* base = nullptr;
  for (const uint64_t length : {uint64_t{0}, UINT64_MAX, (uint64_t{1} << 46) + 1}) {
    EXPECT_REFUSED(kvmm_arena_reserve(w.arena(), length, &base), KVMM_EINVALID);
  }
  for (const uint32_t placement : {KVMM_PLACE_STRIDED, KVMM_PLACE_CONTIGUOUS}) {
    kvmm_arena* a = arena(4, UINT64_MAX / 2, placement);
    ASSERT_NE(a, nullptr);
    const auto plane = [&](uint64_t lane_stride, uint64_t token_stride, uint64_t page, void* at) {
      kvmm_plane_options o = kvmmpp::init<kvmm_plane_options>();
      o.name = "edge";
      o.lane_stride = lane_stride;
      o.token_stride = token_stride;
      o.page_size = page;
      o.base = at;
      return kvmm_arena_add_plane(a, &o, nullptr);
    };
    EXPECT_REFUSED(plane(0, 0, 0, nullptr), KVMM_EINVALID, "edge", "lane_stride");
    EXPECT_REFUSED(plane(0, 8, 0, nullptr), KVMM_ERANGE, "edge", "64 TiB");
    EXPECT_REFUSED(plane(UINT64_MAX, 1, 0, nullptr), KVMM_ERANGE, "edge", "64 TiB");
    EXPECT_REFUSED(plane(uint64_t{1} << 62, 1, 0, nullptr), KVMM_ERANGE, "edge", "64 TiB");
    EXPECT_REFUSED(plane(kMi, 2 * kMi, 0, nullptr), KVMM_EINVALID, "larger than a lane");
    for (const uint64_t page : {uint64_t{1}, uint64_t{4097}, 4 * kMi, uint64_t{1} << 63}) {
      EXPECT_REFUSED(plane(4 * kMi, 1, page, nullptr), KVMM_EINVALID, "page_size", "power of two");
    }
    if (placement == KVMM_PLACE_STRIDED) {
      EXPECT_REFUSED(plane(kMi, 1, 0, w.base(0)), KVMM_ERANGE, "reserved");
      EXPECT_REFUSED(plane(kMi, 1, 0, reinterpret_cast<void*>(UINTPTR_MAX - 4095)), KVMM_ERANGE,
                     "reserved");
    } else {
      EXPECT_REFUSED(kvmm_arena_reserve(a, kMi, &base), KVMM_EINVALID, "strided");
    }
    kvmm_session* s = nullptr;
    EXPECT_REFUSED(kvmm_session_open(a, nullptr, &s), KVMM_EINVALID, "kvmm_arena_add_plane");
    ASSERT_EQ(plane(kMi, 1, 0, nullptr), KVMM_OK) << kvmm_last_error();
    kvmm_session_options o = kvmmpp::init<kvmm_session_options>();
    for (const int64_t lane : {INT64_MIN, int64_t{-1}, int64_t{5}, INT64_MAX}) {
      o.lane = lane;
      EXPECT_EQ(kvmm_session_open(a, &o, &s), KVMM_EINVALID) << lane;
    }
    EXPECT_KVMM_OK(kvmm_arena_destroy(a));
  }
  kvmm_plane_options over = kvmmpp::init<kvmm_plane_options>();
  over.lane_stride = kMi;
  over.base = w.base(1);
  EXPECT_REFUSED(kvmm_arena_add_plane(w.arena(), &over, nullptr), KVMM_EEXISTS, "overlaps");
  w.session(0);
  w.fill(0, 1);
  EXPECT_TRUE(w.holds(0, 1));
}

// Calls with numbers that programs get wrong, in a random order. Nothing may crash or hang, and the
// bytes of a session that is never named stay.
TEST_F(Arguments, AnyNumbersInAnyOrder) {
  for (const uint64_t token : {uint64_t{0}, uint64_t{4096}}) {
    EXPECT_CHILD_OK(in_child([&] {
      constexpr uint32_t kSeed = 20261121;
      SCOPED_TRACE(testing::Message() << "seed " << kSeed << " token " << token);
      std::mt19937_64 random(kSeed);
      Options o = with_swap();
      o.token = token;
      World w;
      ASSERT_KVMM_OK(w.open(o));
      const uint64_t kNumbers[] = {0,
                                   1,
                                   2,
                                   15,
                                   16,
                                   63,
                                   64,
                                   511,
                                   512,
                                   513,
                                   4096,
                                   kMi,
                                   UINT32_MAX,
                                   UINT64_MAX,
                                   INT64_MAX,
                                   uint64_t{1} << 63,
                                   64 * kKi,
                                   2 * kMi - 1,
                                   UINT64_MAX - 1};
      const auto any = [&] { return kNumbers[random() % std::size(kNumbers)]; };
      w.session(0);
      if (token == 0) {
        w.fill(0, 1);
      }
      std::vector<kvmm_pin*> pins;
      size_t failed = 0;
      for (int i = 0; i < 6000; ++i) {
        kvmm_session* s = w.session(1 + static_cast<uint32_t>(random() % 3));
        ASSERT_NE(s, nullptr);
        kvmm_status r = KVMM_OK;
        switch (random() % 11) {
          case 0:
            r = kvmm_append(s, nullptr, any());
            break;
          case 1:
            r = kvmm_truncate(s, any());
            break;
          case 2:
            r = kvmm_discard(s, any(), any());
            break;
          case 3:
            r = kvmm_recompute_begin(s, any(), any());
            break;
          case 4:
            r = kvmm_recompute_end(s, any(), any());
            break;
          case 5:
            r = kvmm_prefetch(s, any(), any(), any());
            break;
          case 6:
            r = kvmm_advise(s, static_cast<uint32_t>(random() % 7));
            break;
          case 7:
            // It may touch memory: who does that and has all of it pinned waits for himself.
            for (; !pins.empty(); pins.pop_back()) {
              EXPECT_KVMM_OK(kvmm_unpin(pins.back(), nullptr));
            }
            r = kvmm_arena_clear(w.arena(), w.base(1) + any() % (8 * kMi), any());
            break;
          case 8: {
            kvmm_pin_range ranges[2] = {{s, static_cast<uint32_t>(any()),
                                         static_cast<uint32_t>(random() % 2), any(), any()},
                                        {s, KVMM_ALL_PLANES, 0, any(), any()}};
            kvmm_pin* pin = nullptr;
            uint32_t answers[2] = {};
            r = kvmm_pin_batch(w.runtime(), ranges, 1 + random() % 2, &pin, answers);
            EXPECT_EQ(r == KVMM_OK, pin != nullptr);
            if (pin != nullptr) {
              pins.push_back(pin);
            }
            break;
          }
          case 9: {
            void* p = nullptr;
            r = kvmm_session_address(s, static_cast<uint32_t>(any()), &p);
            break;
          }
          default:
            if (!pins.empty()) {
              EXPECT_KVMM_OK(kvmm_unpin(pins.back(), nullptr));
              pins.pop_back();
            }
        }
        failed += r == KVMM_OK ? 0u : 1u;
        EXPECT_TRUE(r == KVMM_OK || *kvmm_last_error() != '\0') << r;
      }
      EXPECT_GT(failed, 1000u);
      EXPECT_LT(failed, 5500u);
      for (kvmm_pin* pin : pins) {
        EXPECT_KVMM_OK(kvmm_unpin(pin, nullptr));
      }
      if (token == 0) {
        EXPECT_TRUE(w.holds(0, 1));
      }
    }));
  }
}

TEST_F(Arguments, FencesThatCannotBe) {
  World w;
  ASSERT_KVMM_OK(w.open(with_swap()));
  kvmm_pin_range r{w.session(0), 0, 1, 0, KVMM_ALL_TOKENS};
  kvmm_pin* pin = nullptr;
  ASSERT_KVMM_OK(kvmm_pin_batch(w.runtime(), &r, 1, &pin, nullptr));
  uint32_t answers[2];
  EXPECT_REFUSED(kvmm_pin_poll(pin, answers, 2), KVMM_EINVALID, "kvmm_pin_batch");
  kvmm_fence f = kvmmpp::init<kvmm_fence>();
  f.type = KVMM_FENCE_CALLBACK;  // without one
  EXPECT_EQ(kvmm_unpin(pin, &f), KVMM_EINVALID);
  f.type = 99;
  EXPECT_REFUSED(kvmm_unpin(pin, &f), KVMM_EINVALID, "fence type");
  f.type = KVMM_FENCE_CUDA_EVENT;
  EXPECT_REFUSED(kvmm_unpin(pin, &f), KVMM_ENOTSUPPORTED, "callback");
  f.size = 3;
  EXPECT_EQ(kvmm_unpin(pin, &f), KVMM_EINVALID);
  EXPECT_REFUSED(w.close_session(0), KVMM_EBUSY, "unpin");
  World other;
  Options o;
  ASSERT_KVMM_OK(other.open(o));
  kvmm_pin* wrong = nullptr;
  EXPECT_REFUSED(kvmm_pin_batch(other.runtime(), &r, 1, &wrong, nullptr), KVMM_EINVALID,
                 "another runtime");
  EXPECT_KVMM_OK(kvmm_unpin(pin, nullptr));
}

}  // namespace
}  // namespace kvmm_api
