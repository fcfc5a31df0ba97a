// SPDX-License-Identifier: Apache-2.0
#include "tests/doubles/libcuda/streams.h"

#include <algorithm>
#include <utility>

namespace kvmm::cuda_double {

uint64_t Streams::create_stream() {
  next_ += 0x10;
  streams_[next_];
  return next_;
}

CuResult Streams::destroy_stream(uint64_t stream) {
  return streams_.erase(stream) == 1 ? CuResult::kSuccess : CuResult::kInvalidHandle;
}

CuResult Streams::push(uint64_t stream, Work work) {
  const auto it = streams_.find(stream);
  if (it == streams_.end()) {
    return CuResult::kInvalidHandle;
  }
  it->second.push_back(std::move(work));
  return CuResult::kSuccess;
}

uint64_t Streams::create_event() {
  next_ += 0x10;
  events_[next_];
  return next_;
}

CuResult Streams::destroy_event(uint64_t event) {
  return events_.erase(event) == 1 ? CuResult::kSuccess : CuResult::kInvalidHandle;
}

CuResult Streams::record(uint64_t event, uint64_t stream) {
  const auto it = events_.find(event);
  if (it == events_.end()) {
    return CuResult::kInvalidHandle;
  }
  const uint64_t number = it->second.recorded + 1;
  const CuResult r = push(stream, [this, event, number] {
    if (const auto e = events_.find(event); e != events_.end()) {
      e->second.reached = std::max(e->second.reached, number);
    }
    return CuResult::kSuccess;
  });
  if (r == CuResult::kSuccess) {
    it->second.recorded = number;
  }
  return r;
}

CuResult Streams::query(uint64_t event) const {
  const auto it = events_.find(event);
  if (it == events_.end()) {
    return CuResult::kInvalidHandle;
  }
  return it->second.reached == it->second.recorded ? CuResult::kSuccess : CuResult::kNotReady;
}

bool Streams::take(uint64_t stream, Work* work) {
  const auto it = streams_.find(stream);
  if (it == streams_.end() || it->second.empty()) {
    return false;
  }
  *work = std::move(it->second.front());
  it->second.pop_front();
  turn_ = stream;
  return true;
}

bool Streams::take_any(Work* work) {
  auto it = streams_.upper_bound(turn_);
  for (size_t i = 0; i < streams_.size(); ++i, ++it) {
    if (it == streams_.end()) {
      it = streams_.begin();
    }
    if (take(it->first, work)) {
      return true;
    }
  }
  return false;
}

void Streams::drop_all() {
  for (auto& [name, queue] : streams_) {
    queue.clear();
  }
}

}  // namespace kvmm::cuda_double
