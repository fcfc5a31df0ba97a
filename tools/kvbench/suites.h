// SPDX-License-Identifier: Apache-2.0
//
// The benchmarks that kvbench has. A new one: a file with its figures and its run(), a line here, a
// line in benchmarks.cc.
#pragma once

#include "tools/kvbench/benchmark.h"

namespace kvmm::bench {

Benchmark fault_benchmark();   // fault.cc: what a fault costs that needs no disk
Benchmark swapin_benchmark();  // swapin.cc: page-in beside plain reads
Benchmark engine_benchmark();  // engine.cc: llama.cpp on kvmm beside llama.cpp

}  // namespace kvmm::bench
