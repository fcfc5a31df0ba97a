// SPDX-License-Identifier: Apache-2.0
#include "drivers/block_request.h"

#include <algorithm>

#include "runtime/base/check.h"

namespace kvmm {

Errc check_block_request(const BlockRequest& r, const BlockInfo& info) noexcept {
  if (r.op == BlockOp::kFlush) {
    return Errc::kOk;
  }
  const uint64_t capacity = info.capacity.value();
  const uint64_t mask = info.alignment.value() - 1;
  const uint64_t length = r.length.value();
  if (r.op == BlockOp::kGrow) {
    if (info.grows_to.value() == 0) {
      return Errc::kNotSupported;
    }
    if (length == 0 || ((r.offset | length) & mask) != 0 || r.offset > capacity) {
      return Errc::kInvalid;
    }
    const uint64_t room = std::max(info.grows_to.value(), r.offset) - r.offset;
    return length > room ? Errc::kNoSpace : Errc::kOk;
  }
  if (length == 0 || length > info.length_max.value() || ((r.offset | length) & mask) != 0) {
    return Errc::kInvalid;
  }
  if (r.offset > capacity || length > capacity - r.offset) {  // no sum: it could overflow
    return Errc::kInvalid;
  }
  if (r.op != BlockOp::kDiscard &&
      (r.data == nullptr || (reinterpret_cast<uintptr_t>(r.data) & mask) != 0)) {
    return Errc::kInvalid;
  }
  return Errc::kOk;
}

void finish_block_request(BlockRequest& r, Errc result, int os_error) noexcept {
  check(r.queue != nullptr, "a request names the queue that it returns to");
  r.result = result;
  r.os_error = os_error;
  r.queue->push(r);
}

}  // namespace kvmm
