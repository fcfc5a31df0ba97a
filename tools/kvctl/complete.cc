// SPDX-License-Identifier: Apache-2.0
#include "tools/kvctl/complete.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <sstream>

#include "tools/kvctl/context.h"
#include "tools/kvctl/output.h"
#include "tools/kvctl/session_texts.h"
#include "tools/kvctl/snapshot.h"

namespace kvmm::ctl {
namespace {

constexpr int kTimeoutMs = 500;  // somebody waits at a prompt

enum class Kind {
  kNone,
  kFile,
  kDirectory,
  kPath,          // attributes and directories of the tree
  kWritablePath,  // attributes that can be set, and directories
  kValue,         // of the attribute that is the word before
  kSession,
  kPlane,
  kArea,
  kRuntime,
  kMount,
  kColour,
  kPage,
  kSort,
};

struct Place {
  const char* command;
  const char* what;  // an option, or a positional's name in the help
  Kind kind;
};
constexpr std::array<Place, 20> kPlaces = {{{"", "--runtime", Kind::kRuntime},
                                            {"", "--dir", Kind::kDirectory},
                                            {"ls", "PATH", Kind::kPath},
                                            {"get", "PATH", Kind::kPath},
                                            {"set", "PATH", Kind::kWritablePath},
                                            {"set", "VALUE", Kind::kValue},
                                            {"maps", "SESSION", Kind::kSession},
                                            {"smaps", "SESSION", Kind::kSession},
                                            {"pagemap", "SESSION", Kind::kSession},
                                            {"pagemap", "--plane", Kind::kPlane},
                                            {"pagemap", "--color", Kind::kColour},
                                            {"top", "--color", Kind::kColour},
                                            {"top", "--page", Kind::kPage},
                                            {"top", "--sort", Kind::kSort},
                                            {"save", "FILE", Kind::kFile},
                                            {"restore", "FILE", Kind::kFile},
                                            {"swapon", "PATH", Kind::kFile},
                                            {"swapoff", "PATH", Kind::kArea},
                                            {"mount", "DIR", Kind::kDirectory},
                                            {"umount", "DIR", Kind::kMount}}};

bool takes_value(const CLI::Option& option) {
  return option.get_items_expected_max() > 0;
}

// "--plane" or "-p" of the command, or of kvctl itself.
CLI::Option* find_option(CLI::App& app, CLI::App* command, const std::string& name) {
  for (CLI::App* const from : {command, &app}) {
    if (from != nullptr) {
      if (CLI::Option* const option = from->get_option_no_throw(name)) {
        return option;
      }
    }
  }
  return nullptr;
}

std::vector<CLI::App*> commands_of(CLI::App& app) {
  return app.get_subcommands([](CLI::App*) { return true; });
}

CLI::App* find_command(CLI::App& app, const std::string& name) {
  for (CLI::App* const command : commands_of(app)) {
    if (command->get_name() == name) {
      return command;
    }
  }
  return nullptr;
}

Kind kind_of(CLI::App* command, const CLI::Option& option) {
  const std::string name = command == nullptr ? "" : command->get_name();
  for (const Place& place : kPlaces) {
    const bool here = *place.command == '\0' || name == place.command;
    if (here && (option.check_name(place.what) || option.get_name(true) == place.what)) {
      return place.kind;
    }
  }
  return Kind::kNone;
}

class Completion {
 public:
  Completion(CLI::App& app, std::vector<std::string> words) : app_(app), words_(std::move(words)) {}

  int run() {
    find_place();
    std::string text;
    if (kind_ == Kind::kFile || kind_ == Kind::kDirectory) {
      text = kind_ == Kind::kFile ? "files\n" : "dirs\n";
    } else {
      ask_runtime();
      text = "words\n" + candidates_;
    }
    return write_out(text) ? kExitOk : kExitRefused;
  }

