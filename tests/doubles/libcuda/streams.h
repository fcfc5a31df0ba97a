// SPDX-License-Identifier: Apache-2.0
//
// The double's streams and events: queues whose operations run when they are stepped.
//
//   stream  [copy][copy][event 3][kernel] ...   step: the oldest runs, and only then reads its
//   bytes
//
// A copy is checked twice, as by the real driver: when it is queued (a bad address is refused with
// CUDA_ERROR_INVALID_VALUE) and when it runs (what was unmapped meanwhile is
// CUDA_ERROR_ILLEGAL_ADDRESS, and the context is lost: every later call fails).
//
// Thread safety: guarded by the caller's lock.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>

#include "tests/doubles/libcuda/device_memory.h"

namespace kvmm::cuda_double {

class Streams {
 public:
  // An operation of a stream: runs, and says how it went.
  using Work = std::function<CuResult()>;

  uint64_t create_stream();
  CuResult destroy_stream(uint64_t stream);  // the caller ran what was queued
  bool has_stream(uint64_t stream) const { return streams_.count(stream) != 0; }
  CuResult push(uint64_t stream, Work work);

  uint64_t create_event();
  CuResult destroy_event(uint64_t event);
  CuResult record(uint64_t event, uint64_t stream);
  CuResult query(uint64_t event) const;

  // The oldest operation of a stream, if any, taken out to be run by the caller.
  bool take(uint64_t stream, Work* work);
  // The same of the next stream in turn.
  bool take_any(Work* work);
  // The context is lost: nothing queued will run.
  void drop_all();

  uint64_t streams() const { return streams_.size(); }
  uint64_t events() const { return events_.size(); }

 private:
  struct Event {
    uint64_t recorded = 0;  // number of the last record, 0: never
    uint64_t reached = 0;   // number of the last record that a stream has passed
  };
  uint64_t next_ = 0x5000;  // opaque names, never used twice
  uint64_t turn_ = 0;       // the stream that ran last
  std::map<uint64_t, std::deque<Work>> streams_;
  std::map<uint64_t, Event> events_;
};

}  // namespace kvmm::cuda_double
