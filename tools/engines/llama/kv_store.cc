// SPDX-License-Identifier: Apache-2.0
#include "tools/engines/llama/kv_store.h"

#include <algorithm>
#include <limits>
#include <set>
#include <utility>

namespace kvmm::llama {
namespace {

constexpr std::uint64_t kTensorAlignment = std::uint64_t{2} << 20;
constexpr std::uint64_t kSmallestPage = 4096;

std::uint64_t round_up(std::uint64_t value, std::uint64_t to) {
  return (value + to - 1) / to * to;
}

// The layout in words, short enough for an option string. Counts and the shape of the largest
// tensor stand as they are; every tensor of the list goes into the hash (FNV-1a), so that any other
// shape differs.
std::string layout_text(const std::vector<TensorShape>& shapes) {
  std::uint64_t hash = 14695981039346656037u;
  const auto mix = [&hash](std::uint64_t value) {
    for (int i = 0; i < 8; ++i) {
      hash = (hash ^ ((value >> (8 * i)) & 0xff)) * 1099511628211u;
    }
  };
  for (const TensorShape& shape : shapes) {
    for (const char c : shape.name) {
      mix(static_cast<unsigned char>(c));
    }
    mix(static_cast<std::uint64_t>(shape.type));
    mix(shape.lanes);
    mix(shape.lane_stride);
    mix(shape.tokens);
    mix(shape.token_stride);
  }
  return "llama.cpp tensors=" + std::to_string(shapes.size()) +
         " type=" + std::to_string(shapes.front().type) +
         " token_bytes=" + std::to_string(shapes.front().token_stride) +
         " tokens=" + std::to_string(shapes.front().tokens) + " hash=" + std::to_string(hash);
}

}  // namespace

struct ArenaState {
  kvmm_arena* arena = nullptr;
  std::vector<kvmm_session*> sessions;  // one per lane, in lane order
  std::set<std::string> names;          // of its planes
  std::uint64_t lanes = 0;
  std::size_t allocations = 0;

