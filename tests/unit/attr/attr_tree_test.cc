// SPDX-License-Identifier: Apache-2.0
//
// The attribute tree: listing, reading, refusing, providers, and groups that vanish under readers.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <map>
#include <mutex>
#include <semaphore>
#include <thread>

#include "runtime/base/attr.h"

namespace kvmm {
namespace {

constexpr std::array<const char*, 3> kAdvice = {"normal", "running", "idle"};

constexpr AttrDef kVersion = {.pattern = "version", .type = AttrType::kString, .help = "t"};
constexpr AttrDef kUsed = {.pattern = "tiers/<tier>/used", .type = AttrType::kBytes, .help = "t"};
constexpr AttrDef kLow = {.pattern = "tiers/<tier>/watermark_low",
                          .mode = AttrMode::kReadWrite,
                          .type = AttrType::kBytes,
                          .min = 4096,
                          .max = 1 << 20,
                          .help = "t"};
constexpr AttrDef kPoke = {
    .pattern = "tiers/<tier>/poke", .mode = AttrMode::kWriteOnly, .help = "t"};
constexpr AttrDef kTokens = {.pattern = "sessions/<id>/tokens", .unit = "tokens", .help = "t"};
constexpr AttrDef kMaps = {.pattern = "sessions/<id>/maps", .type = AttrType::kText, .help = "t"};
constexpr AttrDef kAdviceDef = {.pattern = "sessions/<id>/advice",
                                .mode = AttrMode::kReadWrite,
                                .type = AttrType::kEnum,
                                .choices = kAdvice,
                                .help = "t",
                                .config = AttrConfig::kNever};

class Sessions : public AttrProvider {
 public:
  void open(const std::string& id) {
    const std::lock_guard lock(mutex_);
    advice_[id] = 0;
  }
  void close(const std::string& id) {
    const std::lock_guard lock(mutex_);
    advice_.erase(id);
  }
  std::vector<std::string> entries() override {
    const std::lock_guard lock(mutex_);
    std::vector<std::string> all;
    for (const auto& [id, advice] : advice_) {
      all.push_back(id);
    }
    return all;
  }
  bool contains(std::string_view entry) override {
    const std::lock_guard lock(mutex_);
    return advice_.contains(std::string(entry));
  }
  Result<AttrValue> get(std::string_view entry, const AttrDef& def) override {
    const std::lock_guard lock(mutex_);
    const auto it = advice_.find(std::string(entry));
    if (it == advice_.end()) {
      return Errc::kNotFound;
    }
    if (&def == &kMaps) {
      return AttrValue::of("line 1\nline 2\n");
    }
    return AttrValue::of(&def == &kTokens ? uint64_t{17} : it->second);
  }
  Result<void> set(std::string_view entry, const AttrDef&, const AttrValue& value) override {
    const std::lock_guard lock(mutex_);
    const auto it = advice_.find(std::string(entry));
    if (it == advice_.end()) {
      return Errc::kNotFound;
    }
    it->second = value.number;
    return {};
  }

 private:
  std::mutex mutex_;
  std::map<std::string, uint64_t> advice_;  // guarded by mutex_
};

struct Fixture : ::testing::Test {
  AttrTree tree;
  std::atomic<uint64_t> used{65536};
  std::atomic<uint64_t> low{8192};
  int pokes = 0;
  Sessions sessions;
  AttrDir root, dram, session_dirs;

