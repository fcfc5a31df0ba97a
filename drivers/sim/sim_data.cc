// SPDX-License-Identifier: Apache-2.0
#include "drivers/sim/sim_data.h"

#include <xxhash.h>

#include <algorithm>
#include <cstring>

namespace kvmm {
namespace {

std::byte* at(FrameAddr a) {
  return reinterpret_cast<std::byte*>(a.value());
}

bool overlap(FrameAddr a, FrameAddr b, Bytes n) {
  return a < b + n && b < a + n;
}

Errc copy(FrameAddr from, FrameAddr to, Bytes n, FrameGuard& guard) {
  if (from.value() == 0 || overlap(from, to, n)) {
    return Errc::kInvalid;
  }
  guard.on_device_access(at(from), n, false, "copy from a mapped frame");
  guard.on_device_access(at(to), n, true, "copy to a mapped frame");
  std::memcpy(at(to), at(from), n.value());
  return Errc::kOk;
}

}  // namespace

Errc SimCopy::perform(CopyRequest& r) {
  if (r.length.value() == 0 || r.to.value() == 0) {
    return Errc::kInvalid;
  }
  return copy(r.from, r.to, r.length, guard_);
}

size_t SimCopy::submit(std::span<CopyRequest* const> requests) {
  return queue_.submit(requests, [this](CopyRequest& r) { return perform(r); });
}

void SimCopy::poll() {
  queue_.poll([this](CopyRequest& r) { return perform(r); });
}

Errc SimData::perform(DataRequest& r) {
  const uint64_t length = r.length.value();
  if (length == 0 || r.addr.value() == 0) {
    return Errc::kInvalid;
  }
  if (r.op == DataOp::kCopy) {
    return copy(r.from, r.addr, r.length, guard_);
  }
  if (r.op == DataOp::kChecksum) {
    const uint64_t piece = kPieceSize.value();
    if (r.digests.size() < (length + piece - 1) / piece) {
      return Errc::kInvalid;
    }
    guard_.on_device_access(at(r.addr), r.length, false, "checksum of a mapped frame");
    for (uint64_t done = 0; done < length; done += piece) {
      r.digests[done / piece] = XXH3_64bits(at(r.addr) + done, std::min(piece, length - done));
    }
    return Errc::kOk;
  }
  guard_.on_device_access(at(r.addr), r.length, true, "zeroing of a mapped frame");
  std::memset(at(r.addr), 0, length);
  return Errc::kOk;
}

size_t SimData::submit(std::span<DataRequest* const> requests) {
  return queue_.submit(requests, [this](DataRequest& r) { return perform(r); });
}

void SimData::poll() {
  queue_.poll([this](DataRequest& r) { return perform(r); });
}

}  // namespace kvmm