  kvmm_status close() {
    kvmm_status first = KVMM_OK;
    for (auto it = sessions.rbegin(); it != sessions.rend(); ++it) {
      const kvmm_status status = kvmm_session_close(*it);
      first = first == KVMM_OK ? status : first;
    }
    sessions.clear();
    if (arena != nullptr && first == KVMM_OK) {
      first = kvmm_arena_destroy(arena);
    }
    arena = nullptr;
    return first;
  }
};

std::uint64_t plane_page_size(std::uint64_t wished, std::uint64_t lane_stride) {
  std::uint64_t size = wished == 0 ? kTensorAlignment : wished;
  while (size > kSmallestPage && lane_stride % size != 0) {
    size /= 2;
  }
  return size;
}

bool is_kv_list(const std::vector<TensorShape>& shapes) {
  if (shapes.empty()) {
    return false;
  }
  const std::uint64_t lanes = shapes.front().lanes;
  return lanes > 0 && lanes <= std::numeric_limits<std::uint32_t>::max() &&
         std::all_of(shapes.begin(), shapes.end(), [lanes](const TensorShape& shape) {
           return shape.name.rfind("cache_", 0) == 0 && shape.lanes == lanes &&
                  shape.lane_stride > 0 && shape.bytes / lanes == shape.lane_stride &&
                  shape.bytes % lanes == 0;
         });
}

kvmm_status KvStore::open_arena(const std::vector<TensorShape>& shapes,
                                std::shared_ptr<ArenaState>* out) {
  auto state = std::make_shared<ArenaState>();
  state->lanes = shapes.front().lanes;
  std::uint64_t tokens = 0;
  for (const TensorShape& shape : shapes) {
    tokens = std::max(tokens, shape.tokens);
  }
  const std::string name =
      arenas_made_ == 0 ? "llama" : "llama-" + std::to_string(arenas_made_ + 1);
  const std::string layout = layout_text(shapes);
  kvmm_arena_options options{};
  options.size = sizeof(options);
  options.name = name.c_str();
  options.model_id =
      config_.model_id && arenas_made_ == 0 ? config_.model_id->data() : nullptr;  // invariant 4
  options.layout = layout.c_str();
  options.lanes = static_cast<std::uint32_t>(state->lanes);
  options.lane_tokens = tokens;
  options.placement = KVMM_PLACE_STRIDED;
  options.engine = KVMM_ENGINE_FAULTING;
  const kvmm_status status = kvmm_arena_create(runtime_, &options, &state->arena);
  if (status != KVMM_OK) {
    return status;
  }
  ++arenas_made_;
  *out = std::move(state);
  return KVMM_OK;
}

kvmm_status KvStore::open_sessions(ArenaState* state) {
  for (std::uint64_t lane = 0; lane < state->lanes; ++lane) {
    const std::string slot = "slot-" + std::to_string(lane);
    kvmm_session_options session{};
    session.size = sizeof(session);
    session.name = slot.c_str();
    session.lane = static_cast<std::int64_t>(lane) + 1;
    session.kind = KVMM_SESSION_RAW;
    kvmm_session* opened = nullptr;
    const kvmm_status status = kvmm_session_open(state->arena, &session, &opened);
    if (status != KVMM_OK) {
      return status;
    }
    state->sessions.push_back(opened);
  }
  return KVMM_OK;
}

kvmm_status KvStore::add_planes(const std::vector<TensorShape>& shapes, Allocation* allocation) {
  std::uint64_t offset = 0;
  for (const TensorShape& shape : shapes) {
    kvmm_plane_options options{};
    options.size = sizeof(options);
    options.name = shape.name.c_str();
    options.base = allocation->base + offset;
    options.lane_stride = shape.lane_stride;
    options.token_stride = shape.token_stride;
    options.layers = 1;
    options.page_size = plane_page_size(config_.page_size, shape.lane_stride);
    Placement placement{shape, allocation->base + offset, 0};
    const kvmm_status status =
        kvmm_arena_add_plane(allocation->arena->arena, &options, &placement.plane);
    if (status != KVMM_OK) {
      return status;
    }
    allocation->placements.push_back(std::move(placement));
    offset += round_up(shape.bytes, kTensorAlignment);
  }
  return KVMM_OK;
}

kvmm_status KvStore::allocate(const std::vector<TensorShape>& shapes,
                              std::unique_ptr<Allocation>* out) {
  auto allocation = std::make_unique<Allocation>();
  for (const TensorShape& shape : shapes) {
    allocation->length += round_up(shape.bytes, kTensorAlignment);
  }
  const bool fits = arena_ != nullptr && arena_->arena != nullptr &&
                    arena_->lanes == shapes.front().lanes &&
                    std::none_of(shapes.begin(), shapes.end(), [this](const TensorShape& shape) {
                      return arena_->names.count(shape.name) > 0;
                    });
  std::shared_ptr<ArenaState> arena = arena_;
  if (!fits) {
    const kvmm_status status = open_arena(shapes, &arena);
    if (status != KVMM_OK) {
      error_ = kvmm_last_error();
      return status;
    }
  }
  allocation->arena = arena;
  void* base = nullptr;
  kvmm_status status = kvmm_arena_reserve(arena->arena, allocation->length, &base);
  if (status == KVMM_OK) {
    allocation->base = static_cast<std::byte*>(base);
    status = add_planes(shapes, allocation.get());
  }
  if (status == KVMM_OK && arena->sessions.empty()) {  // an arena needs a plane before a session
    status = open_sessions(arena.get());
  }
  if (status != KVMM_OK) {
    error_ = kvmm_last_error();  // before the undoing below has something to say
    // Planes cannot be taken out of an arena. One that was opened for this list goes; one with
    // other lists keeps the reserved addresses, which cost nothing, and is not used for another
    // list.
    if (arena->allocations == 0) {
      (void)arena->close();
    }
    if (arena_ == arena) {
      arena_.reset();
    }
    return status;
  }
  for (const TensorShape& shape : shapes) {
    arena->names.insert(shape.name);
  }
  ++arena->allocations;
  ++live_;
  arena_ = std::move(arena);
  *out = std::move(allocation);
  return KVMM_OK;
}

kvmm_status KvStore::release(std::unique_ptr<Allocation> allocation) {
  --live_;
  ArenaState& arena = *allocation->arena;
  if (--arena.allocations > 0) {
    return clear(*allocation, allocation->base, allocation->length);
  }
  if (arena_.get() == &arena) {
    arena_.reset();
  }
  return arena.close();
}

kvmm_status KvStore::clear(const Allocation& allocation, void* start, std::uint64_t length) {
  return kvmm_arena_clear(allocation.arena->arena, start, length);
}

std::uint64_t KvStore::session_id(const Allocation& allocation, std::uint32_t slot) {
  const auto& sessions = allocation.arena->sessions;
  return slot < sessions.size() ? kvmm_session_id(sessions[slot]) : 0;
}

}  // namespace kvmm::llama
