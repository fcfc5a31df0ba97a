// SPDX-License-Identifier: Apache-2.0
//
// The texts that tools read: page maps, statistics, notices. They are copied from the core in
// bounded pieces by queries (runtime/core.h) and formatted here, on the reader's thread.
#pragma once

#include <string>

#include "runtime/base/result.h"
#include "sched/mm.h"

namespace kvmm {

class Core;
class TierTable;

std::string notice_text(const MmNotice& n);
std::string stats_text(const MmStats& s);
// Locks that the calling thread has taken, "name count" a line.
std::string locks_text();
// "name count N sum NS max NS le NS:N NS:N ..." a line; only buckets that are not empty.
std::string latency_text(const MmStats& s);
// One line a VMA: "start-end perms page_size plane object pages=N resident=N swapped=N".
// Errors: kNotFound (the session has gone).
Result<std::string> maps_text(Core& core, uint64_t session);
// Per plane a head line and one character a page: . r R < > S X P
Result<std::string> pagemap_text(Core& core, uint64_t session);
// Per VMA a head line as in maps without counts, then "name bytes" lines; see
// docs/abi/sessions.md.
Result<std::string> smaps_text(Core& core, const TierTable& tiers, uint64_t session);
// "name value" a line.
Result<std::string> session_stat_text(Core& core, uint64_t session);

}  // namespace kvmm
