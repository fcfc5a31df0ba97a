// SPDX-License-Identifier: Apache-2.0
//
// Where the engine's KV cache lies: one kvmm arena per cache, one plane per tensor, one raw session
// per slot.
//
//   tensor cache_k_l5 [head bytes, tokens, slots]            arena "llama"
//   +--------+--------+--------+-- ... --+                   plane "cache_k_l5"
//   | slot 0 | slot 1 | slot 2 |         |   <- lane i at    session "slot-0", "slot-1", ...
//   +--------+--------+--------+-- ... --+      base + i * nb[2]
//
// llama.cpp allocates a model's cache in several lists (full attention, sliding window). Lists with
// the same number of slots and no tensor name twice go to the same arena, so that a slot is one
// session over all its layers; anything else starts another arena.
//
// Invariants
//   1. Every byte of every cache tensor lies in exactly one plane; gaps between tensors lie in
//   none.
//   2. A tensor starts on a 2 MiB boundary; its lanes are `lane_stride` apart, whether or not that
//   is a
//      multiple of a page.
//   3. Sessions of an arena are open from its first list until its last list is freed.
//   4. Only the first arena carries the caller's model id: a second model's KV must not pass for
//   the first's.
//
// Thread safety: none of its own. ggml allocates and frees caches from one thread at a time;
// `clear` may be called from any thread, since it only reads and kvmm_arena_clear is thread-safe.
#ifndef KVMM_TOOLS_ENGINES_LLAMA_KV_STORE_H_
#define KVMM_TOOLS_ENGINES_LLAMA_KV_STORE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kvmm/kvmm.h"
#include "tools/engines/llama/config.h"

namespace kvmm::llama {

// One cache tensor, as the engine describes it.
struct TensorShape {
  std::string name;            // "cache_k_l5"
  std::uint64_t bytes;         // of the whole tensor
  std::uint64_t lanes;         // slots
  std::uint64_t lane_stride;   // bytes from one slot to the next
  std::uint64_t tokens;        // of one slot
  std::uint64_t token_stride;  // bytes of one token
  int type;                    // ggml's number of the element type; part of the layout fingerprint
};

// Where a tensor was placed.
struct Placement {
  TensorShape shape;
  std::byte* address;
  std::uint32_t plane;
};

struct ArenaState;

// One list of tensors with its memory. Freed with KvStore::release.
struct Allocation {
  std::shared_ptr<ArenaState> arena;
  std::byte* base = nullptr;
  std::uint64_t length = 0;
  std::vector<Placement> placements;  // in the list's order
};

// The page size a plane gets: `wished` (0: 2 MiB), made smaller until it divides `lane_stride`, at
// least 4 KiB.
std::uint64_t plane_page_size(std::uint64_t wished, std::uint64_t lane_stride);

// True if one arena can hold the list: not empty, at least one lane, equal lanes, lanes that fill
// the tensor.
bool is_kv_list(const std::vector<TensorShape>& shapes);

class KvStore {
 public:
  KvStore(kvmm_runtime* runtime, const Config& config) : runtime_(runtime), config_(config) {}

  // Reserves addresses and lays the tensors into them. REQUIRES: is_kv_list(shapes).
  // Errors: what kvmm answers; everything done so far is undone, as far as kvmm allows.
  kvmm_status allocate(const std::vector<TensorShape>& shapes, std::unique_ptr<Allocation>* out);
  // What kvmm had to say about the last allocation that failed.
  const std::string& error() const { return error_; }
  // Ends the list's memory; with an arena's last list its sessions and the arena go too.
  kvmm_status release(std::unique_ptr<Allocation> allocation);
  // Makes [start, start + length) read as zeros. Cost is by pages that exist.
  static kvmm_status clear(const Allocation& allocation, void* start, std::uint64_t length);

  // kvmm's number of the session that shows `slot` of the list's arena; 0 if there is none.
  static std::uint64_t session_id(const Allocation& allocation, std::uint32_t slot);

  // Lists that are alive. The runtime must not be closed before there are none.
  std::size_t live() const { return live_; }

 private:
  kvmm_status open_arena(const std::vector<TensorShape>& shapes, std::shared_ptr<ArenaState>* out);
  static kvmm_status open_sessions(ArenaState* state);
  kvmm_status add_planes(const std::vector<TensorShape>& shapes, Allocation* allocation);

  kvmm_runtime* const runtime_;
  const Config config_;
  std::shared_ptr<ArenaState> arena_;  // the one that takes the next matching list
  std::size_t arenas_made_ = 0;
  std::size_t live_ = 0;
  std::string error_;
};

}  // namespace kvmm::llama

#endif  // KVMM_TOOLS_ENGINES_LLAMA_KV_STORE_H_
