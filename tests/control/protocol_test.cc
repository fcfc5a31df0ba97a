// SPDX-License-Identifier: Apache-2.0
//
// The protocol without a socket: every reply is one valid line, whatever comes in.
#include "runtime/control/protocol.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

#include "tests/control/fake_runtime.h"

namespace kvmm {
namespace {

using Json = nlohmann::json;

struct ProtocolTest : ::testing::Test {
  test::FakeRuntime runtime;
  ControlContext context{.tree = &runtime.tree(),
                         .actions = runtime.actions(),
                         .name = "fake",
                         .version = "0.1.0",
                         .pid = 42};

  Json ask(const std::string& line) {
    const Result<ControlRequest> request = parse_request(line);
    const std::string reply =
        request ? answer_request(context, *request) : error_reply(request.error());
    EXPECT_EQ(reply.find('\n'), reply.size() - 1);
    EXPECT_TRUE(reply.starts_with("{\"kvmm\":1,\"ok\":")) << reply;
    Json json = Json::parse(reply, nullptr, false);
    EXPECT_FALSE(json.is_discarded()) << reply;
    return json;
  }
  std::string code(const std::string& line) {
    const Json reply = ask(line);
    return reply["ok"] == true ? "ok" : reply["error"]["code"].get<std::string>();
  }
};

TEST_F(ProtocolTest, SaysHello) {
  for (const char* op : {"hello", "info"}) {
    const Json r = ask(std::string(R"({"kvmm":1,"op":")") + op + "\"}");
    EXPECT_EQ(r["pid"], 42);
    EXPECT_EQ(r["name"], "fake");
    EXPECT_EQ(r["version"], "0.1.0");
    EXPECT_EQ(r["actions"], Json({"swapoff", "swapon"}));
  }
}

TEST_F(ProtocolTest, GetsSetsAndLists) {
  Json r = ask(R"({"kvmm":1,"op":"get","path":"tiers/dram/used"})");
  EXPECT_EQ(r["value"], "192MiB");
  EXPECT_EQ(r["number"], 192 << 20);
  EXPECT_EQ(code(R"({"kvmm":1,"op":"set","path":"tiers/dram/watermark_low","value":"8M"})"), "ok");
  EXPECT_EQ(runtime.watermark_low(), 8u << 20);
  r = ask(R"({"kvmm":1,"op":"ls","path":"sessions"})");
  EXPECT_EQ(r["entries"].size(), 2u);
  EXPECT_EQ(r["entries"][1]["name"], "12");
  EXPECT_EQ(r["entries"][1]["dir"], true);
  r = ask(R"({"kvmm":1,"op":"walk","path":"tiers"})");
  EXPECT_EQ(r["items"].size(), 6u);
  EXPECT_FALSE(r.contains("next"));
  r = ask(R"({"kvmm":1,"op":"call","name":"swapon","args":{"path":"/x","priority":3}})");
  EXPECT_EQ(r["value"], "swap1");
  EXPECT_EQ(runtime.last_action(), "swapon path=/x priority=3");
}

TEST_F(ProtocolTest, WalkKeepsTextsForGet) {
  const Json r = ask(R"({"kvmm":1,"op":"walk","path":"sessions/1"})");
  bool seen = false;
  for (const Json& item : r["items"]) {
    if (item["path"] == "sessions/1/maps") {
      seen = true;
      EXPECT_FALSE(item.contains("value"));
      EXPECT_FALSE(item.contains("error"));
    }
  }
  EXPECT_TRUE(seen);
}

TEST_F(ProtocolTest, StatSaysWhatStandsThere) {
  for (const char* directory : {"", "tiers", "tiers/dram", "sessions/12"}) {
    const Json r = ask(Json{{"kvmm", 1}, {"op", "stat"}, {"path", directory}}.dump());
    EXPECT_EQ(r["dir"], true) << directory;
    EXPECT_FALSE(r.contains("mode")) << directory;
  }
  const Json r = ask(R"({"kvmm":1,"op":"stat","path":"sessions/12/advice"})");
  EXPECT_EQ(r["dir"], false);
  EXPECT_EQ(r["pattern"], "sessions/<id>/advice");
  EXPECT_EQ(r["mode"], "rw");
  EXPECT_EQ(r["type"], "enum");
  EXPECT_EQ(r["range"], "normal|running|idle|evict|durable");
  EXPECT_EQ(r["configurable"], false);
  for (const char* missing : {"tiers/hbm", "sessions/13", "sessions/12/advise", "/", "version/x"}) {
    EXPECT_EQ(code(Json{{"kvmm", 1}, {"op", "stat"}, {"path", missing}}.dump()), "not_found")
        << missing;
  }
}

TEST_F(ProtocolTest, ACheckedSetSetsNothing) {
  const auto check = [this](const char* path, const char* value) {
    return code(
        Json{{"kvmm", 1}, {"op", "set"}, {"path", path}, {"value", value}, {"check", true}}.dump());
  };
  EXPECT_EQ(check("tiers/dram/watermark_low", "8M"), "ok");
  EXPECT_EQ(check("sessions/1/advice", "idle"), "ok");
  EXPECT_EQ(check("tiers/dram/watermark_low", "8T"), "range");
  EXPECT_EQ(check("tiers/dram/watermark_low", "much"), "invalid");
  EXPECT_EQ(check("tiers/dram/watermark_lo", "8M"), "not_found");
  EXPECT_EQ(check("version", "2"), "permission");
  EXPECT_EQ(runtime.watermark_low(), 16u << 20);
  EXPECT_EQ(*runtime.tree().get("sessions/1/advice"), "running");
}

TEST_F(ProtocolTest, RefusalsAreTyped) {
  const struct {
    const char* line;
    const char* code;
  } kCases[] = {
      {"", "invalid"},
      {"x", "invalid"},
      {"[]", "invalid"},
      {"{", "invalid"},
      {"{}", "invalid"},
      {R"({"op":"hello"})", "invalid"},
      {R"({"kvmm":"1","op":"hello"})", "invalid"},
      {R"({"kvmm":2,"op":"new"})", "version"},
      {R"({"kvmm":1})", "invalid"},
      {R"({"kvmm":1,"op":7})", "invalid"},
      {R"({"kvmm":1,"op":"fly"})", "not_supported"},
      {R"({"kvmm":1,"op":"get"})", "invalid"},
      {R"({"kvmm":1,"op":"get","path":5})", "invalid"},
      {R"({"kvmm":1,"op":"get","path":"tiers/dram/usd"})", "not_found"},
      {R"({"kvmm":1,"op":"get","path":"version","offset":-1})", "invalid"},
      {R"({"kvmm":1,"op":"get","path":"version","offset":100})", "range"},
      {R"({"kvmm":1,"op":"set","path":"version"})", "invalid"},
      {R"({"kvmm":1,"op":"set","path":"version","value":"2"})", "permission"},
      {R"({"kvmm":1,"op":"set","path":"tiers/dram/watermark_low","value":7})", "invalid"},
      {R"({"kvmm":1,"op":"set","path":"tiers/dram/watermark_low","value":"7KB"})", "invalid"},
      {R"({"kvmm":1,"op":"set","path":"tiers/dram/watermark_low","value":"7"})", "range"},
      {R"({"kvmm":1,"op":"set","path":"version","value":"2","check":1})", "invalid"},
      {R"({"kvmm":1,"op":"ls","path":"nothing"})", "not_found"},
      {R"({"kvmm":1,"op":"walk","path":"nothing"})", "not_found"},
      {R"({"kvmm":1,"op":"call"})", "invalid"},
      {R"({"kvmm":1,"op":"call","name":"reboot"})", "not_found"},
      {R"({"kvmm":1,"op":"call","name":"swapon","args":[]})", "invalid"},
      {R"({"kvmm":1,"op":"call","name":"swapon","args":{"path":null}})", "invalid"},
      {R"({"kvmm":1,"op":"call","name":"swapoff","args":{"path":"/full"}})", "no_space"},
      {"{\"kvmm\":1,\"op\":\"get\",\"path\":\"\xff\xfe\"}", "invalid"},
      {R"({"kvmm":1e400,"op":"hello"})", "invalid"},
      {R"({"kvmm":99999999999999999999,"op":"hello"})", "invalid"},
  };
  for (const auto& c : kCases) {
    EXPECT_EQ(code(c.line), c.code) << c.line;
  }
}

TEST_F(ProtocolTest, DeepAndWideJsonIsNoTrouble) {
  EXPECT_EQ(code(std::string(60000, '[')), "invalid");
  EXPECT_EQ(code(std::string(30000, '[') + std::string(30000, ']')), "invalid");
  std::string deep = R"({"kvmm":1,"op":"hello","x":)";
  deep += std::string(30000, '[') + std::string(30000, ']') + "}";
  EXPECT_EQ(code(deep), "ok");
  std::string wide = R"({"kvmm":1,"op":"hello")";
  for (int i = 0; i < 8000; ++i) {
    wide += ",\"" + std::to_string(i) + "\":0";
  }
  EXPECT_EQ(code(wide + "}"), "ok");
}

TEST_F(ProtocolTest, AnyBytesGetAValidReply) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  const std::vector<std::string> good = {
      R"({"kvmm":1,"op":"get","path":"tiers/dram/used"})",
      R"({"kvmm":1,"op":"set","path":"sched/readahead_max","value":"64K"})",
      R"({"kvmm":1,"op":"walk","path":"","after":"sessions/1/maps"})",
      R"({"kvmm":1,"op":"call","name":"swapon","args":{"path":"/x"}})"};
  for (int i = 0; i < 20000; ++i) {
    std::string line = good[random() % good.size()];
    for (uint64_t n = 1 + random() % 4; n-- > 0;) {
      const size_t at = random() % line.size();
      switch (random() % 3) {
        case 0:
          line[at] = static_cast<char>(random());
          break;
        case 1:
          line.erase(at, random() % 8);
          break;
        default:
          line.insert(at, 1, "\"{}[]:,\\/0e-"[random() % 12]);
      }
      if (line.empty()) {
        line = "x";
      }
    }
    ask(line);  // holds every reply against the invariants
  }
}

TEST_F(ProtocolTest, LargeListsAndTextsComeInPieces) {
  for (int i = 100; i < 9000; ++i) {
    runtime.open_session(std::to_string(i), "s");
  }
  size_t names = 0;
  size_t replies = 0;
  std::string after;
  while (true) {
    const Json r =
        ask(Json{{"kvmm", 1}, {"op", "ls"}, {"path", "sessions"}, {"after", after}}.dump());
    names += r["entries"].size();
    ++replies;
    if (!r.contains("next")) {
      break;
    }
    after = r["next"];
  }
  EXPECT_EQ(names, 8902u);
  EXPECT_GT(replies, 1u);

  size_t items = 0;
  after.clear();
  while (true) {
    const Json r =
        ask(Json{{"kvmm", 1}, {"op", "walk"}, {"path", "sessions"}, {"after", after}}.dump());
    EXPECT_LT(r.dump().size(), 2 * kControlReplyBytes);
    items += r["items"].size();
    if (!r.contains("next")) {
      break;
    }
    after = r["next"];
  }
  EXPECT_EQ(items, 97922u);

  std::string map = "plane k page_size=4096 pages=1000000\n";
  for (int i = 0; i < 1000000 / 64; ++i) {
    map += std::string(64, "RrS."[i % 4]) + "\n";
  }
  runtime.set_pagemap(map);
  std::string read;
  while (true) {
    const Json r = ask(
        Json{{"kvmm", 1}, {"op", "get"}, {"path", "sessions/1/pagemap"}, {"offset", read.size()}}
            .dump());
    read += r["value"].get<std::string>();
    if (!r.contains("next")) {
      break;
    }
    EXPECT_EQ(r["next"], read.size());
    EXPECT_EQ(read.back(), '\n');
  }
  EXPECT_EQ(read, map);
}

TEST_F(ProtocolTest, DefinitionsCarryWhatTheDocumentsNeed) {
  const Json r = ask(R"({"kvmm":1,"op":"defs"})");
  const auto it = std::find_if(r["defs"].begin(), r["defs"].end(), [](const Json& d) {
    return d["pattern"] == "tiers/<tier>/watermark_low";
  });
  ASSERT_NE(it, r["defs"].end());
  EXPECT_EQ((*it)["mode"], "rw");
  EXPECT_EQ((*it)["type"], "bytes");
  EXPECT_EQ((*it)["range"], "4MiB..256MiB");
  EXPECT_EQ((*it)["default"], "16MiB");
  EXPECT_EQ((*it)["configurable"], true);
}

TEST_F(ProtocolTest, NamesThatAreNoUtf8AreReplaced) {
  runtime.open_session("5", "\xff\xfe");
  const Json r = ask(R"({"kvmm":1,"op":"get","path":"sessions/5/name"})");
  EXPECT_EQ(r["value"], "\xef\xbf\xbd\xef\xbf\xbd");
}

}  // namespace
}  // namespace kvmm
