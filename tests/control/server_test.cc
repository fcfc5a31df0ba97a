// SPDX-License-Identifier: Apache-2.0
//
// The control socket against clients that are slow, greedy, rude or not allowed in.
#include "runtime/control/server.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <semaphore>

#include "runtime/control/endpoint.h"
#include "tests/control/fake_runtime.h"
#include "tests/control/temp_dir.h"

namespace kvmm {
namespace {

using test::FakeRuntime;
using test::TempDir;

constexpr int kPatienceMs = 20'000;  // only a broken server makes a test wait that long
constexpr const char* kGet = "{\"kvmm\":1,\"op\":\"get\",\"path\":\"version\"}\n";

// A client that says exactly what a test wants.
class RawClient {
 public:
  explicit RawClient(const std::string& path) {
    Result<OwnedFd> fd = connect_control_socket(path, kPatienceMs);
    EXPECT_TRUE(fd.ok()) << fd.error().message();
    fd_ = std::move(*fd);
  }
  // Whether everything was taken.
  bool say(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) {
        return false;
      }
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    return true;
  }
  // The next line; "" at the end of the connection.
  std::string line() {
    while (buffer_.find('\n') == std::string::npos) {
      char piece[4096];
      const ssize_t n = recv(fd_.get(), piece, sizeof piece, 0);
      EXPECT_FALSE(n < 0 && errno == EAGAIN) << "no answer";
      if (n <= 0) {
        return "";
      }
      buffer_.append(piece, static_cast<size_t>(n));
    }
    const size_t end = buffer_.find('\n');
    std::string line = buffer_.substr(0, end);
    buffer_.erase(0, end + 1);
    return line;
  }
  std::string ask(std::string_view bytes) { return say(bytes) ? line() : "(closed)"; }
  void finish_sending() { shutdown(fd_.get(), SHUT_WR); }
  int fd() const { return fd_.get(); }

 private:
  OwnedFd fd_;
  std::string buffer_;
};

bool is_ok(const std::string& line) {
  return line.starts_with("{\"kvmm\":1,\"ok\":true");
}
bool is_error(const std::string& line, const std::string& code) {
  return line.starts_with("{\"kvmm\":1,\"ok\":false,\"error\":{\"code\":\"" + code + "\"");
}

struct ServerTest : ::testing::Test {
  TempDir dir;
  FakeRuntime runtime;
  std::unique_ptr<ControlServer> server;