 private:
  // What the words before the last one say, and what the last one is to be.
  void find_place();
  void ask_runtime();
  void add(const std::string& word, const std::string& description = "") {
    if (word.starts_with(typed_)) {
      candidates_ += harmless(prefix_ + word + "\t" + description, true) + "\n";
    }
  }
  void add_options();
  void add_paths(Client& client);
  void add_sessions(Client& client);
  void add_planes(Client& client);
  void add_areas(Client& client);
  void add_values(Client& client);
  void add_mounts();

  CLI::App& app_;
  std::vector<std::string> words_;
  CLI::App* command_ = nullptr;
  std::vector<std::string> arguments_;  // of the command, before the last word
  Options options_;
  Kind kind_ = Kind::kNone;
  std::string typed_;
  std::string prefix_;  // what stands before `typed_` in the same word: "--plane="
  std::string candidates_;
};

void Completion::find_place() {
  // bash makes three words of --plane=k; what stands before the last '=' is no part of its word.
  std::vector<std::string> words;
  bool glued = false;
  for (std::string& word : words_) {
    const bool glue = word == "=" && !words.empty() && words.back().starts_with("--");
    if (glue || glued) {
      words.back() += word;
    } else {
      words.push_back(std::move(word));
    }
    glued = glue;
  }
  const bool split = words.size() != words_.size();
  typed_ = words.empty() ? "" : words.back();
  bool options_end = false;
  const CLI::Option* waiting = nullptr;
  for (size_t i = 0; i + 1 < words.size(); ++i) {
    const std::string& word = words[i];
    if (waiting != nullptr) {
      options_.runtime = waiting->check_name("--runtime") ? word : options_.runtime;
      options_.directory = waiting->check_name("--dir") ? word : options_.directory;
      waiting = nullptr;
    } else if (word == "--") {
      options_end = true;
    } else if (word.size() > 1 && word[0] == '-' && !options_end) {
      const size_t equals = word.find('=');
      const CLI::Option* const option = find_option(app_, command_, word.substr(0, equals));
      if (option != nullptr && takes_value(*option)) {
        if (equals == std::string::npos) {
          waiting = option;
        } else if (option->check_name("--runtime")) {
          options_.runtime = word.substr(equals + 1);
        } else if (option->check_name("--dir")) {
          options_.directory = word.substr(equals + 1);
        }
      }
    } else if (command_ == nullptr) {
      command_ = find_command(app_, word);
      if (command_ == nullptr) {
        typed_ = "\n";  // no such command: nothing can follow
        return;
      }
    } else {
      arguments_.push_back(word);
    }
  }
  if (waiting != nullptr) {
    kind_ = kind_of(command_, *waiting);
    return;
  }
  if (typed_.starts_with('-') && !options_end) {
    const size_t equals = typed_.find('=');
    if (equals == std::string::npos) {
      add_options();
      return;
    }
    if (const CLI::Option* const option = find_option(app_, command_, typed_.substr(0, equals))) {
      kind_ = kind_of(command_, *option);
      prefix_ = split ? "" : typed_.substr(0, equals + 1);
      typed_.erase(0, equals + 1);
    }
    return;
  }
  if (command_ == nullptr) {
    for (const CLI::App* const sub : commands_of(app_)) {
      add(sub->get_name(), sub->get_description());
    }
    return;
  }
  size_t index = 0;
  for (const CLI::Option* const option : command_->get_options()) {
    if (option->get_positional()) {
      const bool many = option->get_items_expected_max() > 1;
      if (index == arguments_.size() || many) {
        kind_ = kind_of(command_, *option);
        return;
      }
      ++index;
    }
  }
}

void Completion::add_options() {
  for (CLI::App* const from : {command_, &app_}) {
    if (from == nullptr) {
      continue;
    }
    for (const CLI::Option* const option : from->get_options()) {
      for (const std::string& name : option->get_lnames()) {
        const bool again = name == "help" && from == &app_ && command_ != nullptr;
        if (!again) {
          add("--" + name, option->get_description());
        }
      }
    }
  }
}

void Completion::ask_runtime() {
  switch (kind_) {
    case Kind::kColour:
      for (const char* word : {"auto", "always", "never"}) {
        add(word);
      }
      return;
    case Kind::kPage:
      for (const char* word : {"sessions", "tiers", "counters"}) {
        add(word);
      }
      return;
    case Kind::kSort:
      for (const char* word :
           {"resident", "swapped", "faults", "major", "in", "out", "name", "id"}) {
        add(word);
      }
      return;
    case Kind::kMount:
      add_mounts();
      return;
    case Kind::kNone:
    case Kind::kFile:
    case Kind::kDirectory:
      return;
    default:
      break;
  }
  options_.timeout_ms = kTimeoutMs;
  const Context context(options_);
  if (kind_ == Kind::kRuntime) {
    for (const Runtime& runtime : context.runtimes()) {
      add(runtime.hello.name, "pid " + std::to_string(runtime.hello.pid));
      add(std::to_string(runtime.hello.pid), runtime.hello.name);
    }
    return;
  }
  std::optional<Runtime> runtime = context.choose_silently();
  if (!runtime) {
    return;
  }
  Client& client = runtime->client;
  switch (kind_) {
    case Kind::kPath:
    case Kind::kWritablePath:
      return add_paths(client);
    case Kind::kValue:
      return add_values(client);
    case Kind::kSession:
      return add_sessions(client);
    case Kind::kPlane:
      return add_planes(client);
    case Kind::kArea:
      return add_areas(client);
    default:
      return;
  }
}

// One level at a time, as a shell completes files.
void Completion::add_paths(Client& client) {
  const size_t slash = typed_.rfind('/');
  const std::string parent = slash == std::string::npos ? "" : typed_.substr(0, slash);
  const auto entries = client.list(parent);
  for (const Entry& entry : entries ? *entries : std::vector<Entry>()) {
    const std::string path = parent.empty() ? entry.name : parent + "/" + entry.name;
    if (entry.directory) {
      add(path + "/");
    } else if (kind_ == Kind::kPath || entry.mode != "ro") {
      add(path, entry.mode + " " + entry.type);
    }
  }
}

// The choices there are, or the value it has.
void Completion::add_values(Client& client) {
  const auto stat = client.stat(arguments_.front());
  if (!stat || stat->directory) {
    return;
  }
  if (stat->type == "enum" || stat->type == "bool") {
    std::istringstream choices(stat->range);
    for (std::string one; std::getline(choices, one, '|');) {
      add(one);
    }
    return;
  }
  if (const auto now = client.get(arguments_.front())) {
    add(*now->value, "now; " + stat->range);
  }
}

void Completion::add_sessions(Client& client) {
  const auto sessions = sessions_of(client, "");
  for (const Session& session : sessions ? *sessions : std::vector<Session>()) {
    add(session.id, session.name);
  }
}

void Completion::add_planes(Client& client) {
  const auto sessions = sessions_of(client, arguments_.empty() ? "" : arguments_.front());
  if (!sessions || sessions->empty()) {
    return;
  }
  const std::string path = "sessions/" + sessions->front().id + "/pagemap";
  const auto text = client.get(path);
  const auto planes = text ? parse_pagemap(path, *text->value) : text.error();
  for (const Plane& plane : planes ? *planes : std::vector<Plane>()) {
    add(plane.name, std::to_string(plane.pages) + " pages");
  }
}

void Completion::add_areas(Client& client) {
  const auto now = take_snapshot(client, false);
  if (now) {
    for (const auto& [name, attributes] : now->swap) {
      add(name, attributes.text("path"));
    }
  }
}

void Completion::add_mounts() {
  for (const std::string& directory : mounted_directories()) {
    add(directory);
  }
}

}  // namespace

int complete(CLI::App& app, std::vector<std::string> words) {
  return Completion(app, std::move(words)).run();
}

}  // namespace kvmm::ctl
