// SPDX-License-Identifier: Apache-2.0
//
// kvbench from outside: what it prints, what it refuses, and that it leaves nothing behind.
#include "tests/kvbench/kvbench_run.h"

namespace kvmm::bench {
namespace {

TEST_F(KvbenchTest, ListNamesEveryBenchmarkAndFigure) {
  const Outcome text = run("--list");
  const Outcome json = run("--list --json");
  ASSERT_EQ(text.status, kExitOk) << text.err;
  ASSERT_EQ(json.status, kExitOk) << json.err;
  std::set<std::string> listed;
  for (const Json& b : Json::parse(json.out)) {
    for (const Json& f : b.at("figures")) {
      EXPECT_TRUE(listed.insert(f.at("figure")).second) << f;
    }
  }
  size_t figures = 0;
  ASSERT_FALSE(benchmarks().empty());
  for (const Benchmark& b : benchmarks()) {
    EXPECT_NE(text.out.find(b.name), std::string::npos);
    for (const FigureDef& f : b.figures) {
      EXPECT_NE(text.out.find(f.name), std::string::npos);
      EXPECT_EQ(listed.count(f.name), 1u) << f.name;
      ++figures;
    }
  }
  EXPECT_EQ(listed.size(), figures);
}

TEST_F(KvbenchTest, HelpHasExamples) {
  const Outcome help = run("--help");
  EXPECT_EQ(help.status, kExitOk);
  EXPECT_NE(help.out.find("kvbench swapin --dir"), std::string::npos) << help.out;
}

TEST_F(KvbenchTest, WrongCommandLines) {
  for (const char* arguments :
       {"", "nosuch", "fault --nosuch", "fault swapin", "fault --list",
        "fault --figure swapin.2m.ratio", "fault --set nosuch", "fault --set =1"}) {
    const Outcome o = run(arguments);
    EXPECT_EQ(o.status, kExitUsage) << arguments;
    EXPECT_EQ(o.out, "") << arguments;
    EXPECT_EQ(o.err.rfind("kvbench: ", 0), 0u) << o.err;
  }
  EXPECT_NE(run("nosuch").err.find("'nosuch'"), std::string::npos);
}

TEST_F(KvbenchTest, DirectoriesThatCannotBeUsed) {
  // /proc can be written by nobody, root included.
  for (const std::string& bad : {files.file("absent"), std::string("/proc")}) {
    for (const char* name : {"fault", "swapin", "engine"}) {
      const Outcome o = run(std::string(name) + " --quick --dir " + bad);
      EXPECT_EQ(o.status, kExitFailed) << o.err;
      EXPECT_EQ(o.out, "");
      EXPECT_NE(o.err.find(bad), std::string::npos) << o.err;
      EXPECT_NE(o.err.find("--dir"), std::string::npos) << o.err;
    }
  }
}

TEST_F(KvbenchTest, QuickFaultGivesEveryFigure) {
  const Outcome o = run("fault --quick --json --dir " + files.path());
  if (o.status == kExitImpossible) {
    GTEST_SKIP() << o.err;
  }
  expect_figures(o, figures_of("fault"));
  EXPECT_TRUE(nothing_left());
}

TEST_F(KvbenchTest, QuickSwapinGivesEveryFigure) {
  const Outcome o = run("swapin --quick --json --dir " + files.path());
  if (o.status == kExitImpossible || o.err.find("is memory") != std::string::npos) {
    GTEST_SKIP() << o.err;
  }
  expect_figures(o, figures_of("swapin"));
  EXPECT_TRUE(nothing_left());
}

TEST_F(KvbenchTest, OneFigureWithAnotherTuning) {
  const Outcome o =
      run("swapin --quick --json --figure swapin.64k.ratio --set sched/io_chunk=64K --dir " +
          files.path());
  if (o.status == kExitImpossible || o.err.find("is memory") != std::string::npos) {
    GTEST_SKIP() << o.err;
  }
  expect_figures(o, {figures_of("swapin")[3]});
  const std::string method = Json::parse(o.out)[0]["method"];
  EXPECT_NE(method.find("sched/io_chunk=64K"), std::string::npos) << method;
}

TEST_F(KvbenchTest, AttributesThatCannotBeSet) {
  for (const char* setting : {"sched/nosuch=1", "sched/io_chunk=3", "swap/nosuch/size=1"}) {
    const Outcome o = run("fault --quick --set " + std::string(setting) + " --dir " + files.path());
    if (o.status == kExitImpossible) {
      GTEST_SKIP() << o.err;
    }
    EXPECT_EQ(o.status, kExitFailed) << o.err;
    EXPECT_EQ(o.out, "");
    EXPECT_NE(o.err.find(std::string(setting).substr(0, std::string(setting).find('='))),
              std::string::npos)
        << o.err;
    EXPECT_TRUE(nothing_left());
  }
}

TEST_F(KvbenchTest, CtrlCLeavesNoFiles) {
  Running fault({"fault", "--dir", files.path()});
  const bool went_on = fault.says("faults");  // said before the first file is made
  const int status = fault.end_by(SIGINT);
  if (WIFEXITED(status) && WEXITSTATUS(status) == kExitImpossible) {
    GTEST_SKIP() << "kvmm cannot run here";
  }
  EXPECT_TRUE(went_on) << fault.said();
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT) << status;
  EXPECT_TRUE(nothing_left());
}

}  // namespace
}  // namespace kvmm::bench
