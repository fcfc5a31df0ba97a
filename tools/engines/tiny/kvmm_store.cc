// SPDX-License-Identifier: Apache-2.0
#include "tools/engines/tiny/kvmm_store.h"

#include <cstring>

#include "tools/engines/tiny/bus_guard.h"
#include "tools/engines/tiny/kv_store.h"

namespace tiny {

using kvmmpp::Result;
using kvmmpp::Status;

Access KvmmView::copy(void* to, const void* from) {
  if (kind_ == EngineKind::kPinning) {
    std::memcpy(to, from, kRowBytes);
    return Access::kOk;
  }
  return guarded_copy(to, from, kRowBytes) ? Access::kOk : Access::kGone;
}

Access KvmmView::read(uint32_t plane, uint64_t token, Row* row) {
  return copy(row->data(), address(plane, token));
}

Access KvmmView::write(uint32_t plane, uint64_t token, const Row& row) {
  if (only_differences_) {
    Row have;
    if (Access a = read(plane, token, &have); a != Access::kOk)
      return a;
    if (have == row)
      return Access::kOk;
  }
  return copy(address(plane, token), row.data());
}

Result<std::unique_ptr<KvmmStore>> KvmmStore::open(const KvmmStoreOptions& options) {
  std::unique_ptr<KvmmStore> store(new KvmmStore(options));
  if (Status status = store->start(); !status.ok())
    return status;
  return store;
}

Status KvmmStore::start() {
  if (options_.kind == EngineKind::kFaulting)
    install_bus_guard();
  if (options_.kind == EngineKind::kPinning)
    stream_ = std::make_unique<Stream>();

  auto runtime_options = kvmmpp::init<kvmm_runtime_options>();
  runtime_options.name = "kvmm-tiny";
  runtime_options.dram_bytes = options_.dram_bytes;
  runtime_options.swap_path = options_.swap_path.empty() ? nullptr : options_.swap_path.c_str();
  runtime_options.swap_bytes = options_.swap_bytes;
  runtime_options.frames = options_.frames.empty() ? nullptr : options_.frames.c_str();
  runtime_options.flags = options_.flags;
  auto runtime = kvmmpp::Runtime::open(runtime_options);
  if (!runtime)
    return runtime.status();
  runtime_ = *std::move(runtime);

  // Equal seeds are equal weights: the id is the seed, spread over 32 bytes.
  std::array<uint8_t, 32> model_id;
  for (uint32_t i = 0; i < 4; ++i) {
    const uint64_t word = mix64(options_.seed + (uint64_t{i} << 56));
    std::memcpy(model_id.data() + 8 * i, &word, sizeof(word));
  }
  auto arena_options = kvmmpp::init<kvmm_arena_options>();
  arena_options.name = "tiny";
  arena_options.model_id = model_id.data();
  arena_options.layout = "int16 kv_heads=2 head_size=32 layers=4 positions=added";
  arena_options.lanes = options_.sessions;
  arena_options.lane_tokens = options_.lane_tokens;
  arena_options.placement = KVMM_PLACE_STRIDED;
  arena_options.engine =
      options_.kind == EngineKind::kPinning ? KVMM_ENGINE_PINNING : KVMM_ENGINE_FAULTING;
  auto arena = kvmmpp::Arena::create(runtime_, arena_options);
  if (!arena)
    return arena.status();
  arena_ = *std::move(arena);

  for (uint32_t p = 0; p < kPlanes; ++p) {
    const std::string name = plane_name(p);
    auto plane_options = kvmmpp::init<kvmm_plane_options>();
    plane_options.name = name.c_str();
    plane_options.token_stride = kRowBytes;
    plane_options.page_size = options_.page_size;
    auto plane = arena_.add_plane(plane_options);
    if (!plane)
      return plane.status();
    if (*plane != p)
      return Status::failure(KVMM_EINVALID, "planes are not numbered in order");
  }

  for (uint32_t i = 0; i < options_.sessions; ++i) {
    const std::string name = "tiny-" + std::to_string(i);
    auto session_options = kvmmpp::init<kvmm_session_options>();
    session_options.name = name.c_str();
    session_options.kind = KVMM_SESSION_STRUCTURED;
    auto session = kvmmpp::Session::open(arena_, session_options);
    if (!session)
      return session.status();
    std::array<char*, kPlanes> base;
    for (uint32_t p = 0; p < kPlanes; ++p) {
      auto address = session->address(p);
      if (!address)
        return address.status();
      base[p] = static_cast<char*>(*address);
    }
    sessions_.push_back(*std::move(session));
    views_.emplace_back(options_.kind, base);
  }
  return Status();
}

Result<kvmm_session_stat> KvmmStore::stats() const {
  auto sum = kvmmpp::init<kvmm_session_stat>();
  for (const kvmmpp::Session& session : sessions_) {
    auto stat = session.stats();
    if (!stat)
      return stat.status();
    sum.tokens += stat->tokens;
    sum.bytes_resident += stat->bytes_resident;
    sum.bytes_swapped += stat->bytes_swapped;
    sum.bytes_discarded += stat->bytes_discarded;
    sum.faults_zero += stat->faults_zero;
    sum.faults_minor += stat->faults_minor;
    sum.faults_major += stat->faults_major;
    sum.swap_in_bytes += stat->swap_in_bytes;
    sum.swap_out_bytes += stat->swap_out_bytes;
    sum.clean_drops += stat->clean_drops;
    sum.wrong_pages += stat->wrong_pages;
    sum.seal_violations += stat->seal_violations;
    sum.pages_poisoned += stat->pages_poisoned;
  }
  return sum;
}

Status KvmmStore::close() {
  for (kvmmpp::Session& session : sessions_) {
    if (Status status = session.close(); !status.ok())
      return status;
  }
  if (Status status = arena_.close(); !status.ok())
    return status;
  return runtime_.close();
}

}  // namespace tiny
