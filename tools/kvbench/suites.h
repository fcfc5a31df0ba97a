// SPDX-License-Identifier: Apache-2.0
//
// The benchmarks that kvbench has. A new one: a file with its figures and its run(), a line here, a
// line in benchmarks.cc.
#pragma once

#include "tools/kvbench/benchmark.h"

namespace kvmm::bench {

Benchmark fault_benchmark();     // fault.cc: what a fault costs that needs no disk
Benchmark swapin_benchmark();    // swapin.cc: page-in beside plain reads
Benchmark session_benchmark();   // session.cc: a session comes back, beside Linux swap and reads
Benchmark engine_benchmark();    // engine.cc: llama.cpp on kvmm beside llama.cpp
Benchmark control_benchmark();   // control.cc: what readers of attributes cost a faulting engine
Benchmark metadata_benchmark();  // metadata.cc: bytes of metadata a byte managed
Benchmark peers_benchmark();     // peers.cc: page-in beside other systems' disk tiers

}  // namespace kvmm::bench
