// SPDX-License-Identifier: Apache-2.0
#include "tools/kvctl/context.h"

#include <fmt/format.h>
#include <glob.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "tools/kvctl/output.h"

namespace kvmm::ctl {
namespace {

using Json = nlohmann::ordered_json;

// A lost message is all that can go wrong, and there is nobody left to tell.
void write_error(const std::string& text) {
  [[maybe_unused]] const ssize_t n = write(STDERR_FILENO, text.data(), text.size());
}

int status_of(Errc code) {
  return code == Errc::kDeviceGone ? kExitNoRuntime : kExitRefused;
}

// Root looks into the users' directories too.
std::vector<std::string> users_directories() {
  std::vector<std::string> all;
  for (const char* pattern : {"/run/user/*/kvmm", "/tmp/kvmm-*"}) {
    glob_t found{};
    if (glob(pattern, GLOB_NOSORT, nullptr, &found) == 0) {
      all.insert(all.end(), found.gl_pathv, found.gl_pathv + found.gl_pathc);
    }
    globfree(&found);
  }
  return all;
}

std::vector<ControlName> all_sockets(const std::string& directory) {
  std::vector<std::string> directories = {directory};
  if (directory.empty()) {
    directories = control_directories();
    if (geteuid() == 0) {
      const std::vector<std::string> more = users_directories();
      directories.insert(directories.end(), more.begin(), more.end());
    }
  }
  std::vector<ControlName> all;
  std::set<std::string> seen;
  for (const std::string& one : directories) {
    if (seen.insert(one).second) {
      const std::vector<ControlName> names = list_control_sockets(one);
      all.insert(all.end(), names.begin(), names.end());
    }
  }
  return all;
}

// "4242-0" of ".../4242-0.sock"
std::string stem_of(const std::string& path) {
  const std::string name = path.substr(path.rfind('/') + 1);
  return name.substr(0, name.rfind('.'));
}

bool is_socket_path(const std::string& wanted) {
  return wanted.find('/') != std::string::npos || wanted.ends_with(".sock");
}

std::string listed(const std::vector<Runtime>& all) {
  std::string text;
  for (const Runtime& runtime : all) {
    text += fmt::format("\n  -p {:<12} {}", stem_of(runtime.client.path()),
                        harmless(runtime.hello.name));
  }
  return text;
}

}  // namespace

bool is_meant(const Runtime& runtime, const std::string& wanted) {
  return wanted == std::to_string(runtime.hello.pid) || wanted == runtime.hello.name ||
         wanted == stem_of(runtime.client.path()) || wanted == runtime.client.path();
}

int Context::fail(const Error& error) const {
  const int status = status_of(error.code);
  if (options.json) {
    Json json;
    json["error"]["code"] = errc_name(error.code);
    json["error"]["text"] = error.detail.empty() ? errc_text(error.code) : error.detail;
    print(json);
  }
  write_error("kvctl: " + harmless(error.message()) + "\n");
  return status;
}

int Context::fail(int status, const std::string& text) const {
  if (options.json) {
    Json json;
    json["error"]["code"] = status == kExitNoRuntime ? "no_runtime" : "usage";
    json["error"]["text"] = text;
    print(json);
  }
  write_error("kvctl: " + harmless(text, true) + "\n");
  return status;
}

int Context::complain(const std::string& lines) const {
  std::string text;
  for (size_t at = 0; at < lines.size();) {
    const size_t end = std::min(lines.find('\n', at), lines.size());
    text += "kvctl: " + harmless(lines.substr(at, end - at)) + "\n";
    at = end + 1;
  }
  write_error(text);
  return kExitRefused;
}

int Context::print(const std::string& text) const {
  if (write_out(text)) {
    return kExitOk;
  }
  write_error(fmt::format("kvctl: standard output: {}\n", std::strerror(errno)));
  return kExitRefused;
}

int Context::print(const nlohmann::ordered_json& json) const {
  return print(json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

std::vector<Runtime> Context::runtimes(std::vector<std::string>* silent) const {
  std::vector<Runtime> all;
  for (const ControlName& name : all_sockets(options.directory)) {
    Result<Client> client = Client::connect(name.path, options.timeout_ms);
    Result<Hello> hello = client ? client->hello() : Result<Hello>(client.error());
    if (hello) {
      all.push_back({std::move(*client), std::move(*hello)});
    } else if (hello.code() != Errc::kDeviceGone && silent != nullptr) {
      silent->push_back(hello.error().message());
    }
  }
  return all;
}

std::optional<Runtime> Context::choose_silently() const {
  const std::string& wanted = options.runtime;
  std::vector<Runtime> all;
  if (is_socket_path(wanted)) {
    Result<Client> client = Client::connect(wanted, options.timeout_ms);
    Result<Hello> hello = client ? client->hello() : Result<Hello>(client.error());
    if (hello) {
      all.push_back({std::move(*client), std::move(*hello)});
    }
  } else {
    all = runtimes();
    std::erase_if(all, [&](const Runtime& r) { return !wanted.empty() && !is_meant(r, wanted); });
  }
  return all.size() == 1 ? std::optional(std::move(all.front())) : std::nullopt;
}

std::optional<Runtime> Context::open_path(const std::string& path, int* status) const {
  Result<Client> client = Client::connect(path, options.timeout_ms);
  Result<Hello> hello = client ? client->hello() : Result<Hello>(client.error());
  if (!hello) {
    *status = fail(hello.error());
    return std::nullopt;
  }
  return Runtime{std::move(*client), std::move(*hello)};
}

std::optional<Runtime> Context::choose(int* status) const {
  const std::string& wanted = options.runtime;
  if (is_socket_path(wanted)) {
    return open_path(wanted, status);
  }
  std::vector<std::string> silent;
  std::vector<Runtime> all = runtimes(&silent);
  if (!wanted.empty()) {
    std::erase_if(all, [&](const Runtime& r) { return !is_meant(r, wanted); });
  }
  if (all.size() == 1) {
    return std::move(all.front());
  }
  if (all.empty()) {
    std::string text = wanted.empty() ? "no runtime of kvmm is running for this user"
                                      : "no runtime '" + wanted + "' is running for this user";
    for (const std::string& one : silent) {
      text += "\n  " + one;
    }
    *status = fail(kExitNoRuntime, text);
  } else {
    *status = fail(kExitUsage, "several runtimes match; say which:" + listed(all));
  }
  return std::nullopt;
}

}  // namespace kvmm::ctl
