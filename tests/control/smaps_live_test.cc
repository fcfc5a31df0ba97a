// SPDX-License-Identifier: Apache-2.0
//
// sessions/<id>/smaps of a runtime that is open: the sums hold, and each name means what
// docs/abi/sessions.md says.
#include <poll.h>

#include <numeric>

#include "tests/api/rig.h"
#include "tools/kvctl/session_texts.h"

namespace kvmm_api {
namespace {

using kvmm::ctl::VmaText;

class Smaps : public ApiTest {
 protected:
  // Of lane `lane`; the sums are held against each other.
  static VmaText read(World& w, uint32_t lane) {
    const std::string path =
        "sessions/" + std::to_string(kvmm_session_id(w.session(lane))) + "/smaps";
    std::vector<char> text(64 * 1024);
    EXPECT_KVMM_OK(kvmm_attr_get(w.runtime(), path.c_str(), text.data(), text.size()));
    const auto vmas = kvmm::ctl::parse_smaps(path, text.data());
    EXPECT_TRUE(vmas.ok());
    EXPECT_EQ(vmas->size(), 1u);
    VmaText v = vmas->at(0);
    EXPECT_EQ(v.count("size"), v.end - v.start);
    EXPECT_EQ(v.count("size"),
              v.count("resident") + v.count("swapped") + v.count("discarded") + v.count("empty"));
    EXPECT_EQ(v.count("resident"), v.count("clean") + v.count("dirty"));
    uint64_t tiers = 0;
    for (const auto& [name, bytes] : v.counts) {
      tiers += name.starts_with("tier:") ? bytes : 0;
      EXPECT_EQ(bytes % v.page_size, 0u) << name;
      EXPECT_LE(bytes, v.count("size")) << name;
    }
    EXPECT_EQ(tiers, v.count("resident"));
    EXPECT_EQ(v.count("resident"), w.stat(lane).bytes_resident);
    EXPECT_EQ(v.count("swapped"), w.stat(lane).bytes_swapped);
    return v;
  }
};

TEST_F(Smaps, ARawSessionGoesOutAndComesBack) {
  World w;
  Options options;
  options.swap = folder_.file("swap");
  ASSERT_KVMM_OK(w.open(options));
  ASSERT_NE(w.session(0), nullptr);
  EXPECT_EQ(read(w, 0).count("empty"), w.lane_bytes());
  w.fill(0, 1);
  VmaText v = read(w, 0);
  EXPECT_EQ(v.count("resident"), w.lane_bytes());
  EXPECT_EQ(v.count("dirty"), w.lane_bytes());
  EXPECT_EQ(v.count("sealed"), 0u);
  ASSERT_TRUE(w.send_out(0));
  v = read(w, 0);
  EXPECT_EQ(v.count("swapped"), w.lane_bytes());
  EXPECT_EQ(v.count("mapped"), 0u);
  EXPECT_EQ(v.count("swap_cached"), 0u);
  EXPECT_TRUE(w.holds(0, 1));
  v = read(w, 0);
  EXPECT_EQ(v.count("mapped"), w.lane_bytes());
  EXPECT_EQ(v.count("swap_cached"), w.lane_bytes());
  EXPECT_EQ(v.count("dirty"), w.lane_bytes()) << "the engine may write to it unseen";

  const kvmm_pin_range range{w.session(0), KVMM_ALL_PLANES, 0, 0, KVMM_ALL_TOKENS};
  kvmm_pin* pin = nullptr;
  uint32_t answer = 0;
  ASSERT_KVMM_OK(kvmm_pin_batch(w.runtime(), &range, 1, &pin, &answer));
  pollfd fd{kvmm_pin_fd(pin), POLLIN, 0};
  ASSERT_EQ(poll(&fd, 1, 20'000), 1);
  EXPECT_EQ(read(w, 0).count("pinned"), w.lane_bytes());
  ASSERT_KVMM_OK(kvmm_unpin(pin, nullptr));
  EXPECT_EQ(read(w, 0).count("pinned"), 0u);
}

TEST_F(Smaps, SealedPagesStayClean) {
  World w;
  Options options;
  options.swap = folder_.file("swap");
  options.token = 4 * kKi;  // 16 tokens a page
  ASSERT_KVMM_OK(w.open(options));
  ASSERT_NE(w.session(0), nullptr);
  w.fill(0, 1);
  ASSERT_KVMM_OK(kvmm_append(w.session(0), nullptr, 40));  // two full pages and a half
  VmaText v = read(w, 0);
  EXPECT_EQ(v.count("sealed"), 2 * 64 * kKi);
  ASSERT_TRUE(w.send_out(0));
  EXPECT_EQ(read(w, 0).count("sealed"), 2 * 64 * kKi);
  EXPECT_TRUE(w.holds(0, 1));
  v = read(w, 0);
  EXPECT_EQ(v.count("clean"), 2 * 64 * kKi);
  EXPECT_EQ(v.count("mapped"), w.lane_bytes());
}

}  // namespace
}  // namespace kvmm_api
