// SPDX-License-Identifier: Apache-2.0
//
// What every command of kvctl is given: its options, the runtime to ask, where to print.
//
//   exit  0  done
//         1  the runtime refused, or went wrong; output could not be written
//         2  the command line is wrong, or it does not say which of several runtimes is meant
//         3  no runtime: none runs, none of that name, or it has ended
//
// Commands return the exit status. Text goes out once, at the end of a command, so that a command
// that fails prints nothing but its error.
//
// Thread safety: none; kvctl has one thread.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "tools/kvctl/client.h"

namespace CLI {
class App;
}

namespace kvmm::ctl {

inline constexpr int kExitOk = 0;
inline constexpr int kExitRefused = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitNoRuntime = 3;

struct TraceOptions {
  std::string events;   // names with commas between; "": all
  std::string session;  // its number; "": all
  std::string output;   // record into this file
  std::string input;    // read this file instead of a runtime
  bool past = false;    // begin with what the runtime still has
  bool fault = false;   // lives of faults instead of events
  std::string page;     // SESSION:PAGE, SESSION:PLANE/PAGE
  std::optional<uint64_t> count;
};

struct Options {
  bool json = false;
  std::string runtime;    // -p: pid, pid-n, name or socket; "" the only one
  std::string directory;  // --dir: look for sockets there only
  int timeout_ms = 5000;

  std::string path;                // of most commands
  std::vector<std::string> paths;  // get
  std::string value;               // set
  bool recursive = false;          // get
  bool details = false;            // ls
  std::string session;             // maps, smaps, pagemap: id or name, "" all
  std::string plane;               // pagemap
  size_t width = 0;                // pagemap; 0: what the terminal has
  bool every_line = false;         // pagemap
  std::string colour = "auto";     // pagemap, top
  bool rollup = false;             // smaps
  std::string bytes;               // swapon
  std::optional<int> priority;     // swapon
  std::string discard;             // swapon: on, off, "" the default
  bool check = false;              // restore
  bool foreground = false;         // mount
  bool lazy = false;               // umount
  std::string driver;              // swapon: a name, or a path of a shared object
  std::string driver_options;      // swapon
  bool once = false;               // top
  bool ascii = false;              // top
  std::string page = "sessions";   // top
  std::string sort = "resident";   // top
  double interval_s = 1;           // top
  uint64_t frames = 0;             // top; 0: until told to end
  TraceOptions trace;
  std::string listen;  // metrics: ADDRESS:PORT to serve them at
};

// A runtime that answered.
struct Runtime {
  Client client;
  Hello hello;
};

// Whether -p WANTED means this one.
bool is_meant(const Runtime& runtime, const std::string& wanted);

class Context {
 public:
  explicit Context(Options o) : options(std::move(o)) {}

  // Prints the error (and, with --json, an object {"error":...} to standard output); gives the
  // status that belongs to it.
  int fail(const Error& error) const;
  int fail(int status, const std::string& text) const;
  // Prints each line as an error; kExitRefused.
  int complain(const std::string& lines) const;
  int print(const std::string& text) const;
  int print(const nlohmann::ordered_json& json) const;

  // Every runtime there is, by pid. Sockets that are dead are passed over; `silent` gets those that
  // do not answer.
  std::vector<Runtime> runtimes(std::vector<std::string>* silent = nullptr) const;
  // The runtime that is meant. No value: `status` is what to exit with, the error has been printed.
  std::optional<Runtime> choose(int* status) const;

  // The same without a word.
  std::optional<Runtime> choose_silently() const;

  const Options options;

 private:
  std::optional<Runtime> open_path(const std::string& path, int* status) const;
};

// Where runtimes are mounted, in this mount namespace.
std::vector<std::string> mounted_directories();

// The commands, one function each.
int run_ps(const Context& context);
int run_top(const Context& context);
int run_ls(const Context& context);
int run_get(const Context& context);
int run_set(const Context& context);
int run_maps(const Context& context);
int run_smaps(const Context& context);
int run_pagemap(const Context& context);
int run_tiers(const Context& context);
int run_swap(const Context& context);
int run_doctor(const Context& context);
int run_topo(const Context& context);
int run_swapon(const Context& context);
int run_swapoff(const Context& context);
int run_save(const Context& context);
int run_restore(const Context& context);
int run_mount(const Context& context);
int run_umount(const Context& context);
int run_trace(const Context& context);
int run_metrics(const Context& context);
// Options of theirs that main.cc need not know.
void declare_trace(CLI::App& command, TraceOptions& options);
void declare_metrics(CLI::App& command, Options& options);

}  // namespace kvmm::ctl
