// SPDX-License-Identifier: Apache-2.0
#include "tests/model/world.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>

namespace kvmm::test {
namespace {

constexpr int kPassesMax = 200000;  // a liveness bound: far more than any scope needs

template <class T>
T must(Result<T> r, const char* what) {
  if (!r.ok()) {
    std::fprintf(stderr, "%s: %s\n", what, r.error().message().c_str());
  }
  kvmm::check(r.ok(), what, static_cast<uint64_t>(r.code()), 0);
  return std::move(*r);
}

}  // namespace

size_t World::Workers::submit(std::span<DataRequest* const> requests) {
  const size_t taken = world_.data->submit(requests);
  for (DataRequest* r : requests.first(taken)) {
    if (r->op == DataOp::kCopy && world_.bad_copies != 0) {
      --world_.bad_copies;
      *reinterpret_cast<std::byte*>(r->addr.value()) ^= std::byte{4};
    }
  }
  return taken;
}

World::World(const WorldConfig& c) : config(c) {
  SimMmuConfig m;
  const Bytes largest = std::max(c.page_size, c.page_size_2);
  uint32_t frames = c.tiers.empty() ? c.frames : 0;
  for (const WorldTier& t : c.tiers) {
    frames += t.frames;
  }
  const Bytes capacity = Bytes(round_up(c.page_size.value() * frames, largest.value()));
  m.memory = capacity + largest;
  m.granule = std::min(c.page_size, c.page_size_2.value() == 0 ? c.page_size : c.page_size_2);
  m.page_size_max = largest;
  m.nodes = UINT16_MAX;
  m.fixed_frames = c.fixed_frames;
  m.kind = c.fixed_frames || c.shareable ? FrameKind::kShareable : FrameKind::kMovable;
  if (c.asynchronous_mmu) {
    m.timing.asynchronous = true;
    m.timing.latency = micros(5);
    m.jitter = micros(20);
  }
  m.seed = c.seed;
  mmu = must(SimMmu::create(clock, m), "a simulated MMU");
  SimTiming work;
  work.asynchronous = c.asynchronous_data;
  work.latency = micros(30);
  data = std::make_unique<SimData>(clock, work, *mmu);
  SimDiskConfig d;
  d.capacity = std::max(c.swap, mib(4));
  d.jitter = micros(100);
  d.bytes_per_s = c.disk_bytes_per_s;
  if (c.swap_grows) {
    d.grows_to = d.capacity;
    d.capacity = Bytes(4096);
  }
  d.seed = c.seed + 1;
  disk = std::make_unique<SimDisk>(clock, d);
  disk->set_guard(mmu.get());
  tiers = must(TierTable::create(describe(capacity, largest), c.distances), "tiers");
  Mm::Deps deps;
  deps.tiers = tiers.get();
  deps.notice_time = c.notice_time;
  deps.swap = &swap;
  deps.map = &map;
  deps.data = &workers_;
  deps.completions = &completions;
  deps.trace = &ring;
  deps.clock = &clock;
  mm = std::make_unique<Mm>(deps, mm_config);
  if (c.swap.value() != 0) {
    BlockOps* block = disk.get();
    if (c.stacked_disk) {
      errors = std::make_unique<ErrorBlock>(*disk, c.seed + 2, 256);
      delay = std::make_unique<DelayBlock>(*errors, clock, DelayConfig{});
      block = delay.get();
    }
    add_area(*block, "swap0", 0, c.swap_grows ? c.swap : Bytes(0));
  }
  if (c.swap_2.value() != 0) {
    d.capacity = c.swap_2;
    d.grows_to = Bytes(0);
    d.seed = c.seed + 3;
    disk_2 = std::make_unique<SimDisk>(clock, d);
    disk_2->set_guard(mmu.get());
    add_area(*disk_2, "swap1", c.swap_2_priority);
  }
  ArenaSpec s;
  s.id = next_id_++;
  s.lanes = c.lanes;
  s.engine = c.engine;
  arena = must(Arena::create(s, *mmu), "an arena");
  for (uint32_t i = 0; i < c.planes; ++i) {
    PlaneSpec p;
    p.name = "p" + std::to_string(i);
    p.page_size = i % 2 == 1 && c.page_size_2.value() != 0 ? c.page_size_2 : c.page_size;
    p.lane_stride = p.page_size * c.pages_a_lane;
    p.token_stride = Bytes(p.page_size.value() / c.tokens_a_page);
    const Bytes all = p.lane_stride * c.lanes;
    const AddressRange r = must(mmu->reserve(all, p.page_size, p.page_size), "a range");
    arena->ranges.push_back(r);
    p.base = r.start;
    kvmm::check(arena->check_plane(p).ok(), "a plane");
    arena->planes.push_back(p);
  }
}

std::vector<TierDescription> World::describe(Bytes capacity, Bytes largest) {
  TierDescription t;
  t.name = "dram";
  t.device = "sim";
  t.capacity = capacity;
  t.block_size = largest;
  t.page_size_min = mmu->info().granule;
  t.mmu = mmu.get();
  t.data = &workers_;
  std::vector<TierDescription> nodes{t};
  if (config.two_tiers) {
    nodes.push_back(t);
    nodes[1].name = "slow";
    nodes[1].rank = 1;
    nodes[1].node = NodeId(1);
    nodes[1].capacity = Bytes(round_down(capacity.value() / 2, largest.value()));
    nodes[0].capacity = capacity - nodes[1].capacity;
  }
  if (!config.tiers.empty()) {
    nodes.clear();
  }
  for (const WorldTier& given : config.tiers) {
    t.name = given.name;
    t.rank = given.rank;
    t.node = NodeId(given.node);
    t.capacity = config.page_size * given.frames;
    nodes.push_back(t);
  }
  return nodes;
}

World::~World() {
  while (!spaces.empty()) {
    close(*spaces.back());
  }
  settle();
  for (const AddressRange& r : arena->ranges) {
    mmu->release(r);
  }
}

SwapArea& World::add_area(BlockOps& block, const char* name, int32_t priority, Bytes size) {
  SwapAreaConfig a;
  a.size = size;
  a.extent = config.swap_extent;
  a.name = name;
  a.path = name;
  a.priority = priority;
  a.wait = [this] { clock.advance_to_alarm(); };
  auto area = must(SwapArea::open(block, a), "a swap area");
  mm->area_added(*area);
  return *must(swap.add(std::move(area)), "a swap space");
}

void World::remove_area(SwapArea& area) {
  auto gone = must(swap.remove(area), "an area that holds nothing");
  mm->area_removed(*gone);
}

void World::pass_time(Tick how_long) {
  const Tick end = clock.now() + how_long;
  while (clock.now() < end) {
    step();
    const auto alarm = clock.next_alarm();
    clock.advance_to(
        std::min(end, alarm ? std::min(*alarm, clock.now() + millis(1)) : clock.now() + millis(1)));
  }
  step();
}

AddressSpace& World::open(uint32_t lane, ObjectKind kind, uint32_t tenant) {
  SpaceSpec s;
  s.id = next_id_++;
  s.name = "s" + std::to_string(s.id);
  s.lane = lane;
  s.kind = kind;
  s.tenant_number = tenant;
  auto space = std::make_unique<AddressSpace>(*arena, map, s);
  for (uint32_t i = 0; i < arena->planes.size(); ++i) {
    kvmm::check(space->add_plane(i, next_id_++).ok(), "a plane of a session");
  }
  mm->attach(*space, clock.now());
  spaces.push_back(std::move(space));
  return *spaces.back();
}

void World::close(AddressSpace& space) {
  run_job([&](MmJob& job) { return mm->detach_begin(space, job); });
  mm->detach_end(space);
  std::erase_if(spaces, [&](const auto& s) { return s.get() == &space; });
}

void World::step() {
  std::array<FaultEvent, 16> events;
  for (size_t n = mmu->read_faults(events); n != 0; n = mmu->read_faults(events)) {
    for (size_t i = 0; i < n; ++i) {
      mm->handle_fault(events[i], clock.now());
    }
  }
  mm->step(clock.now());
}

bool World::pass() {
  if (clock.advance_to_alarm()) {
    return true;
  }
  if (mm->next_due() != Tick(0) || mm->busy()) {
    clock.advance(millis(1));
    return true;
  }
  return false;
}

void World::settle() {
  step();
  for (int i = 0; mm->busy(); ++i) {
    kvmm::check(i < kPassesMax, "the world comes to rest", i, config.seed);
    pass();
    step();
  }
}

void World::run_job(const std::function<Result<void>(MmJob&)>& begin, Errc expected) {
  MmJob job;
  const Result<void> r = begin(job);
  kvmm::check(r.code() == expected, "the job begins", static_cast<uint64_t>(r.code()), config.seed);
  step();
  for (int i = 0; r.ok() && !job.done(); ++i) {
    kvmm::check(i < kPassesMax, "a job comes to its end", i, config.seed);
    pass();
    step();
  }
  mm->end_job(job);
}

VirtAddr World::address(AddressSpace& space, uint32_t plane, uint32_t index) {
  Vma& v = *space.planes()[plane].vma;
  return v.address_of(index) + Bytes(v.page_size.value() / 2);
}

bool World::start_read(AddressSpace& space, uint32_t plane, uint32_t index, uint32_t thread) {
  std::array<std::byte, 8> bytes{};
  return mmu->read(address(space, plane, index), bytes, thread) != SimAccess::kFault;
}

World::Answer World::try_access(AddressSpace& space, uint32_t plane, uint32_t index,
                                uint32_t thread, std::optional<uint64_t> value) {
  Answer a;
  std::array<std::byte, 8> bytes{};
  if (value) {
    std::memcpy(bytes.data(), &*value, 8);
    a.access = mmu->write(address(space, plane, index), bytes, thread);
  } else {
    a.access = mmu->read(address(space, plane, index), bytes, thread);
    std::memcpy(&a.value, bytes.data(), 8);
  }
  return a;
}

World::Answer World::access(AddressSpace& space, uint32_t plane, uint32_t index,
                            std::optional<uint64_t> value) {
  for (int i = 0;; ++i) {
    kvmm::check(i < kPassesMax, "a touch is answered", i, config.seed);
    const Answer a = try_access(space, plane, index, 1, value);
    if (a.access != SimAccess::kFault) {
      return a;
    }
    step();
    if (mmu->waiters() != 0) {
      pass();
      step();
    }
  }
}

World::Answer World::read(AddressSpace& space, uint32_t plane, uint32_t index) {
  return access(space, plane, index, std::nullopt);
}

World::Answer World::write(AddressSpace& space, uint32_t plane, uint32_t index, uint64_t value) {
  return access(space, plane, index, value);
}

}  // namespace kvmm::test
