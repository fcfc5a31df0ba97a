// SPDX-License-Identifier: Apache-2.0
//
// Where and of what a figure was measured: without these two it says nothing.
#pragma once

#include <string>

namespace kvmm::bench {

// "AMD EPYC 7B13, 2 cores, 23.5 GiB, Linux 6.1.0-13-amd64". A part that cannot be read is "unknown
// ...".
std::string machine_text();
// The commit of the tree when it was configured, with "-dirty" if it had changes.
std::string commit_text();
// Runnable threads of the last minute by cores; 0 if it cannot be read. Above 1 figures are off.
double load_per_core();

}  // namespace kvmm::bench
