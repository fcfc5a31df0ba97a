// SPDX-License-Identifier: Apache-2.0
#include "tests/control/kvctl_fixture.h"

#include <sys/wait.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

namespace kvmm::test {

std::string replace_all(std::string text, const std::string& what, const std::string& with) {
  for (size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += with.size()) {
    text.replace(at, what.size(), with);
  }
  return text;
}

std::string read_file(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

ControlServer& KvctlTest::start(const std::string& name) {
  auto server = ControlServer::start(
      runtime.tree(),
      {.directory = dir.path(), .name = name, .version = "0.1.0", .actions = runtime.actions()});
  EXPECT_TRUE(server.ok()) << server.error().message();
  servers.push_back(std::move(*server));
  return *servers.back();
}

Outcome KvctlTest::run(const std::string& arguments, const std::string& redirect,
                       const std::string& before) {
  const std::string out = dir.file("out");
  const std::string err = dir.file("err");
  const std::string command = before + " " + KVCTL_BINARY + " --dir " + dir.path() + " " +
                              arguments + " </dev/null >" + out + " 2>" + err + " " + redirect;
  const int status = std::system(command.c_str());
  Outcome outcome;
  outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  outcome.out = read_file(out);
  outcome.err = read_file(err);
  return outcome;
}

std::string KvctlTest::good(const std::string& arguments) {
  const Outcome o = run(arguments);
  EXPECT_EQ(o.status, 0) << arguments << ": " << o.err;
  EXPECT_EQ(o.err, "") << arguments;
  return o.out;
}

nlohmann::json KvctlTest::good_json(const std::string& arguments) {
  nlohmann::json json = nlohmann::json::parse(good("--json " + arguments), nullptr, false);
  EXPECT_FALSE(json.is_discarded()) << arguments;
  return json;
}

void KvctlTest::expect_golden(const std::string& name, const std::string& arguments) {
  std::string text = good(arguments);
  text = replace_all(text, dir.path(), "DIR");
  text = replace_all(text, std::to_string(getpid()), "PID");
  const std::string file = std::string(GOLDEN_DIR) + "/" + name;
  if (std::getenv("KVMM_WRITE_GOLDEN") != nullptr) {
    std::ofstream(file) << text;
  }
  EXPECT_EQ(text, read_file(file)) << "kvctl " << arguments << " against " << file;
}

}  // namespace kvmm::test
