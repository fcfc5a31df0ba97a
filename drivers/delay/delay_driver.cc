// SPDX-License-Identifier: Apache-2.0
#include "drivers/delay/delay_driver.h"

#include <algorithm>

#include "drivers/block_request.h"
#include "drivers/options.h"
#include "runtime/base/check.h"

namespace kvmm {

DelayBlock::DelayBlock(BlockOps& below, Clock& clock, const DelayConfig& config)
    : below_(below),
      clock_(clock),
      config_(config),
      random_(config.seed),
      hold_(config.hold),
      slots_(std::make_unique<Slot[]>(config.depth)) {
  check(config.depth > 0, "a delay device holds at least one request");
  free_.reserve(config.depth);
  held_.reserve(config.depth);
  held_slots_.reserve(config.depth);
  for (uint32_t i = config.depth; i > 0; --i) {
    Slot& s = slots_[i - 1];
    s.inner.queue = &finished_;
    s.inner.owner = &s;
    free_.push_back(&s);
  }
}

DelayBlock::~DelayBlock() {
  collect();
  release_all();
  check(free_.size() == config_.depth, "nothing is in flight at the end", free_.size(),
        config_.depth);
}

BlockInfo DelayBlock::info() const {
  BlockInfo i = below_.info();
  i.name = "delay";
  i.depth = std::min(i.depth, config_.depth);
  return i;
}

size_t DelayBlock::submit(std::span<BlockRequest* const> requests) {
  size_t taken = 0;
  for (BlockRequest* outer : requests) {
    if (free_.empty()) {
      break;
    }
    Slot& s = *free_.back();
    s.inner.op = outer->op;
    s.inner.urgency = outer->urgency;
    s.inner.data = outer->data;
    s.inner.offset = outer->offset;
    s.inner.length = outer->length;
    BlockRequest* inner = &s.inner;
    if (below_.submit({&inner, 1}) == 0) {
      break;
    }
    free_.pop_back();
    s.outer = outer;
    ++taken;
  }
  collect();
  return taken;
}

void DelayBlock::collect() {
  while (Request* r = finished_.pop()) {
    Slot& s = slot_of(*static_cast<BlockRequest*>(r));
    const Tick jitter =
        config_.jitter.value() == 0 ? Tick(0) : Tick(random_.below(config_.jitter.value()));
    s.due = clock_.now() + config_.latency + jitter;
    held_.push_back(s.outer);
    held_slots_.push_back(&s);
  }
}

std::optional<Tick> DelayBlock::next_due() const {
  if (hold_ || held_slots_.empty()) {
    return std::nullopt;
  }
  return (*std::min_element(held_slots_.begin(), held_slots_.end(),
                            [](const Slot* a, const Slot* b) { return a->due < b->due; }))
      ->due;
}

void DelayBlock::poll() {
  below_.poll();
  collect();
  if (hold_) {
    return;
  }
  const Tick now = clock_.now();
  for (;;) {
    // The first of the earliest: min_element keeps the order of equal ones.
    const auto next =
        std::min_element(held_slots_.begin(), held_slots_.end(),
                         [](const Slot* a, const Slot* b) { return a->due < b->due; });
    if (next == held_slots_.end() || (*next)->due > now) {
      return;
    }
    release(static_cast<size_t>(next - held_slots_.begin()));
  }
}

void DelayBlock::release(size_t i) {
  check(i < held_.size(), "a request that is held", i, held_.size());
  Slot& s = *held_slots_[i];
  held_.erase(held_.begin() + static_cast<ptrdiff_t>(i));
  held_slots_.erase(held_slots_.begin() + static_cast<ptrdiff_t>(i));
  BlockRequest* outer = s.outer;
  s.outer = nullptr;
  free_.push_back(&s);
  finish_block_request(*outer, s.inner.result, s.inner.os_error);
}

void DelayBlock::release_all() {
  while (!held_.empty()) {
    release(0);
  }
}

namespace {

class DelayDevice final : public Device {
 public:
  DelayDevice(DeviceInfo info, std::unique_ptr<Device> below, Clock& clock, DelayConfig config)
      : Device(std::move(info)),
        below_(std::move(below)),
        block_(*below_->block(), clock, config) {}
  const char* driver_name() const override { return "delay"; }
  BlockOps* block() override { return &block_; }
  DelayBlock& control() { return block_; }

 private:
  std::unique_ptr<Device> below_;  // before block_: destroyed after it
  DelayBlock block_;
};

class DelayDriver final : public Driver {
 public:
  explicit DelayDriver(Clock& clock) : clock_(clock) {}
  const char* name() const override { return "delay"; }
  const char* help() const override {
    return "stacks over a block device, completes later; latency_us=0, jitter_us=0, seed=0, "
           "hold=0, depth=256";
  }
  bool probe(const DeviceInfo&) const override { return false; }
  Result<std::unique_ptr<Device>> bind(DeviceInfo info, std::unique_ptr<Device> below) override {
    if (below == nullptr || below->block() == nullptr) {
      return Error(Errc::kInvalid, "delay: stacks over a block device, and there is none below");
    }
    auto options =
        Options::parse(name(), info.options, {"latency_us", "jitter_us", "seed", "hold", "depth"});
    if (!options) {
      return options.error();
    }
    constexpr uint64_t kMaxMicros = 3'600'000'000;  // an hour
    auto latency = options->number("latency_us", 0, 0, kMaxMicros);
    auto jitter = options->number("jitter_us", 0, 0, kMaxMicros);
    auto seed = options->number("seed", 0, 0, UINT64_MAX);
    auto hold = options->flag("hold", false);
    auto depth = options->number("depth", 256, 1, 65536);
    for (const auto* number : {&latency, &jitter, &seed, &depth}) {
      if (!*number) {
        return number->error();
      }
    }
    if (!hold) {
      return hold.error();
    }
    DelayConfig config;
    config.latency = micros(*latency);
    config.jitter = micros(*jitter);
    config.seed = *seed;
    config.hold = *hold;
    config.depth = static_cast<uint32_t>(*depth);
    return std::unique_ptr<Device>(
        std::make_unique<DelayDevice>(std::move(info), std::move(below), clock_, config));
  }

 private:
  Clock& clock_;
};

}  // namespace

std::unique_ptr<Driver> make_delay_driver(Clock& clock) {
  return std::make_unique<DelayDriver>(clock);
}

DelayBlock* find_delay(Device& device) {
  auto* d = dynamic_cast<DelayDevice*>(&device);
  return d == nullptr ? nullptr : &d->control();
}

}  // namespace kvmm
