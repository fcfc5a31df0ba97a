// SPDX-License-Identifier: Apache-2.0
//
// kvctl from outside: the real binary against a real socket. What it prints is held against files
// in golden/ (pid, socket and directory replaced); set KVMM_WRITE_GOLDEN=1 to write them anew, and
// read the difference.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "runtime/control/config.h"
#include "runtime/control/endpoint.h"
#include "runtime/control/server.h"
#include "tests/control/fake_runtime.h"
#include "tests/control/kvctl_fixture.h"
#include "tests/control/temp_dir.h"

namespace kvmm {
namespace {

using Json = nlohmann::json;
using test::FakeRuntime;
using test::KvctlTest;
using test::Outcome;
using test::TempDir;

TEST_F(KvctlTest, PrintsWhatItPrinted) {
  start("fake");
  for (const char* command : {"ls",
                              "ls sessions/1",
                              "ls -l tiers/dram",
                              "get tiers/dram/used",
                              "get vmstat",
                              "get -r",
                              "get -r tiers sched/",
                              "maps",
                              "maps 12",
                              "smaps 1",
                              "smaps --rollup",
                              "--json smaps 12",
                              "pagemap 1",
                              "pagemap 1 --width 20 --all",
                              "pagemap 1 --color always",
                              "pagemap 1 --plane v",
                              "pagemap 1 --width 20",
                              "tiers",
                              "swap",
                              "topo",
                              "top --once",
                              "--json tiers",
                              "--json get -r tiers",
                              "--json ls sessions",
                              "--json maps 1",
                              "--json pagemap 1",
                              "--json get uptime"}) {
    std::string name = command;
    for (char& c : name) {
      c = c == ' ' || c == '/' ? '_' : c;
    }
    expect_golden(name + ".txt", command);
  }
}

TEST_F(KvctlTest, TopoDrawsNodesByRank) {
  runtime.add_nodes();
  start("fake");
  expect_golden("topo_of_two_nodes.txt", "topo");
  const Json json = good_json("topo");
  EXPECT_EQ(json["nodes"], Json::array({0, 1}));
  EXPECT_EQ(json["tiers"][3]["name"], "cxl") << "the slowest last";
  EXPECT_EQ(json["tiers"][3]["distance"]["1"], 35);
  EXPECT_EQ(json["tiers"][1]["demote_to"], Json::array({"dram1", "cxl", "swap"}));
  EXPECT_EQ(json["tiers"][2]["demoted"], 10);
  EXPECT_EQ(json["swap"][0]["path"], "/var/lib/kvmm/swap");
}

TEST_F(KvctlTest, EveryCommandPrintsJson) {
  start("fake");
  EXPECT_EQ(good_json("ps")[0]["pid"], getpid());
  EXPECT_EQ(good_json("ps")[0]["memory_bytes"], 192 << 20);
  EXPECT_EQ(good_json("top --once")["sessions"].size(), 2u);
  EXPECT_TRUE(good_json("top --once")["per_second"].is_null());
  EXPECT_EQ(good_json("ls")[0]["name"], "arenas");
  EXPECT_EQ(good_json("get tiers/dram/used")["number"], 192 << 20);
  EXPECT_EQ(good_json("get tiers/dram/used version").size(), 2u);
  EXPECT_EQ(good_json("get -r sessions/12")[4]["value"], "chat \x1b[31mred");
  EXPECT_EQ(good_json("set sched/readahead_max 1M")["ok"], true);
  EXPECT_EQ(good_json("maps 1")[0]["vmas"][0]["start"], 0x7f0000000000);
  EXPECT_EQ(good_json("pagemap 1")[0]["planes"][0]["swapped"], 2);
  EXPECT_EQ(good_json("tiers")["swap"][0]["errors"], 0);
  EXPECT_EQ(good_json("swapon /x")["path"], "/x");
  EXPECT_EQ(good_json("swapoff /x")["ok"], true);
  const Outcome o = run("--json get nothing");
  EXPECT_EQ(o.status, 1);
  EXPECT_EQ(Json::parse(o.out)["error"]["code"], "not_found");
  EXPECT_EQ(Json::parse(run("--json nonsense").out, nullptr, false)["error"]["code"], "usage");
}

TEST_F(KvctlTest, SetsAndSaysWhyNot) {
  start("fake");
  EXPECT_EQ(good("set tiers/dram/watermark_low 8M"), "");
  EXPECT_EQ(runtime.watermark_low(), 8u << 20);
  const Outcome o = run("set tiers/dram/watermark_low 8T");
  EXPECT_EQ(o.status, 1);
  EXPECT_EQ(o.out, "");
  EXPECT_EQ(o.err, "kvctl: range: tiers/dram/watermark_low: '8T' is outside 4MiB..256MiB\n");
  EXPECT_EQ(run("set tiers/dram/watermark_lo 8M").status, 1);
  EXPECT_EQ(run("set version 2").status, 1);
  EXPECT_EQ(run("get sessions/99/maps").status, 1);
  EXPECT_EQ(run("maps 99").status, 1);
  EXPECT_EQ(run("pagemap 1 --plane none").status, 1);
  EXPECT_EQ(runtime.watermark_low(), 8u << 20);
}

TEST_F(KvctlTest, WhatGetPrintsAConfigDirectoryTakes) {
  start("fake");
  good("set tiers/dram/watermark_low 8M");
  good("set sched/readahead_max 12345");
  const std::string text = good("get -r");
  EXPECT_NE(text.find("\ntiers/dram/watermark_low = 8MiB\n"), std::string::npos);
  EXPECT_NE(text.find("\n# sessions/1/advice = running\n"), std::string::npos);
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  const TempDir conf;
  conf.write("saved.conf", text);
  FakeRuntime other;
  Result<Config> config = Config::load(conf.path(), true);
  ASSERT_TRUE(config.ok()) << config.error().message();
  const Result<void> applied = config->apply(other.tree());
  ASSERT_TRUE(applied.ok()) << applied.error().message();
  EXPECT_EQ(other.watermark_low(), 8u << 20);
  EXPECT_EQ(*other.tree().get("sched/readahead_max"), "12345");
}

TEST_F(KvctlTest, SwapActionsGetAbsolutePaths) {
  start("fake");
  EXPECT_EQ(good("swapon /a/b --bytes 64G --priority=-3"), "swap1\n");
  EXPECT_EQ(runtime.last_action(), "swapon bytes=64G path=/a/b priority=-3");
  good("swapoff here");
  EXPECT_EQ(runtime.last_action(),
            "swapoff path=" + std::filesystem::current_path().string() + "/here");
  const std::string here = std::filesystem::current_path().string();
  const std::string folder = std::filesystem::current_path().filename().string();
  for (const std::string& same :
       {std::string("./here"), "../" + folder + "/here", here + "//here"}) {
    good("swapon " + same);
    EXPECT_EQ(runtime.last_action(), "swapon path=" + here + "/here") << same;
  }
  good("swapoff swap0");  // by its name
  EXPECT_EQ(runtime.last_action(), "swapoff path=/var/lib/kvmm/swap");
  good("swapoff /var/lib/../lib/kvmm/./swap");
  EXPECT_EQ(runtime.last_action(), "swapoff path=/var/lib/kvmm/swap");
  EXPECT_EQ(run("swapoff ''").status, 2);
  const Outcome o = run("swapoff /full");
  EXPECT_EQ(o.status, 1);
  EXPECT_EQ(o.err, "kvctl: no_space: /full: 3 pages do not fit elsewhere; it stays, read-only\n");
}

TEST_F(KvctlTest, ChoosesARuntime) {
  EXPECT_EQ(run("tiers").status, 3);
  EXPECT_EQ(run("tiers").err, "kvctl: no runtime of kvmm is running for this user\n");
  EXPECT_NE(good("ps").find("SOCKET"), std::string::npos);
  EXPECT_EQ(good_json("ps").size(), 0u);
  const std::string first = start("one").path();
  const std::string second = start("two").path();
  const std::string pid = std::to_string(getpid());
  const Outcome o = run("tiers");
  EXPECT_EQ(o.status, 2);
  EXPECT_NE(o.err.find("-p " + pid + "-0"), std::string::npos) << o.err;
  EXPECT_NE(o.err.find("two"), std::string::npos);
  EXPECT_EQ(run("-p " + pid + " tiers").status, 2);
  for (const std::string& one : {std::string("two"), pid + "-1", second}) {
    EXPECT_EQ(good_json("-p " + one + " top --once")["name"], "two");
  }
  EXPECT_EQ(good_json("ps").size(), 2u);
  EXPECT_EQ(good_json("-p two ps").size(), 1u);
  EXPECT_EQ(good_json("-p two ps")[0]["name"], "two");
  EXPECT_EQ(run("-p three ps").status, 3);
  EXPECT_EQ(run("-p three tiers").status, 3);
  EXPECT_EQ(run("-p " + dir.file("no.sock") + " tiers").status, 3);
}

TEST_F(KvctlTest, WrongCommandLinesAreUsageErrors) {
  start("fake");
  for (const char* arguments :
       {"", "fly", "set a", "get", "top -d 0", "top -d x", "pagemap --width 0", "--timeout 0 ps",
        "swapon", "swapon /x --priority high", "ls a b"}) {
    const Outcome o = run(arguments);
    EXPECT_EQ(o.status, 2) << arguments;
    EXPECT_TRUE(o.err.starts_with("kvctl: ")) << o.err;
  }
  EXPECT_EQ(run("fly high").err, "kvctl: there is no command 'fly'; kvctl --help\n");
  EXPECT_EQ(run("-p x fly").err, "kvctl: there is no command 'fly'; kvctl --help\n");
  EXPECT_EQ(run("--json fly").status, 2);
  EXPECT_EQ(run("--help").status, 0);
  EXPECT_NE(good("--help").find("Examples:"), std::string::npos);
  EXPECT_NE(good("pagemap --help").find("--plane"), std::string::npos);
  EXPECT_EQ(good("--version"), "kvctl 0.1.0\n");
}

TEST_F(KvctlTest, OutputThatCannotBeWrittenIsAnError) {
  start("fake");
  EXPECT_EQ(run("tiers", ">/dev/full").status, 1);
  EXPECT_EQ(run("tiers", ">&-").status, 1);
  EXPECT_EQ(run("--json tiers", ">&- 2>&- <&-").status, 1);
  EXPECT_EQ(run("set sched/readahead_max 4K", ">&-").status, 0);
  EXPECT_EQ(run("--version", ">&-").status, 1);
}

TEST_F(KvctlTest, TopRepeatsAndEndsWithItsRuntime) {
  start("fake");
  const std::string text = good("top -n 3 -d 0.01");
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  size_t pictures = 0;
  for (size_t at = 0; (at = text.find("fake (pid ", at)) != std::string::npos; ++at) {
    ++pictures;
  }
  EXPECT_EQ(pictures, 3u);
  std::istringstream lines(good("--json top -n 2 -d 0.01"));
  int objects = 0;
  for (std::string line; std::getline(lines, line); ++objects) {
    const Json json = Json::parse(line, nullptr, false);
    ASSERT_FALSE(json.is_discarded()) << line;
    EXPECT_EQ(json["per_second"].is_null(), objects == 0);
  }
  EXPECT_EQ(objects, 2);

  // Runs until the runtime goes.
  const std::string fifo = dir.file("fifo");
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  Outcome o;
  std::thread top([&] { o = run("--json top -d 0.01", ">" + fifo); });
  {
    std::ifstream pictures_of(fifo);
    std::string line;
    ASSERT_TRUE(std::getline(pictures_of, line));
    servers.clear();
    while (std::getline(pictures_of, line)) {
    }
  }
  top.join();
  EXPECT_EQ(o.status, 3);
  EXPECT_NE(o.err.find("closed the connection"), std::string::npos) << o.err;
}

TEST_F(KvctlTest, DeadSocketsArePassedOver) {
  const std::string path = dir.file("4194001-0.sock");
  {
    const OwnedFd fd(socket(AF_UNIX, SOCK_STREAM, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    ASSERT_EQ(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  }
  EXPECT_EQ(good_json("ps").size(), 0u);
  EXPECT_EQ(run("tiers").status, 3);
  EXPECT_EQ(run("-p " + path + " tiers").status, 3);
  start("fake");
  EXPECT_EQ(good_json("ps").size(), 1u);
  good("tiers");
}

TEST_F(KvctlTest, MalformedTextsAreAnErrorNotAPicture) {
  start("fake");
  for (const char* text :
       {"RRR\n", "plane k page_size=65536\nRRR\n", "plane k page_size=x pages=3\nRRR\n",
        "plane k page_size=65536 pages=2\nRRR\n", "plane k page_size=65536 pages=3\nR?R\n"}) {
    runtime.set_pagemap(text);
    const Outcome o = run("pagemap 1");
    EXPECT_EQ(o.status, 1) << text;
    EXPECT_EQ(o.out, "");
  }
  for (const char* text :
       {"size 4096\n", "7f00-8000 rw 4096 k private:1\nsize much\n", "7f00-8000 rw 0 k private:1\n",
        "7f00 rw 4096 k private:1\n", "7f00-8000 rw 4096 k private:1\nsize 1 2\n", "\xff\n"}) {
    runtime.set_smaps(text);
    const Outcome o = run("smaps 1");
    EXPECT_EQ(o.status, 1) << text;
    EXPECT_EQ(o.out, "");
  }
  runtime.set_smaps("7f00-8000 rw 256 key cache private:1\nsize 256\nnew:name 7\n");
  EXPECT_EQ(good_json("smaps 1")[0]["vmas"][0]["plane"], "key cache");
  EXPECT_EQ(good_json("smaps 1")[0]["total"]["new:name"], 7);
  runtime.set_pagemap("plane k page_size=65536 pages=100000\n" + std::string(100000, 'S') + "\n");
  EXPECT_EQ(good_json("pagemap 1")[0]["planes"][0]["swapped"], 100000);
  // Names are the engine's, and the end may be left out.
  runtime.set_pagemap("plane key cache page_size=4096 pages=1000\nRS\n");
  const Json plane = good_json("pagemap 1")[0]["planes"][0];
  EXPECT_EQ(plane["plane"], "key cache");
  EXPECT_EQ(plane["empty"], 998);
  EXPECT_NE(good("pagemap 1").find("\n       2 998 more, never written\n"), std::string::npos);
  std::string large = "plane k page_size=4096 pages=1000000\n";
  for (int i = 0; i < 10000; ++i) {
    large += std::string(100, 'R') + "\n";
  }
  runtime.set_pagemap(large);
  EXPECT_EQ(good_json("pagemap 1")[0]["planes"][0]["resident"], 1000000);
}

// A server that says the same bytes to whoever connects, then hangs up or stays silent.
class BadServer {
 public:
  BadServer(const std::string& directory, std::string says, bool stays)
      : says_(std::move(says)), stays_(stays) {
    Result<ControlSocket> made = make_control_socket(directory);
    EXPECT_TRUE(made.ok());
    socket_ = std::move(*made);
    EXPECT_EQ(pipe(stop_.data()), 0);
    thread_ = std::thread([this] { serve(); });
  }
  ~BadServer() {
    close(stop_[1]);
    thread_.join();
    close(stop_[0]);
    remove_control_socket(socket_.path);
  }

 private:
  void serve() {
    std::vector<OwnedFd> kept;
    while (true) {
      pollfd fds[2] = {{socket_.fd.get(), POLLIN, 0}, {stop_[0], POLLIN, 0}};
      poll(fds, 2, -1);
      if (fds[1].revents != 0) {
        return;
      }
      OwnedFd client(accept4(socket_.fd.get(), nullptr, nullptr, SOCK_CLOEXEC));
      char request[1024];
      if (recv(client.get(), request, sizeof request, 0) > 0) {
        for (size_t at = 0; at < says_.size();) {
          const ssize_t n = send(client.get(), says_.data() + at, says_.size() - at, MSG_NOSIGNAL);
          if (n <= 0) {
            break;
          }
          at += static_cast<size_t>(n);
        }
      }
      if (stays_) {
        kept.push_back(std::move(client));
      }
    }
  }

  std::string says_;
  bool stays_;
  ControlSocket socket_;
  std::array<int, 2> stop_{-1, -1};
  std::thread thread_;
};

TEST_F(KvctlTest, GarbageFromAServerIsATypedError) {
  const struct {
    std::string says;
    bool stays;
    int status;
    const char* text;
  } kCases[] = {
      {"hello world\n", false, 1, "does not speak the control protocol"},
      {"[]\n", false, 1, "does not speak"},
      {"{\"kvmm\":9,\"ok\":true}\n", false, 1, "another version"},
      {"{\"kvmm\":1,\"ok\":true}\n", false, 1, "does not speak"},
      {"{\"kvmm\":1,\"ok\":false,\"error\":7}\n", false, 1, "does not speak"},
      {"{\"kvmm\":1,\"ok\":false,\"error\":{\"number\":21,\"text\":\"full\\u001b[2J\"}}\n", false,
       1, "full?[2J"},
      {std::string("\0\xff\xfe\x80\n", 5), false, 1, "does not speak"},
      {std::string(8 << 20, 'x'), true, 1, "does not speak"},
      {"", false, 3, "closed the connection"},
      {"{\"kvmm\":1", false, 3, "closed the connection"},
      {"{\"kvmm\":1", true, 1, "does not answer"},
  };
  for (const auto& c : kCases) {
    const BadServer server(dir.path(), c.says, c.stays);
    const std::string socket = dir.file(std::to_string(getpid()) + "-0.sock");
    const std::string timeout = c.text == std::string("does not answer") ? "--timeout 100 " : "";
    const Outcome o = run(timeout + "-p " + socket + " tiers");
    EXPECT_EQ(o.status, c.status) << c.says.substr(0, 60) << o.err;
    EXPECT_NE(o.err.find(c.text), std::string::npos) << c.says.substr(0, 60) << " -> " << o.err;
    EXPECT_EQ(o.out, "");
    EXPECT_EQ(run(timeout + "ps").status, 0);  // ps lists the others
    const Outcome json = run(timeout + "--json ps");
    EXPECT_EQ(json.out, "[]\n");
    if (c.status == 1) {  // one that has ended is passed over; one that is there is named
      EXPECT_NE(json.err.find(c.text), std::string::npos) << c.text << " -> " << json.err;
    }
  }
}

TEST_F(KvctlTest, AServerThatNeverEndsAListIsGarbageInTheEnd) {
  const BadServer server(
      dir.path(), "{\"kvmm\":1,\"ok\":true,\"pid\":1,\"name\":\"x\",\"value\":\"\",\"next\":5}\n",
      false);
  const std::string socket = dir.file(std::to_string(getpid()) + "-0.sock");
  const Outcome o = run("-p " + socket + " get version");
  EXPECT_TRUE(o.status == 1 || o.status == 3) << o.status;
}

}  // namespace
}  // namespace kvmm