  void SetUp() override {
    root = *tree.add("", {attr_fixed(kVersion, AttrValue::of("0.1.0"))});
    dram = *tree.add("tiers/dram", {attr_counter(kUsed, used),
                                    attr_atomic(kLow, low),
                                    {&kPoke, {}, [this](const AttrValue&) -> Result<void> {
                                       ++pokes;
                                       return Error(Errc::kBusy, "poked too much");
                                     }}});
    session_dirs = *tree.add_provider("sessions", {&kTokens, &kMaps, &kAdviceDef}, sessions);
  }
  std::string names(std::string_view path) {
    const auto entries = tree.list(path);
    std::string all;
    if (!entries) {
      return errc_name(entries.code());
    }
    for (const AttrEntry& e : *entries) {
      all += e.name + (e.def == nullptr ? "/ " : " ");
    }
    return all;
  }
  std::string walked(std::string_view prefix, std::string_view after = "", bool texts = false,
                     int most = 1000) {
    std::string all;
    const Result<void> ok = tree.walk(prefix, after, texts, [&](const AttrItem& item) {
      all += item.path + "=" +
             (item.value ? format_value(*item.def, *item.value) : errc_name(item.value.code())) +
             " ";
      return --most > 0;
    });
    return ok ? all : errc_name(ok.code());
  }
};

TEST_F(Fixture, Lists) {
  EXPECT_EQ(names(""), "sessions/ tiers/ version ");
  EXPECT_EQ(names("tiers"), "dram/ ");
  EXPECT_EQ(names("tiers/dram"), "poke used watermark_low ");
  EXPECT_EQ(names("sessions"), "");
  sessions.open("10");
  sessions.open("2");
  EXPECT_EQ(names("sessions"), "2/ 10/ ");
  EXPECT_EQ(names("sessions/2"), "advice maps tokens ");
  EXPECT_EQ(names("sessions/3"), "not_found");
  EXPECT_EQ(names("version"), "invalid");
  EXPECT_EQ(names("sessions/2/advice"), "invalid");
}

TEST_F(Fixture, NeighboursWithACommonPrefixAreApart) {
  // '-' and '.' sort before '/': "tiers/dram-x" stands between "tiers/dram" and "tiers/dram/used".
  std::atomic<uint64_t> v{1};
  const AttrDir a = *tree.add("tiers/dram-x", {attr_counter(kUsed, v)});
  const AttrDir b = *tree.add("tiers/dram.y", {attr_counter(kUsed, v)});
  const AttrDir c = *tree.add("tiers/dram0", {attr_counter(kUsed, v)});
  EXPECT_EQ(names("tiers"), "dram/ dram-x/ dram.y/ dram0/ ");
  EXPECT_EQ(names("tiers/dram"), "poke used watermark_low ");
  EXPECT_EQ(names("tiers/dram-x"), "used ");
}

TEST_F(Fixture, GetsAndSets) {
  EXPECT_EQ(*tree.get("version"), "0.1.0");
  EXPECT_EQ(*tree.get("tiers/dram/used"), "64KiB");
  EXPECT_TRUE(tree.set("tiers/dram/watermark_low", "12K").ok());
  EXPECT_EQ(low.load(), 12288u);
  sessions.open("7");
  EXPECT_EQ(*tree.get("sessions/7/advice"), "normal");
  EXPECT_TRUE(tree.set("sessions/7/advice", "idle\n").ok());
  EXPECT_EQ(*tree.get("sessions/7/advice"), "idle");
  EXPECT_EQ(*tree.get("sessions/7/maps"), "line 1\nline 2\n");
}

TEST_F(Fixture, RefusedSetsKeepTheOldValue) {
  const auto refused = [&](const char* path, const char* text) {
    const Result<void> r = tree.set(path, text);
    EXPECT_EQ(low.load(), 8192u);
    return r.ok() ? Error(Errc::kExists, "accepted") : r.error();
  };
  Error e = refused("tiers/dram/watermark_low", "2M");
  EXPECT_EQ(e.code, Errc::kRange);
  EXPECT_EQ(e.detail, "tiers/dram/watermark_low: '2M' is outside 4KiB..1MiB");
  EXPECT_EQ(refused("tiers/dram/watermark_low", "8KB").code, Errc::kInvalid);
  e = refused("tiers/dram/watermark_lwo", "8K");
  EXPECT_EQ(e.code, Errc::kNotFound);
  EXPECT_NE(e.detail.find("did you mean 'tiers/dram/watermark_low'"), std::string::npos)
      << e.detail;
  e = refused("tires/dram/watermark_low", "8K");
  EXPECT_NE(e.detail.find("did you mean 'tiers'"), std::string::npos) << e.detail;
  EXPECT_EQ(refused("tiers/dram/used", "8K").code, Errc::kPermission);
  EXPECT_EQ(refused("tiers/dram", "8K").code, Errc::kNotFound);
  EXPECT_EQ(refused("", "8K").code, Errc::kNotFound);
  EXPECT_EQ(refused("version/x", "8K").code, Errc::kNotFound);
  EXPECT_EQ(pokes, 0);
  e = refused("tiers/dram/poke", "1");
  EXPECT_EQ(e.code, Errc::kBusy);
  EXPECT_EQ(e.detail, "tiers/dram/poke: poked too much");
  EXPECT_EQ(pokes, 1);
  EXPECT_EQ(tree.get("tiers/dram/poke").code(), Errc::kPermission);
}

TEST_F(Fixture, HostilePathsAreNotFound) {
  for (const std::string& path :
       {std::string("/"), std::string("/version"), std::string("version/"),
        std::string("tiers//used"), std::string("../version"), std::string("sessions/../version"),
        std::string("\0", 1), std::string("sessions//advice"), std::string(100000, '/'),
        std::string(100000, 'a')}) {
    EXPECT_EQ(tree.get(path).code(), Errc::kNotFound);
    EXPECT_FALSE(tree.list(path).ok());
    EXPECT_EQ(tree.set(path, "1").code(), Errc::kNotFound);
  }
}

TEST_F(Fixture, Walks) {
  sessions.open("2");
  sessions.open("10");
  EXPECT_EQ(walked(""),
            "sessions/2/advice=normal sessions/2/maps=again sessions/2/tokens=17 "
            "sessions/10/advice=normal sessions/10/maps=again sessions/10/tokens=17 "
            "tiers/dram/poke=permission tiers/dram/used=64KiB tiers/dram/watermark_low=8KiB "
            "version=0.1.0 ");
  EXPECT_EQ(walked("version"), "version=0.1.0 ");
  EXPECT_EQ(walked("version", "version"), "");
  EXPECT_EQ(walked("sessions/2", "", true),
            "sessions/2/advice=normal sessions/2/maps=line 1\nline 2\n sessions/2/tokens=17 ");
  EXPECT_EQ(walked("sessionz"), "not_found");
  // Cut after every item and resumed: the same as in one go, also if the last item has vanished.
  std::string pieces;
  std::string after;
  while (true) {
    const std::string one = walked("", after, false, 1);
    if (one.empty()) {
      break;
    }
    pieces += one;
    after = one.substr(0, one.find('='));
  }
  EXPECT_EQ(pieces, walked(""));
  sessions.close("2");
  EXPECT_EQ(walked("", "sessions/2/maps", false, 1), "sessions/10/advice=normal ");
}

TEST_F(Fixture, AddsAllOrNothing) {
  std::atomic<uint64_t> v{1};
  EXPECT_EQ(tree.add("tiers/nvme", {attr_counter(kUsed, v), attr_counter(kUsed, v)}).code(),
            Errc::kExists);
  EXPECT_EQ(tree.add("tiers/dram", {attr_counter(kUsed, v)}).code(), Errc::kExists);
  EXPECT_EQ(tree.add("swap/a", {attr_counter(kUsed, v)}).code(), Errc::kInvalid);
  EXPECT_EQ(tree.add("tiers/a b", {attr_counter(kUsed, v)}).code(), Errc::kInvalid);
  EXPECT_EQ(tree.add("tiers/", {attr_counter(kUsed, v)}).code(), Errc::kInvalid);
  EXPECT_EQ(tree.add("tiers/x", {{&kUsed}}).code(), Errc::kInvalid);
  EXPECT_EQ(
      tree.add("tiers/x", {{&kLow, [] { return Result<AttrValue>(AttrValue::of(1)); }}}).code(),
      Errc::kInvalid);
  EXPECT_EQ(tree.add_provider("sessions", {&kTokens}, sessions).code(), Errc::kExists);
  EXPECT_EQ(tree.add_provider("arenas", {&kTokens}, sessions).code(), Errc::kInvalid);
  EXPECT_EQ(names("tiers"), "dram/ ");
  static constexpr AttrDef kAgain = {.pattern = "version", .help = "another"};
  const std::array<const AttrDef*, 1> again = {&kAgain};
  EXPECT_EQ(tree.declare(again).code(), Errc::kExists);
}

TEST_F(Fixture, DirectoriesLiveAsLongAsAGroup) {
  std::atomic<uint64_t> v{1};
  AttrDir more = *tree.add("tiers/nvme", {attr_counter(kUsed, v)});
  AttrDir same = *tree.add("tiers/nvme", {attr_atomic(kLow, v)});
  EXPECT_EQ(names("tiers/nvme"), "used watermark_low ");
  more.remove();
  more.remove();
  EXPECT_EQ(names("tiers/nvme"), "watermark_low ");
  same = AttrDir();
  EXPECT_EQ(names("tiers/nvme"), "not_found");
  EXPECT_EQ(names("tiers"), "dram/ ");
  session_dirs.remove();
  EXPECT_EQ(names(""), "tiers/ version ");
  EXPECT_EQ(tree.defs().size(), 7u);  // what was declared stays known
}

TEST(AttrTree, GroupsMayOutliveTheTree) {
  std::atomic<uint64_t> v{1};
  AttrDir dir;
  {
    AttrTree tree;
    dir = *tree.add("tiers/x", {attr_counter(kUsed, v)});
  }
  EXPECT_TRUE(dir.retire());
  dir.remove();
}

TEST(AttrTree, RemoveWaitsForTheReader) {
  AttrTree tree;
  std::binary_semaphore inside{0}, go_on{0};
  std::atomic<bool> removed{false}, removed_early{false};
  AttrDir dir = *tree.add("tiers/x", {{&kUsed, [&]() -> Result<AttrValue> {
                                         inside.release();
                                         go_on.acquire();
                                         removed_early = removed.load();
                                         return AttrValue::of(5);
                                       }}});
  std::thread reader([&] { EXPECT_EQ(tree.read("tiers/x/used")->number, 5u); });
  inside.acquire();
  EXPECT_FALSE(dir.retire());  // out of the tree, a callback still runs
  EXPECT_EQ(tree.read("tiers/x/used").code(), Errc::kNotFound);
  std::thread remover([&] {
    dir.remove();
    removed = true;
  });
  go_on.release();
  reader.join();
  remover.join();
  EXPECT_TRUE(removed);
  EXPECT_FALSE(removed_early);
}

TEST(AttrTreeDeathTest, RemovingFromOnesOwnCallbackStops) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  AttrTree tree;
  AttrDir dir;
  dir = *tree.add("tiers/x", {{&kUsed, [&]() -> Result<AttrValue> {
                                 dir.remove();
                                 return AttrValue::of(1);
                               }}});
  EXPECT_DEATH((void)tree.read("tiers/x/used"), "own callback");
}

TEST(AttrTree, GroupsComeAndGoUnderReaders) {
  AttrTree tree;
  constexpr int kRounds = 2000;
  std::atomic<bool> done{false};
  std::atomic<uint64_t> seen{0};
  // Each group's state dies right after remove(): a late callback would read freed memory.
  struct State {
    std::atomic<uint64_t> magic{0x600d};
    ~State() { magic = 0xdead; }
  };
  const auto churn = [&](const std::string& name) {
    for (int i = 0; i < kRounds; ++i) {
      auto state = std::make_unique<State>();
      AttrDir dir = *tree.add("tiers/" + name, {attr_counter(kUsed, state->magic)});
      if (i % 2 == 0) {
        EXPECT_EQ(tree.read("tiers/" + name + "/used")->number, 0x600du);
      }
      dir.remove();
      state.reset();
    }
  };
  std::thread reader([&] {
    while (!done) {
      (void)tree.walk("", "", true, [&](const AttrItem& item) {
        EXPECT_EQ(item.value->number, 0x600du) << item.path;
        ++seen;
        return true;
      });
      const Result<AttrValue> v = tree.read("tiers/a/used");
      EXPECT_TRUE(v ? v->number == 0x600d : v.code() == Errc::kNotFound);
    }
  });
  std::thread a([&] { churn("a"); });
  std::thread b([&] { churn("b"); });
  a.join();
  b.join();
  done = true;
  reader.join();
  EXPECT_TRUE(tree.list("")->empty());
  RecordProperty("seen", static_cast<int>(seen.load()));
}

}  // namespace
}  // namespace kvmm
