// SPDX-License-Identifier: Apache-2.0
//
// What `kvctl doctor` looks at, one line each.
//
//   verdict  means                                             exit status
//   ok       as it should be                                   0
//   warn     works, slower or with less                        0
//   bad      a runtime of the usual kind will not open here    1
//   none     there is no such part in this machine             0
//
// Every line that is warn or bad says what mends it. Nothing is changed: what is tried (memory, a
// ring, an unnamed file) is gone when the line is there.
//
// Thread safety: one thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kvmm::ctl {

enum class Health : uint8_t { kOk, kWarn, kBad, kNone };
const char* health_name(Health health);

struct Check {
  std::string name;
  Health health = Health::kOk;
  std::string found;
  std::string mend;  // a command, or what to do; "" where nothing needs it
};

// Where the files of the kernel are: "" but in tests.
struct Machine {
  std::string root;
  std::string folder;  // a folder on the disk that swap files will lie on
};

void check_kernel(const Machine& machine, std::vector<Check>* out);      // version, faults, facts
void check_limits(const Machine& machine, std::vector<Check>* out);      // ulimit, sysctl
void check_disk(const Machine& machine, std::vector<Check>* out);        // O_DIRECT, space
void check_processors(const Machine& machine, std::vector<Check>* out);  // NUMA, CUDA
void check_control(const Machine& machine, std::vector<Check>* out);     // the sockets' directory

}  // namespace kvmm::ctl
