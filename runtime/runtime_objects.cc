// SPDX-License-Identifier: Apache-2.0
//
// Arenas and sessions of a runtime: how they come and go.
#include <algorithm>
#include <cstring>
#include <utility>

#include "runtime/base/random.h"
#include "runtime/runtime.h"

namespace kvmm {
namespace {

constexpr uint64_t kAddressesMax = uint64_t{1} << 46;  // 64 TiB, half of what a process has

Error too_large(const std::string& plane) {
  return Error(Errc::kRange, "plane '" + plane + "': all lanes together are more than 64 TiB");
}

}  // namespace
// ------------------------------------------------------------------------------------ arenas

Result<Arena*> Runtime::create_arena(ArenaSpec spec) {
  if (spec.engine == EngineKind::kFaulting && config_.frames == "pinonly") {
    return Error(Errc::kNotSupported,
                 "the runtime is KVMM_RUNTIME_PIN_ONLY, where a touch of an absent page is a "
                 "SIGSEGV: set kvmm_arena_options.engine to KVMM_ENGINE_PINNING");
  }
  MutexLock l(lock_);
  spec.id = next_id_++;
  if (spec.name.empty()) {
    spec.name = "arena-" + std::to_string(spec.id);
  }
  if (spec.model_is_random) {
    Random random(platform_.seed ^ spec.id);
    for (uint8_t& b : spec.model_id) {
      b = static_cast<uint8_t>(random());
    }
  } else if (!config_.swap_volatile) {
    // Swap areas in use are dedicated to the first model: pages of another one stay out.
    MutexLock core(core_->lock());
    for (const auto& area : core_->swap().areas()) {
      const ModelId& dedicated = area->model_id();
      if (dedicated != ModelId{} && dedicated != spec.model_id) {
        return Error(Errc::kModelMismatch,
                     "swap area " + area->config().path +
                         " belongs to another model; use another file for this one");
      }
    }
  }
  auto arena = Arena::create(std::move(spec), *memory_->mmu());
  if (!arena) {
    return arena.error();
  }
  Arena* a = arena->get();
  arenas_.emplace(a->spec.id, std::move(*arena));
  return a;
}

Result<void> Runtime::destroy_arena(Arena& arena) {
  std::unique_ptr<Arena> gone;
  {
    MutexLock l(lock_);
    if (arena.open_spaces != 0) {
      return Error(Errc::kBusy, "sessions of the arena are open");
    }
    auto it = arenas_.find(arena.spec.id);
    gone = std::move(it->second);
    arenas_.erase(it);
  }
  MutexLock core(core_->lock());  // guards the device's table of ranges
  for (const AddressRange& r : gone->ranges) {
    gone->mmu->release(r);
  }
  return {};
}

Result<AddressRange> Runtime::reserve(Arena& arena, Bytes length) {
  if (arena.spec.placement != Placement::kStrided || length.value() == 0) {
    return Error(Errc::kInvalid, "a range is reserved in a strided arena, and is not empty");
  }
  MutexLock l(lock_);
  Result<AddressRange> range = [&] {
    MutexLock core(core_->lock());  // guards the device's table of ranges
    return arena.mmu->reserve(Bytes(round_up(length.value(), kPageSizeMax.value())), kPageSizeMax,
                              kPageSizeMax);
  }();
  if (!range) {
    return range.error();
  }
  arena.ranges.push_back(*range);
  return *range;
}

Result<uint32_t> Runtime::add_plane(Arena& arena, PlaneSpec plane) {
  if (plane.lane_stride.value() == 0 && plane.token_stride.value() != 0) {
    const uint64_t tokens = std::max<uint64_t>(1, arena.spec.lane_tokens);
    const uint64_t bytes = plane.token_stride.value() * tokens;
    if (bytes / tokens != plane.token_stride.value() || bytes > kAddressesMax) {
      return too_large(plane.name);
    }
    plane.lane_stride = Bytes(round_up(bytes, bytes >= kMiB ? kPageSizeMax.value() : 64 * kKiB));
  }
  if (plane.lane_stride.value() == 0) {
    return Error(Errc::kInvalid,
                 "plane '" + plane.name + "': lane_stride or token_stride is needed");
  }
  if (plane.lane_stride.value() > kAddressesMax / arena.spec.lanes) {
    return too_large(plane.name);
  }
  const bool reserves = arena.spec.placement == Placement::kStrided && plane.base.value() == 0;
  if (reserves) {
    const uint64_t all = plane.lane_stride.value() * arena.spec.lanes;
    auto range = reserve(arena, Bytes(all));
    if (!range) {
      return range.error();
    }
    plane.base = range->start;
  }
  const VirtAddr base = plane.base;
  MutexLock l(lock_);
  auto number = place_plane(arena, std::move(plane));
  if (!number && reserves) {  // nobody knows of these addresses
    auto range = std::find_if(arena.ranges.begin(), arena.ranges.end(),
                              [&](const AddressRange& r) { return r.start == base; });
    MutexLock core(core_->lock());
    arena.mmu->release(*range);
    arena.ranges.erase(range);
  }
  return number;
}

Result<uint32_t> Runtime::place_plane(Arena& arena, PlaneSpec plane) {
  const bool contiguous = arena.spec.placement == Placement::kContiguous;
  const Bytes granule = tiers_->fastest().mmu().info().granule;
  if (contiguous && arena.open_spaces != 0) {
    return Error(Errc::kBusy, "planes of a contiguous arena are added before its sessions");
  }
  if (plane.page_size.value() == 0) {
    plane.page_size = std::min(page_size_for(plane.lane_stride, plane.base),
                               tiers_->fastest().pool().config().block_size);
  }
  if (!is_page_size(plane.page_size) || plane.page_size < granule ||
      plane.page_size > tiers_->fastest().pool().config().block_size) {
    return Error(Errc::kInvalid, "plane '" + plane.name +
                                     "': page_size must be a power of two from 4 KiB to 2 MiB");
  }
  if (contiguous) {
    plane.lane_stride = Bytes(round_up(plane.lane_stride.value(), plane.page_size.value()));
  }
  if (auto ok = arena.check_plane(plane); !ok) {
    return ok.error();
  }
  for (const AddressSpace* s : arena.lanes) {
    if (s != nullptr && !s->raw()) {
      if (auto ok = arena.check_structured(plane); !ok) {
        return ok.error();
      }
    }
  }
  const auto number = static_cast<uint32_t>(arena.planes.size());
  MutexLock core(core_->lock());  // the core reads the planes of sessions
  arena.planes.push_back(std::move(plane));
  std::vector<AddressSpace*> have;
  for (AddressSpace* s : arena.lanes) {
    if (s == nullptr) {
      continue;
    }
    if (auto ok = s->add_plane(number, next_object_++); !ok) {
      for (AddressSpace* undone : have) {
        undone->drop_last_plane();
      }
      arena.planes.pop_back();
      return ok.error();
    }
    have.push_back(s);
  }
  for (AddressSpace* s : have) {
    core_->mm().welcome(*s->planes()[number].vma);
  }
  return number;
}

Result<void> Runtime::clear(Arena& arena, AddressRange range) {
  {
    MutexLock l(lock_);
    const AddressRange* in = arena.range_of(range.start);
    if (in == nullptr || range.end() > in->end() || range.end() < range.start) {
      return Error(Errc::kRange, "the range is not inside one of the arena's");
    }
  }
  // Edges: pages that the range covers in part, if they have content.
  struct Edge {
    uint64_t from = 0, to = 0;
  };
  std::vector<Edge> edges;
  PinBatch pins;  // of them, if the engine has no faults: taken first, so that a refusal is one of
                  // everything
  if (range.length.value() != 0) {
    MutexLock core(core_->lock());
    AddressMap& map = core_->map();
    for (const VirtAddr at : {range.start, range.end()}) {
      Vma* v = map.find(at);
      if (v == nullptr || (at - v->start).value() % v->page_size.value() == 0) {
        continue;
      }
      const uint32_t index = v->page_at(at);
      if (v->object->page(index).place == Place::kNone) {
        continue;
      }
      const uint64_t page = v->address_of(index).value();
      const Edge e{std::max(page, range.start.value()),
                   std::min(page + v->page_size.value(), range.end().value())};
      if (!edges.empty() && edges.back().from == e.from) {
        continue;
      }
      edges.push_back(e);
      if (arena.spec.engine == EngineKind::kPinning) {
        PinRange& r = pins.ranges.emplace_back();
        r.space = v->space;
        r.write = true;
        r.spans.push_back({v->object, index, index + 1});
      }
    }
    if (auto ok = pin_edges(pins); !ok) {
      return ok;
    }
  }
  auto ok = run_job([&](Mm& mm, MmJob& job) { return mm.clear_range(range, job); });
  for (size_t i = 0; ok && i < edges.size(); ++i) {  // like any write of the engine: it may fault
    std::memset(reinterpret_cast<void*>(edges[i].from), 0, edges[i].to - edges[i].from);
  }
  if (pins.pinned) {
    MutexLock core(core_->lock());
    check(core_->mm().unpin(pins, Fence{}).ok(), "a pin without a fence ends");
    core_->step();
  }
  return ok;
}

Result<void> Runtime::pin_edges(PinBatch& pins) {
  if (pins.ranges.empty()) {
    return {};
  }
  if (auto ok = core_->mm().pin(pins, core_->now()); !ok) {
    return ok.code() == Errc::kSealed ? Error(Errc::kSealed, "the range ends inside a sealed page")
                                      : ok.error();
  }
  core_->wait_until([&] {
    core_->lock().assert_held();
    core_->mm().pin_poll(pins);
    return std::none_of(pins.ranges.begin(), pins.ranges.end(),
                        [](const PinRange& r) { return r.answer == PinAnswer::kComing; });
  });
  for (const PinRange& r : pins.ranges) {
    if (r.answer != PinAnswer::kReady) {
      const Error why = r.answer == PinAnswer::kRecompute
                            ? Error(Errc::kRecompute,
                                    "the range ends inside a page whose content is gone: clear "
                                    "all of the page")
                            : Error(Errc::kNoMemory, "no frame for a page that the range ends in");
      check(core_->mm().unpin(pins, Fence{}).ok(), "a pin without a fence ends");
      core_->step();
      return why;
    }
  }
  return {};
}

// ------------------------------------------------------------------------------------ sessions

uint32_t Runtime::tenant_number(const std::string& name) {
  const auto number = static_cast<uint32_t>(tenants_.size() + 1);
  return tenants_.emplace(name, number).first->second;
}

Result<AddressSpace*> Runtime::open_session(Arena& arena, SpaceSpec spec, int64_t lane) {
  MutexLock l(lock_);
  if (arena.planes.empty()) {
    return Error(Errc::kInvalid, "the arena has no plane yet: kvmm_arena_add_plane first");
  }
  if (lane < 0) {
    auto free = std::find(arena.lanes.begin(), arena.lanes.end(), nullptr);
    if (free == arena.lanes.end()) {
      return Error(Errc::kLimit, "all " + std::to_string(arena.lanes.size()) + " lanes are taken");
    }
    lane = free - arena.lanes.begin();
  }
  if (static_cast<size_t>(lane) >= arena.lanes.size()) {
    return Error(Errc::kInvalid, "the arena has " + std::to_string(arena.lanes.size()) + " lanes");
  }
  if (arena.lanes[static_cast<size_t>(lane)] != nullptr) {
    return Error(Errc::kExists, "lane " + std::to_string(lane) + " is taken");
  }
  if (spec.kind != ObjectKind::kRaw) {
    for (const PlaneSpec& p : arena.planes) {
      if (auto ok = arena.check_structured(p); !ok) {
        return ok.error();
      }
    }
  }
  spec.id = next_id_++;
  spec.lane = static_cast<uint32_t>(lane);
  if (spec.name.empty()) {
    spec.name = "session-" + std::to_string(spec.id);
  }
  if (spec.sharing_domain.empty()) {
    spec.sharing_domain = spec.tenant;
  }
  spec.tenant_number = tenant_number(spec.tenant);
  AddressRange own{};
  MutexLock core(core_->lock());
  if (arena.spec.placement == Placement::kContiguous) {
    uint64_t bytes = 0;
    for (const PlaneSpec& p : arena.planes) {
      bytes += round_up(p.lane_stride.value(), kPageSizeMax.value());
    }
    auto range = arena.mmu->reserve(Bytes(bytes), kPageSizeMax, kPageSizeMax);
    if (!range) {
      return range.error();
    }
    own = *range;
  }
  auto space = std::make_unique<AddressSpace>(arena, core_->map(), std::move(spec));
  uint64_t offset = 0;
  for (uint32_t i = 0; i < arena.planes.size(); ++i) {
    auto ok = arena.spec.placement == Placement::kContiguous
                  ? space->add_plane_at(i, next_object_++, own.start + Bytes(offset))
                  : space->add_plane(i, next_object_++);
    offset += round_up(arena.planes[i].lane_stride.value(), kPageSizeMax.value());
    if (!ok) {
      space.reset();
      if (own.length.value() != 0) {
        arena.mmu->release(own);
      }
      return ok.error();
    }
  }
  space->own_range = own;
  AddressSpace* s = space.get();
  arena.lanes[static_cast<size_t>(lane)] = s;
  ++arena.open_spaces;
  core_->mm().attach(*s, core_->now());
  core_->called_from_here(*s);
  sessions_.emplace(s->id(), std::move(space));
  return s;
}

Result<void> Runtime::close_session(AddressSpace& space) {
  {
    MutexLock core(core_->lock());
    MmJob job;
    while (true) {
      auto r = core_->mm().detach_begin(space, job);
      if (r) {
        break;
      }
      if (r.code() != Errc::kAgain) {
        return r;
      }
      core_->wait_until([&] { return space.doom_job == nullptr && space.clean_job == nullptr; });
    }
    core_->wait_until([&] { return job.done(); });
    core_->mm().detach_end(space);
  }
  std::unique_ptr<AddressSpace> gone;
  AddressRange own{};
  Arena& arena = space.arena();
  {
    MutexLock l(lock_);
    auto it = sessions_.find(space.id());
    gone = std::move(it->second);
    sessions_.erase(it);
    MutexLock core(core_->lock());
    arena.lanes[gone->spec().lane] = nullptr;
    --arena.open_spaces;
    own = gone->own_range;
    gone.reset();  // takes its VMAs out of the address map
    if (own.length.value() != 0) {
      arena.mmu->release(own);
    }
    core_->step();  // who waits to clear a range that this session was in looks again
  }
  return {};
}

Result<void> Runtime::run_job(const std::function<Result<void>(Mm&, MmJob&)>& begin) {
  MutexLock core(core_->lock());
  MmJob job;
  while (true) {
    auto r = begin(core_->mm(), job);
    if (r) {
      break;
    }
    if (r.code() != Errc::kAgain) {
      return r;
    }
    bool stepped = false;  // another call's job is running: after the next step again
    core_->wait_until([&] { return std::exchange(stepped, true); });
  }
  core_->wait_until([&] { return job.done(); });
  core_->mm().end_job(job);
  core_->step();  // who waits for the end of this job looks again
  return job.result;
}

Result<uint64_t> Runtime::sync(AddressSpace& space) {
  {
    MutexLock core(core_->lock());
    if (core_->swap().empty()) {
      return Error(Errc::kNoSpace, "no swap area: kvmm_swapon first");
    }
  }
  auto cleaned = run_job([&](Mm& mm, MmJob& job) -> Result<void> {
    if (space.clean_job != nullptr) {
      return Errc::kAgain;
    }
    mm.clean(space, job);
    return {};
  });
  if (!cleaned) {
    return cleaned.error();
  }
  {
    MutexLock core(core_->lock());
    Mm::FlushJob flush;
    core_->mm().flush(flush);
    core_->wait_until([&] { return flush.done; });
    if (flush.result != Errc::kOk) {
      return flush.result;
    }
  }
  MutexLock l(lock_);
  return ++sync_sequence_;
}

// ------------------------------------------------------------------------------------ lists

std::vector<uint64_t> Runtime::arena_ids() {
  MutexLock l(lock_);
  std::vector<uint64_t> ids;
  for (const auto& [id, a] : arenas_) {
    ids.push_back(id);
  }
  return ids;
}

std::vector<uint64_t> Runtime::session_ids() {
  MutexLock l(lock_);
  std::vector<uint64_t> ids;
  for (const auto& [id, s] : sessions_) {
    ids.push_back(id);
  }
  return ids;
}

Result<AttrValue> Runtime::with_arena(uint64_t id,
                                      const std::function<Result<AttrValue>(const Arena&)>& fn) {
  MutexLock l(lock_);
  auto it = arenas_.find(id);
  return it == arenas_.end() ? Result<AttrValue>(Errc::kNotFound) : fn(*it->second);
}

Result<AttrValue> Runtime::with_session(uint64_t id,
                                        const std::function<Result<AttrValue>(AddressSpace&)>& fn) {
  MutexLock l(lock_);
  auto it = sessions_.find(id);
  return it == sessions_.end() ? Result<AttrValue>(Errc::kNotFound) : fn(*it->second);
}

std::vector<std::string> Runtime::swap_names() {
  MutexLock l(lock_);
  std::vector<std::string> names;
  for (const SwapDevice& d : swap_devices_) {
    names.push_back(d.name);
  }
  return names;
}

}  // namespace kvmm
