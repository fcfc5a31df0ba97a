// SPDX-License-Identifier: Apache-2.0
//
// Copies that survive SIGBUS: how a faulting engine learns that a page's content is gone.
//
// kvmm never shows wrong bytes. A faulting engine that touches a page which cannot be brought back
// gets SIGBUS instead; inside `guarded_copy` that becomes an answer, and the engine computes the
// page again. A SIGBUS anywhere else ends the process as it would without us.
//
// Thread safety: install once before the first copy; copies on any thread.
#pragma once

#include <cstddef>

namespace tiny {

// Takes over SIGBUS for the process. The handler that was there before gets every signal which does
// not come out of a guarded copy. Calling it again does nothing.
void install_bus_guard();

// memcpy of `n` bytes; false if touching `to` or `from` raised SIGBUS (then `to` may be written in
// part).
bool guarded_copy(void* to, const void* from, size_t n);

}  // namespace tiny
