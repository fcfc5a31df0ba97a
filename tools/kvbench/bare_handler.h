// SPDX-License-Identifier: Apache-2.0
//
// What a fault costs without kvmm: a userfaultfd, a thread that waits for it, and one UFFDIO_MOVE
// of a frame that is ready. No page table, no session, nothing counted. The bound of the fault
// figures.
//
//   toucher --touch--> kernel --message--> handler: poll, read, UFFDIO_MOVE --wake--> toucher
//
// Most of it is waking a thread, and that depends on where it runs; so where both run is fixed.
//
// Thread safety: none.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kvmm::bench {

enum class Place { kSameCore, kOtherCore };

// Microseconds of single touches, `pages` of them in order. Empty: there is only one core. Throws
// Failure (77: no userfaultfd, no MOVE).
std::vector<double> bare_faults(uint64_t page_size, uint64_t pages, Place place);

// For the method of a figure: medians at both places.
std::string bare_faults_text(uint64_t page_size, uint64_t pages);

}  // namespace kvmm::bench
