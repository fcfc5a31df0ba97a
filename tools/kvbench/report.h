// SPDX-License-Identifier: Apache-2.0
//
// How figures are shown: a table for people, JSON for tools.
//
//   {"figure","value","low","high","n","unit","target","met","method","machine","commit"}
//
// `target` is a text such as "<= 25"; `met` compares `value` with it, not the interval.
#pragma once

#include <string>
#include <vector>

#include "tools/kvbench/benchmark.h"

namespace kvmm::bench {

// Every benchmark with its figures; each ends with a newline.
std::string list_text();
std::string list_json();

std::string table_text(const std::vector<Measured>& figures);
std::string table_json(const std::vector<Measured>& figures);

}  // namespace kvmm::bench
