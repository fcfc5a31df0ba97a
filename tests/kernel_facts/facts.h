// SPDX-License-Identifier: Apache-2.0
//
// The facts that are tried by tests only: they take longer, lock memory, fork, or start threads.
// What each of them is made of is in tools/kvctl/fact.h, which has the cheap ones.
//
// Thread safety: run one at a time.
#pragma once

#include <span>

#include "tools/kvctl/fact.h"

namespace kvmm::facts {

std::span<const Fact> move_facts();
std::span<const Fact> memory_facts();
std::span<const Fact> uring_facts();

}  // namespace kvmm::facts