  ControlOptions options() {
    return {
        .directory = dir.path(), .name = "fake", .version = "0.1.0", .actions = runtime.actions()};
  }
  // A place is free once the server has seen the end of who had it.
  bool is_served_at_last() {
    for (int i = 0; i < 10'000; ++i) {
      if (is_ok(RawClient(server->path()).ask(kGet))) {
        return true;
      }
    }
    return false;
  }
  void start(ControlOptions o) {
    auto started = ControlServer::start(runtime.tree(), std::move(o));
    ASSERT_TRUE(started.ok()) << started.error().message();
    server = std::move(*started);
  }
};

TEST_F(ServerTest, AnswersAndLeavesNothingBehind) {
  start(options());
  const std::string path = server->path();
  EXPECT_EQ(path, dir.file(std::to_string(getpid()) + "-0.sock"));
  RawClient client(path);
  EXPECT_TRUE(is_ok(client.ask(kGet)));
  EXPECT_TRUE(is_error(client.ask("what\n"), "invalid"));
  EXPECT_TRUE(is_ok(client.ask("{\"kvmm\":1,\"op\":\"hello\"}\r\n")));
  server.reset();
  EXPECT_EQ(client.line(), "");
  EXPECT_NE(access(path.c_str(), F_OK), 0);
}

TEST_F(ServerTest, BadLimitsAreRefused) {
  ControlOptions o = options();
  o.clients_max = 0;
  EXPECT_EQ(ControlServer::start(runtime.tree(), o).code(), Errc::kInvalid);
  o = options();
  o.directory = dir.file("a/b");
  EXPECT_EQ(ControlServer::start(runtime.tree(), o).code(), Errc::kNotFound);
}

TEST_F(ServerTest, SeveralRuntimesHaveTheirOwnSockets) {
  start(options());
  const auto second = ControlServer::start(runtime.tree(), options());
  ASSERT_TRUE(second.ok());
  EXPECT_NE((*second)->path(), server->path());
  EXPECT_TRUE(is_ok(RawClient((*second)->path()).ask(kGet)));
}

TEST_F(ServerTest, PiecesAndPipelines) {
  start(options());
  RawClient client(server->path());
  for (const char c : std::string_view(kGet)) {
    ASSERT_TRUE(client.say(std::string(1, c)));
  }
  EXPECT_TRUE(is_ok(client.line()));
  std::string many;
  for (int i = 0; i < 500; ++i) {
    many += kGet;
  }
  ASSERT_TRUE(client.say(many));
  client.finish_sending();
  for (int i = 0; i < 500; ++i) {
    ASSERT_TRUE(is_ok(client.line())) << i;
  }
  EXPECT_EQ(client.line(), "");
}

TEST_F(ServerTest, OversizedLinesAreRefusedAndHungUp) {
  start(options());
  RawClient longest(server->path());
  std::string padded = kGet;
  padded.insert(1, std::string(kControlLineMax - padded.size(), ' '));
  ASSERT_EQ(padded.size(), kControlLineMax);
  EXPECT_TRUE(is_ok(longest.ask(padded)));
  padded.insert(1, " ");
  EXPECT_TRUE(is_error(longest.ask(padded), "limit"));
  EXPECT_EQ(longest.line(), "");
  RawClient endless(server->path());
  (void)endless.say(std::string(4 * kControlLineMax, 'x'));
  EXPECT_TRUE(is_error(endless.line(), "limit"));
  EXPECT_EQ(endless.line(), "");
  EXPECT_TRUE(is_ok(RawClient(server->path()).ask(kGet)));
}

TEST_F(ServerTest, BinaryIsGarbageLineByLine) {
  start(options());
  RawClient client(server->path());
  std::string junk;
  for (int i = 0; i < 256; ++i) {
    junk += static_cast<char>(i);
  }
  ASSERT_TRUE(client.say(junk + "\n" + kGet));
  EXPECT_TRUE(is_error(client.line(), "invalid"));
  EXPECT_TRUE(is_error(client.line(), "invalid"));
  EXPECT_TRUE(is_ok(client.line()));
}

TEST_F(ServerTest, PartialRequestsAndSuddenEnds) {
  start(options());
  for (int i = 0; i < 200; ++i) {
    RawClient client(server->path());
    (void)client.say(std::string_view(kGet).substr(0, static_cast<size_t>(i) % 40));
  }
  EXPECT_TRUE(is_served_at_last());
}

TEST_F(ServerTest, AHundredConnectionsGetAPlaceOrAnAnswer) {
  start(options());
  std::vector<std::unique_ptr<RawClient>> clients;
  int served = 0;
  int refused = 0;
  for (int i = 0; i < 100; ++i) {
    clients.push_back(std::make_unique<RawClient>(server->path()));
    const std::string reply = clients.back()->ask(kGet);
    served += is_ok(reply) ? 1 : 0;
    // Told so, unless the refusal crossed the request on the closed socket.
    refused += is_ok(reply) ? 0 : 1;
    EXPECT_TRUE(is_ok(reply) || is_error(reply, "limit") || reply == "(closed)" ||
                is_error(clients.back()->line(), "limit"))
        << reply;
  }
  EXPECT_EQ(served, 16);
  EXPECT_EQ(refused, 84);
  clients.erase(clients.begin());
  EXPECT_TRUE(is_served_at_last());
}

TEST_F(ServerTest, TheLongestSilentClientMakesRoom) {
  ControlOptions o = options();
  o.clients_max = 2;
  o.idle_ms = 1;
  start(o);
  RawClient first(server->path());
  ASSERT_TRUE(is_ok(first.ask(kGet)));
  RawClient second(server->path());
  ASSERT_TRUE(is_ok(second.ask(kGet)));
  // A millisecond of silence is all it takes; nobody is told to wait for it.
  std::string reply;
  for (int i = 0; i < 10'000 && !is_ok(reply); ++i) {
    RawClient third(server->path());
    reply = third.ask(kGet);
  }
  EXPECT_TRUE(is_ok(reply));
  EXPECT_EQ(first.line(), "");
}

TEST_F(ServerTest, AClientThatNeverReadsIsDroppedAndHurtsNobody) {
  ControlOptions o = options();
  o.stall_ms = 50;
  start(o);
  runtime.set_pagemap(std::string(2 << 20, 'R'));
  RawClient deaf(server->path());
  const std::string large = "{\"kvmm\":1,\"op\":\"get\",\"path\":\"sessions/1/pagemap\"}\n";
  // Keeps asking, never reads: the server stops to read once a reply waits.
  const int flags = fcntl(deaf.fd(), F_GETFL);
  ASSERT_EQ(fcntl(deaf.fd(), F_SETFL, flags | O_NONBLOCK), 0);
  for (int i = 0; i < 10'000; ++i) {
    if (send(deaf.fd(), large.data(), large.size(), MSG_NOSIGNAL) < 0) {
      break;
    }
  }
  RawClient other(server->path());
  EXPECT_TRUE(is_ok(other.ask(kGet)));
  pollfd gone{deaf.fd(), 0, 0};
  EXPECT_EQ(poll(&gone, 1, kPatienceMs), 1);  // hung up on after the stall
  EXPECT_NE(gone.revents & (POLLHUP | POLLERR), 0);
  EXPECT_TRUE(is_ok(other.ask(kGet)));
}

TEST_F(ServerTest, OtherUsersAreRefused) {
  for (const uid_t uid : {geteuid() + 1, uid_t{65534}}) {
    ControlOptions o = options();
    o.peer_of = [uid](int, ucred* peer) {
      *peer = {.pid = 1, .uid = uid, .gid = 0};
      return true;
    };
    server.reset();
    start(o);
    RawClient client(server->path());
    EXPECT_TRUE(is_error(client.line(), "permission"));
    EXPECT_EQ(client.line(), "");
  }
  ControlOptions o = options();
  o.peer_of = [](int, ucred*) { return false; };
  server.reset();
  start(o);
  EXPECT_TRUE(is_error(RawClient(server->path()).line(), "permission"));
  o.peer_of = [](int, ucred* peer) {
    *peer = {.pid = 1, .uid = 0, .gid = 0};
    return true;
  };
  server.reset();
  start(o);
  EXPECT_TRUE(is_ok(RawClient(server->path()).ask(kGet)));
}

TEST_F(ServerTest, ALongActionDelaysNobodyElse) {
  std::binary_semaphore running{0}, go_on{0};
  ControlOptions o = options();
  o.actions["slow"] = [&](const ControlArgs&) -> Result<std::string> {
    running.release();
    go_on.acquire();
    return std::string("done");
  };
  start(o);
  const char* call = "{\"kvmm\":1,\"op\":\"call\",\"name\":\"slow\"}\n";
  RawClient slow(server->path());
  ASSERT_TRUE(slow.say(call));
  running.acquire();
  EXPECT_TRUE(is_ok(RawClient(server->path()).ask(kGet)));
  go_on.release();
  EXPECT_EQ(slow.line(), "{\"kvmm\":1,\"ok\":true,\"value\":\"done\"}");
  {
    RawClient leaver(server->path());
    ASSERT_TRUE(leaver.say(call));
    running.acquire();
  }
  go_on.release();  // its reply finds nobody
  EXPECT_TRUE(is_ok(slow.ask(kGet)));
  server.reset();  // ends the action before what it waits for goes away
}

TEST_F(ServerTest, CallbacksThatThrowAreAnErrorOfTheirRequest) {
  static constexpr AttrDef kBad = {.pattern = "bad", .help = "t"};
  const AttrDir bad =
      *runtime.tree().add("", {{&kBad, []() -> Result<AttrValue> { throw std::bad_alloc(); }}});
  start(options());
  RawClient client(server->path());
  EXPECT_TRUE(is_error(client.ask("{\"kvmm\":1,\"op\":\"get\",\"path\":\"bad\"}\n"), "no_memory"));
  EXPECT_TRUE(is_ok(client.ask(kGet)));
  server.reset();
}

TEST_F(ServerTest, ItsThreadTakesNoSignals) {
  std::atomic<int> blocked{-1};
  static constexpr AttrDef kProbe = {.pattern = "probe", .help = "t"};
  const AttrDir probe = *runtime.tree().add("", {{&kProbe, [&]() -> Result<AttrValue> {
                                                    sigset_t now;
                                                    pthread_sigmask(SIG_SETMASK, nullptr, &now);
                                                    blocked = sigismember(&now, SIGINT) != 0 &&
                                                              sigismember(&now, SIGUSR1) != 0;
                                                    return AttrValue::of(1);
                                                  }}});
  sigset_t before, after;
  pthread_sigmask(SIG_SETMASK, nullptr, &before);
  start(options());
  pthread_sigmask(SIG_SETMASK, nullptr, &after);
  EXPECT_EQ(sigismember(&before, SIGINT), sigismember(&after, SIGINT));
  RawClient client(server->path());
  EXPECT_TRUE(is_ok(client.ask("{\"kvmm\":1,\"op\":\"get\",\"path\":\"probe\"}\n")));
  EXPECT_EQ(blocked.load(), 1);
  server.reset();
}

TEST_F(ServerTest, AForkedChildDoesNothing) {
  start(options());
  RawClient client(server->path());
  ASSERT_TRUE(is_ok(client.ask(kGet)));
  const pid_t child = fork();
  if (child == 0) {
    server.reset();  // must neither hang nor remove the socket
    _exit(7);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 7);
  EXPECT_EQ(access(server->path().c_str(), F_OK), 0);
  EXPECT_TRUE(is_ok(client.ask(kGet)));
}

TEST_F(ServerTest, OutOfDescriptorsItRecovers) {
  start(options());
  RawClient client(server->path());
  ASSERT_TRUE(is_ok(client.ask(kGet)));
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit none = before;
  none.rlim_cur = 0;  // no descriptor at all: every accept fails, nothing may spin or stop
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  const std::string reply = client.ask(kGet);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_TRUE(is_ok(reply));
  EXPECT_TRUE(is_ok(RawClient(server->path()).ask(kGet)));
}

TEST_F(ServerTest, StopsWhileClientsAreBusy) {
  for (int round = 0; round < 50; ++round) {
    start(options());
    RawClient a(server->path());
    RawClient b(server->path());
    ASSERT_TRUE(a.say(std::string(kGet) + kGet + "{\"kvmm\":1"));
    ASSERT_TRUE(b.say("{\"kvmm\":1,\"op\":\"call\",\"name\":\"swapon\",\"args\":{}}\n"));
    server.reset();
  }
  EXPECT_TRUE(list_control_sockets(dir.path()).empty());
}

}  // namespace
}  // namespace kvmm
