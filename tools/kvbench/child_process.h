// SPDX-License-Identifier: Apache-2.0
//
// Programs that kvbench runs and talks to by lines: the engine, the scripts of other systems.
//
// Thread safety: functions without state.
#pragma once

#include <sys/types.h>

#include <array>
#include <string>
#include <utility>
#include <vector>

namespace kvmm::bench {

// Runs `arguments` with these three descriptors and more environment. No terminal's Ctrl-C but ours
// reaches it; it is sent `signal_at_our_end` when the calling thread ends (0: nothing). Throws
// Failure.
pid_t run_child(const std::vector<std::string>& arguments,
                const std::vector<std::pair<std::string, std::string>>& environment,
                const std::array<int, 3>& descriptors, int signal_at_our_end);

// A file in memory without a name, for a log. Throws Failure.
int anonymous_file();
// All that is in it.
std::string text_of(int fd);
// [0] to read, [1] to write; not inherited. Throws Failure.
std::array<int, 2> make_pipe();

// The next line, without its end; what is read beyond it stays in `pending`. False: there is none.
bool read_line(int fd, std::string* pending, std::string* line);
// Says nothing of a reader that has gone: its answer will be missing.
void write_line(int fd, const std::string& line);

}  // namespace kvmm::bench
