// SPDX-License-Identifier: Apache-2.0
//
// The K/V rows of all sequences in kvmm memory, by the structured API: one plane per layer and
// side, one session per sequence.
//
//   KvmmStore --- runtime --- arena (model_id from the model's seed) --- planes k_l0 v_l0 ... k_l3
//   v_l3
//        \--- sequence i: session i, a KvmmView over its eight addresses
//
// A row is touched in two ways, by the kind of engine. Faulting: by a guarded copy, any time;
// SIGBUS means that the content is gone. Pinning: by a plain copy, and only under a pin; a row
// outside its pins is a bug of the engine that this store does not hide.
//
// Ownership: the store owns runtime, arena and sessions; views point into it.
// Thread safety: a view belongs to whoever runs its sequence; the rest is as thread-safe as kvmm.h.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "kvmm/kvmm.hpp"
#include "tools/engines/tiny/model.h"
#include "tools/engines/tiny/stream.h"

namespace tiny {

enum class EngineKind { kFaulting, kPinning };

struct KvmmStoreOptions {
  EngineKind kind = EngineKind::kFaulting;
  uint64_t seed = 1;            // names the model: becomes the arena's model_id
  uint32_t sessions = 4;        // lanes of the arena, all opened at once
  uint64_t lane_tokens = 1024;  // rounded up to whole pages by the library
  uint64_t page_size = 4096;    // bytes; power of two
  uint64_t dram_bytes = 0;      // 0: the library's default
  std::string swap_path;        // "": no swap
  uint64_t swap_bytes = 0;      // 0: the library's default
  std::string frames;           // "movable", "shareable", "": the library's default
  uint32_t flags = KVMM_RUNTIME_NO_CONTROL;
};

// The rows of one session. See KvView.
class KvmmView : public KvView {
 public:
  KvmmView(EngineKind kind, std::array<char*, kPlanes> base) : kind_(kind), base_(base) {}

  Access read(uint32_t plane, uint64_t token, Row* row) override;
  Access write(uint32_t plane, uint64_t token, const Row& row) override;

  // While set, `write` first reads and leaves a row alone that already has its value. A page is
  // lost in one plane at a time: when tokens are computed again, the rows of the other planes are
  // in sealed pages, which must not be written, and hold just these values.
  void set_only_differences(bool on) { only_differences_ = on; }

  char* address(uint32_t plane, uint64_t token) { return base_[plane] + token * kRowBytes; }

 private:
  Access copy(void* to, const void* from);

  EngineKind kind_;
  bool only_differences_ = false;
  std::array<char*, kPlanes> base_;  // address of token 0 in each plane
};

class KvmmStore {
 public:
  // Errors as kvmm_runtime_open, kvmm_arena_create, kvmm_arena_add_plane, kvmm_session_open.
  static kvmmpp::Result<std::unique_ptr<KvmmStore>> open(const KvmmStoreOptions& options);

  const KvmmStoreOptions& options() const { return options_; }
  uint64_t page_tokens() const { return options_.page_size / kRowBytes; }
  kvmmpp::Runtime& runtime() { return runtime_; }
  kvmmpp::Session& session(uint32_t i) { return sessions_[i]; }
  KvmmView& view(uint32_t i) { return views_[i]; }
  // The device of a pinning engine. Here, because kvmm may ask a fence until the runtime is closed.
  // REQUIRES: kind is kPinning.
  Stream& stream() { return *stream_; }
  // Counters of all sessions added up.
  kvmmpp::Result<kvmm_session_stat> stats() const;
  // Closes sessions, arena and runtime, in that order, and says if one refuses.
  kvmmpp::Status close();

 private:
  explicit KvmmStore(const KvmmStoreOptions& options) : options_(options) {}
  kvmmpp::Status start();

  const KvmmStoreOptions options_;
  std::vector<KvmmView> views_;
  // Destroyed from the last to the first: sessions, arena, runtime, stream.
  std::unique_ptr<Stream> stream_;
  kvmmpp::Runtime runtime_;
  kvmmpp::Arena arena_;
  std::vector<kvmmpp::Session> sessions_;
};

}  // namespace tiny
