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
        "fault --figure swapin.2m.ratio", "fault --set nosuch", "fault --set =1",
        "all --figure swapin.2m.ratio", "fault --install"}) {
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
    for (const char* name :
         {"fault", "swapin", "session", "engine", "control", "metadata", "peers"}) {
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

TEST_F(KvbenchTest, QuickSessionGivesEveryFigureAndTakesItsSwapAway) {
  const std::string swaps = read("/proc/swaps");
  const Outcome o = run("session --quick --json --dir " + files.path());
  if (o.status == kExitImpossible || o.err.find("is memory") != std::string::npos) {
    GTEST_SKIP() << o.err;
  }
  expect_figures(o, figures_of("session"));
  expect_none_negative(o);
  EXPECT_TRUE(nothing_left());
  EXPECT_EQ(read("/proc/swaps").find(files.path()), std::string::npos) << read("/proc/swaps");
  if (geteuid() == 0) {
    EXPECT_EQ(o.out.find("absent"), std::string::npos) << o.out;
  }
}

TEST_F(KvbenchTest, WithoutRootLinuxSwapIsAbsentAndTheRestIsTaken) {
  // Nobody may swapon: what is left of root cannot administer.
  const Outcome o = run("session --quick --json --dir " + files.path(),
                        "setpriv --bounding-set -sys_admin --inh-caps -sys_admin");
  if (o.status == kExitImpossible || o.err.find("is memory") != std::string::npos ||
      o.err.find("setpriv") != std::string::npos) {
    GTEST_SKIP() << o.err;
  }
  expect_figures(o, figures_of("session"));
  const Json all = Json::parse(o.out);
  EXPECT_NE(all[0].value("absent", std::string()).find("root"), std::string::npos) << all[0];
  EXPECT_TRUE(all[1].contains("absent"));
  EXPECT_FALSE(all[2].contains("absent"));
  EXPECT_TRUE(nothing_left());
}

TEST_F(KvbenchTest, HoweverSessionEndsItsSwapGoes) {
  for (const int signal : {SIGINT, SIGKILL}) {
    Running session({"session", "--dir", files.path()});
    if (!session.says("it comes back")) {
      session.end_by(SIGKILL);
      GTEST_SKIP() << session.said();
    }
    const std::vector<int> children = session.children();
    EXPECT_EQ(children.empty(), geteuid() != 0) << "who keeps the swap file";
    const int status = session.end_by(signal);
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == signal) << status;
    expect_ended(children);
    EXPECT_EQ(read("/proc/swaps").find(files.path()), std::string::npos) << read("/proc/swaps");
    EXPECT_TRUE(nothing_left());
  }
}

TEST_F(KvbenchTest, QuickControlGivesEveryFigureAndNoLocks) {
  const Outcome o = run("control --quick --json --dir " + files.path());
  if (o.status == kExitImpossible) {
    GTEST_SKIP() << o.err;
  }
  expect_figures(o, figures_of("control"));
  expect_none_negative(o);
  EXPECT_EQ(Json::parse(o.out)[1]["value"], 0) << "readers take locks of the fault path";
}

TEST_F(KvbenchTest, QuickMetadataGivesEveryFigure) {
  const Outcome o = run("metadata --quick --json --dir " + files.path());
  if (o.status == kExitImpossible) {
    GTEST_SKIP() << o.err;
  }
  expect_figures(o, figures_of("metadata"));
  for (const Json& f : Json::parse(o.out)) {
    EXPECT_GT(f["value"], 0) << f;
    EXPECT_LT(f["value"], 1) << f;
  }
  EXPECT_TRUE(nothing_left());
}

TEST_F(KvbenchTest, PeersThatAreAbsentAreSaidToBeWithTheLineThatInstallsThem) {
  const Outcome o = run("peers --quick --json --dir " + files.path());
  if (o.status == kExitImpossible || o.err.find("is memory") != std::string::npos) {
    GTEST_SKIP() << o.err;
  }
  expect_figures(o, figures_of("peers"));
  for (const Json& f : Json::parse(o.out)) {
    EXPECT_NE(
        f.value("absent", std::string()).find("kvbench peers --install --dir " + files.path()),
        std::string::npos)
        << f;
  }
  EXPECT_TRUE(nothing_left());
}

// A peer that answers what the scripts do, in place of the environments.
TEST_F(KvbenchTest, PeersThatAreThereAreComparedAndThoseInMemoryAreNot) {
  for (const char* environment : {"torch", "nixl", "mooncake"}) {
    std::filesystem::create_directories(files.file(environment) + std::string("/bin"));
    const std::string python = files.file(environment) + "/bin/python";
    const std::string tier = environment == std::string("mooncake") ? "memory" : "disk";
    std::ofstream(python) << "#!/bin/sh\necho '{\"ready\": true, \"version\": \"v 1\", \"tier\": \""
                          << tier << "\"}'\nwhile read line; do echo '{\"seconds\": "
                          << (tier == "memory" ? "0.000001" : "1") << "}'; done\n";
    std::filesystem::permissions(python, std::filesystem::perms::owner_all);
  }
  const Outcome o = run("peers --quick --json --dir " + files.path());
  if (o.status == kExitImpossible || o.err.find("is memory") != std::string::npos) {
    GTEST_SKIP() << o.err;
  }
  expect_figures(o, figures_of("peers"));
  const Json all = Json::parse(o.out);
  EXPECT_EQ(o.out.find("absent"), std::string::npos) << o.out;
  EXPECT_GT(all[0]["value"], 1) << "a second a round is the best of those on disks";
  EXPECT_LT(all[4]["value"], 1) << "the one in memory is listed";
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
