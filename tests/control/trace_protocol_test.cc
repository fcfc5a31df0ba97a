// SPDX-License-Identifier: Apache-2.0
//
// The op `trace`: what a reader gets, what it missed, and what it may ask.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "runtime/base/trace.h"
#include "runtime/control/protocol.h"
#include "tests/control/fake_runtime.h"

namespace kvmm {
namespace {

using Json = nlohmann::json;

struct TraceProtocolTest : ::testing::Test {
  test::FakeRuntime runtime;
  TraceRing ring = *TraceRing::create(1024);
  ControlContext context{.tree = &runtime.tree(), .trace = &ring};

  Json ask(const Json& members = Json::object()) {
    Json request = {{"kvmm", 1}, {"op", "trace"}};
    request.update(members);
    const Result<ControlRequest> parsed = parse_request(request.dump());
    return Json::parse(parsed ? answer_request(context, *parsed) : error_reply(parsed.error()));
  }
  void fault(uint64_t session, uint64_t page) {
    ring.record(Tick(100 + page), TraceEvent::fault_begin, session, page, 0x7f00, 1, 2);
    ring.record(Tick(200 + page), TraceEvent::fault_end, session, page, 0, 100, 2);
  }
};

TEST_F(TraceProtocolTest, BeginsAtThePresentAndGoesOn) {
  fault(1, 1);
  const Json start = ask();
  EXPECT_EQ(start["records"].size(), 0u);
  EXPECT_EQ(start["next"], 2);
  EXPECT_EQ(start["schema"].size(), kTraceEvents.size());
  EXPECT_EQ(start["schema"][0], Json({{"name", "fault_begin"},
                                      {"args", {"session", "page", "address", "write", "kind"}}}));
  fault(3, 9);
  const Json r = ask({{"offset", start["next"]}});
  EXPECT_EQ(r["records"], Json({{2, 109, "fault_begin", 3, 9, 0x7f00, 1, 2},
                                {3, 209, "fault_end", 3, 9, 0, 100, 2}}));
  EXPECT_EQ(r["next"], 4);
  EXPECT_EQ(r["lost"], 0);
  EXPECT_FALSE(r.contains("schema"));
  EXPECT_EQ(ask({{"offset", 4}})["records"].size(), 0u);
}

TEST_F(TraceProtocolTest, SaysHowManyASlowReaderMissed) {
  for (uint64_t i = 0; i < 1000; ++i) {
    fault(1, i);
  }
  const Json r = ask({{"offset", 10}});
  EXPECT_EQ(r["lost"], 2000 - 1024 - 10);
  EXPECT_EQ(r["records"][0][0], 2000 - 1024);
  // What was chosen away is not lost.
  const Json none = ask({{"offset", 10}, {"args", {{"events", "none"}}}});
  EXPECT_EQ(none["lost"], 2000 - 1024 - 10);
  EXPECT_EQ(none["records"].size(), 0u);
  EXPECT_EQ(none["next"], 2000);
}

TEST_F(TraceProtocolTest, LongAnswersComeInPieces) {
  TraceRing large = *TraceRing::create(16384);
  context.trace = &large;
  for (uint64_t i = 0; i < 16000; ++i) {
    large.record(Tick(UINT64_MAX), TraceEvent::swap_in, UINT64_MAX, UINT64_MAX, UINT64_MAX, i, i);
  }
  uint64_t next = 0;
  uint64_t seen = 0;
  int pieces = 0;
  while (next < 16000 && pieces < 100) {
    const Json r = ask({{"offset", next}});
    EXPECT_LT(r.dump().size(), 2 * kControlReplyBytes);
    EXPECT_EQ(r["records"][0][0], next) << "numbers of 64 bits stay exact";
    EXPECT_EQ(r["records"][0][1], UINT64_MAX);
    seen += r["records"].size();
    next = r["next"];
    ++pieces;
  }
  EXPECT_EQ(seen, 16000u);
  EXPECT_GT(pieces, 2);
}

TEST_F(TraceProtocolTest, ChoosesByEventAndSession) {
  fault(1, 1);
  fault(2, 2);
  ring.record(Tick(9), TraceEvent::stray, 1, 77);  // its first argument is an address
  Json r = ask({{"offset", 0}, {"args", {{"session", 1}}}});
  EXPECT_EQ(r["records"].size(), 2u);
  r = ask({{"offset", 0}, {"args", {{"events", "fault_end,stray"}}}});
  EXPECT_EQ(r["records"].size(), 3u);
  r = ask({{"offset", 0}, {"args", {{"events", "fault_end"}, {"session", "2"}}}});
  EXPECT_EQ(r["records"], Json({{3, 202, "fault_end", 2, 2, 0, 100, 2}}));
}

TEST_F(TraceProtocolTest, RefusesWhatItDoesNotKnow) {
  const auto code = [&](const Json& members) {
    const Json r = ask(members);
    return r["ok"] == true ? "ok" : r["error"]["code"].get<std::string>();
  };
  EXPECT_EQ(code({{"args", {{"events", "nothing"}}}}), "not_found");
  for (const char* session : {"x", "-1", "", "1 ", "99999999999999999999"}) {
    EXPECT_EQ(code({{"args", {{"session", session}}}}), "invalid") << session;
  }
  EXPECT_EQ(code({{"args", {{"page", "1"}}}}), "invalid");
  EXPECT_EQ(code({{"offset", -1}}), "invalid");
  EXPECT_EQ(code({{"offset", UINT64_MAX}}), "ok");
  EXPECT_EQ(ask({{"offset", UINT64_MAX}})["next"], UINT64_MAX);
  context.trace = nullptr;
  EXPECT_EQ(code(Json::object()), "not_supported");
}

}  // namespace
}  // namespace kvmm
