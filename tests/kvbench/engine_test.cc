// SPDX-License-Identifier: Apache-2.0
//
// kvbench engine: with the real engine where it is in the cache, and what it says where it is not.
#include "tests/kvbench/kvbench_run.h"

namespace kvmm::bench {
namespace {

using KvbenchEngineTest = KvbenchTest;

TEST_F(KvbenchEngineTest, WithoutTheEngineItSaysHowToGetItAndGetsNothing) {
  const std::string cache = files.file("cache");
  const Outcome o = run("engine --quick --json --dir " + files.path(), "XDG_CACHE_HOME=" + cache);
  EXPECT_EQ(o.status, kExitImpossible);
  EXPECT_EQ(o.out, "");
  EXPECT_NE(o.err.find(cache), std::string::npos) << o.err;
  EXPECT_NE(o.err.find("fetch.py"), std::string::npos) << o.err;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(cache)) {
    EXPECT_TRUE(entry.is_directory() || entry.file_size() == 0) << entry.path();
  }
}

TEST_F(KvbenchEngineTest, QuickGivesEveryFigure) {
  const Outcome o = run("engine --quick --json --dir " + files.path());
  if (o.status == kExitImpossible || o.err.find("is memory") != std::string::npos) {
    GTEST_SKIP() << o.err;
  }
  expect_figures(o, figures_of("engine"));
  EXPECT_TRUE(nothing_left());
}

TEST_F(KvbenchEngineTest, CtrlCEndsTheEngineAndLeavesNoFiles) {
  Running engine({"engine", "--quick", "--dir", files.path()});
  if (!engine.says("the same chat on the stock engine")) {
    int status = engine.end_by(SIGKILL);
    ASSERT_TRUE(WIFEXITED(status)) << engine.said();
    ASSERT_EQ(WEXITSTATUS(status), kExitImpossible) << engine.said();
    GTEST_SKIP() << engine.said();
  }
  // The engine on kvmm runs; the stock one is about to.
  const std::vector<int> engines = engine.children();
  EXPECT_FALSE(engines.empty());
  const int status = engine.end_by(SIGINT);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT) << status;
  expect_ended(engines);
  EXPECT_TRUE(nothing_left());
}

}  // namespace
}  // namespace kvmm::bench
