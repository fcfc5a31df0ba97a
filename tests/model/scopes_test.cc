// SPDX-License-Identifier: Apache-2.0
//
// Exhaustive small scopes: two or three pages, two threads, eviction, clearing, pinning, and every
// order in which completions can come. Every sequence of a given length over a small alphabet is
// played, from several starts; a sequence whose next letter means nothing there is cut with all
// that follow it.
//
//   a  thread 1 writes page 0          e  evict the session
//   b  thread 2 reads page 0,          c  clear page 0 (dropped while whatever is in flight)
//      or tries again what it waits    p  pin page 0, or unpin it
//   w  thread 2 writes page 1          o  the oldest I/O that is done is reported
//   x  thread 2 writes page 2          n  the newest one is reported
//   t  time passes to the next event   d  the near tier is short from now on, or no longer: pages
//                                         are demoted, and promoted by touches
//
// After each letter: invariants, and no page pinned and answered "ready" is unmapped. After each
// sequence everything comes to rest, and every value is the last one written.
#include <gtest/gtest.h>

#include <csignal>
#include <cstdio>
#include <cstring>
#include <set>

#include "tests/model/world.h"

namespace kvmm::test {
namespace {

// What is being played, for the message of a check that stops the process.
char now_playing[128];

void say_what_played(const char*) noexcept {
  std::fprintf(stderr, "played: %s\n", now_playing);
}

struct Scope {
  const char* name;
  const char* letters;
  int length;
  uint32_t frames;
  bool asynchronous_mmu = false;
  bool fixed_frames = false;
  bool tiers = false;  // half of the frames in a slow tier; data work takes a while
};

void PrintTo(const Scope& scope, std::ostream* out) {
  *out << scope.name;
}

constexpr uint32_t kPages = 3;

class Player {
 public:
  explicit Player(const Scope& scope) : world_(config_of(scope)) {
    // Nothing is reclaimed ahead: a frame is taken when a touch needs it.
    for (const auto& tier : world_.tiers->tiers()) {
      EXPECT_TRUE(tier->set_watermarks({}).ok());
    }
    space_ = &world_.open(0);
    batch_.ranges.resize(1);
  }

  // Content of both pages: never written, in memory, only in the swap area, or in far memory and
  // touched there once.
  void start(char from) {
    if (from != 'z') {
      for (uint32_t i = 0; i < 2; ++i) {
        value_[i] = ++stamp_;
        ASSERT_EQ(world_.write(*space_, 0, i, value_[i]).access, SimAccess::kDone);
      }
    }
    if (from == 's') {
      world_.mm->evict(*space_);
      world_.settle();
    }
    if (from == 'f') {
      set_short(true);
      world_.settle();
      set_short(false);
      for (uint32_t i = 0; i < 2; ++i) {
        Page& p = world_.page(*space_, 0, i);
        ASSERT_EQ(p.frame->tier, TierId(1)) << "page " << i;
        p.heat = 1;
      }
    }
    world_.delay->set_hold(true);
  }

  // False: the letter means nothing now.
  bool play(char letter) {
    switch (letter) {
      case 'a':
        return start_access(0, 0, ++stamp_);
      case 'b':
        return waits_[1] ? try_again(1) : start_access(1, 0, std::nullopt);
      case 'w':
        return start_access(1, 1, ++stamp_);
      case 'x':
        return start_access(1, 2, ++stamp_);
      case 'e':
        world_.mm->evict(*space_);
        step();
        return true;
      case 'c':
        return clear();
      case 'p':
        return pin();
      case 'd':
        set_short(!short_);
        step();
        return true;
      case 't':
        if (!world_.clock.next_alarm() && world_.mm->next_due() == Tick(0)) {
          return false;
        }
        world_.pass();
        step();
        return true;
      case 'o':
      case 'n': {
        // Bytes have moved when a completion is held; what is on its way there is 't'.
        const size_t held = world_.delay->held().size();
        if (held == 0 || (letter == 'n' && held == 1)) {
          return false;
        }
        world_.delay->release(letter == 'o' ? 0 : held - 1);
        step();
        return true;
      }
      default:
        ADD_FAILURE() << "no such letter " << letter;
        return false;
    }
  }

  // To rest, then every value, then back to a world as new.
  void finish() {
    world_.delay->set_hold(false);
    set_short(false);
    if (batch_.pinned) {
      ASSERT_TRUE(pin());
    }
    for (int i = 0; waits_[0] || waits_[1] || world_.mm->busy() || clearing_; ++i) {
      ASSERT_LT(i, 1000) << "a thread waits for ever: " << waits_[0].has_value()
                         << waits_[1].has_value() << world_.mm->busy() << clearing_ << " "
                         << place_name(world_.page(*space_, 0, 0).place) << " "
                         << place_name(world_.page(*space_, 0, 1).place);
      world_.pass();
      step();
      for (uint32_t t = 0; t < 2; ++t) {
        if (waits_[t]) {
          try_again(t);
        }
      }
    }
    ASSERT_EQ(world_.mmu->waiters(), 0u);
    for (uint32_t i = 0; i < kPages; ++i) {
      const World::Answer a = world_.read(*space_, 0, i);
      ASSERT_EQ(a.access, SimAccess::kDone);
      ASSERT_EQ(a.value, value_[i]) << "page " << i;
    }
    reset();
  }

  uint64_t state() const {
    uint64_t h = 0;
    for (uint32_t i = 0; i < kPages; ++i) {
      const Page& p = space_->planes()[0].object->page(i);
      h = h * 16 + static_cast<uint64_t>(p.place);
      h = h * 0x100000001b3 + p.flags;
      h = h * 4 + p.pins;
    }
    return (h * 64 + world_.delay->held().size()) * 8 + (waits_[0] ? 1 : 0) + (waits_[1] ? 2 : 0);
  }

  uint64_t cancelled() const { return world_.mm->stats().reclaim_cancelled.load(); }
  const MmStats& stats() const { return world_.mm->stats(); }
  uint64_t majors() const { return world_.mm->stats().faults_major.load(); }

 private:
  struct Wait {
    uint32_t page = 0;
    std::optional<uint64_t> value;
  };

  static WorldConfig config_of(const Scope& scope) {
    WorldConfig c;
    c.frames = scope.frames;
    c.planes = 1;
    c.lanes = 1;
    c.pages_a_lane = kPages;
    c.swap = mib(4);
    c.asynchronous_mmu = scope.asynchronous_mmu;
    c.fixed_frames = scope.fixed_frames;
    c.stacked_disk = true;
    if (scope.tiers) {
      const uint32_t near = scope.frames / 2;
      c.tiers = {{"dram", 0, 0, near}, {"slow", 1, 1, scope.frames - near}};
      c.asynchronous_data = true;
    }
    return c;
  }

  // One step of the core, then what must hold whatever was played.
  void step() {
    world_.step();
    world_.check();
    Page& p = world_.page(*space_, 0, 0);
    if (clearing_ && p.generation != generation_before_) {
      generation_before_ = p.generation;
      if (!dropped_) {
        dropped_ = true;
        value_[0] = 0;  // dropped now: what was written until here is gone
      }
    }
    if (clearing_ && job_.done()) {
      world_.mm->end_job(job_);
      clearing_ = false;
    }
    if (batch_.pinned) {
      world_.mm->pin_poll(batch_);
      ASSERT_NE(batch_.ranges[0].answer, PinAnswer::kFailed);
      ready_ = ready_ || batch_.ranges[0].answer == PinAnswer::kReady;
      ASSERT_TRUE(!ready_ || p.place == Place::kMapped) << "a pinned page was taken";
    }
    // Thread 1 runs at once when it is let go; thread 2 when its letter comes.
    if (waits_[0]) {
      try_again(0);
    }
  }

  void set_short(bool is_short) {
    if (world_.tiers->size() == 1) {
      return;
    }
    short_ = is_short;
    Tier& near = world_.tiers->fastest();
    const Bytes all = is_short ? near.pool().capacity() : Bytes(0);
    EXPECT_TRUE(near.set_watermarks({Bytes(0), all, all}).ok());
    world_.mm->advise(*space_, is_short ? Advice::kIdle : Advice::kNormal);
  }

  bool start_access(uint32_t thread, uint32_t page, std::optional<uint64_t> value) {
    if (waits_[thread]) {
      return false;
    }
    waits_[thread] = Wait{page, value};
    try_again(thread);
    step();
    return true;
  }

  bool try_again(uint32_t thread) {
    const Wait w = *waits_[thread];
    const World::Answer a = world_.try_access(*space_, 0, w.page, thread + 1, w.value);
    if (a.access == SimAccess::kFault) {
      return false;
    }
    waits_[thread].reset();
    EXPECT_EQ(a.access, SimAccess::kDone);
    if (w.value) {
      value_[w.page] = *w.value;
    } else {
      EXPECT_EQ(a.value, value_[w.page]) << "page " << w.page;
    }
    return true;
  }

  bool clear() {
    if (clearing_) {
      return false;
    }
    const Vma& v = *space_->planes()[0].vma;
    Page& p = world_.page(*space_, 0, 0);
    generation_before_ = p.generation;
    dropped_ = false;
    job_ = MmJob();
    const Result<void> r = world_.mm->clear_range({v.start, v.page_size}, job_);
    EXPECT_EQ(r.code(), p.pins != 0 ? Errc::kBusy : Errc::kOk);
    clearing_ = r.ok();
    step();
    return true;
  }

  bool pin() {
    if (batch_.pinned) {
      EXPECT_TRUE(world_.mm->unpin(batch_, Fence()).ok());
      batch_.ranges.resize(1);
    } else {
      PinRange& r = batch_.ranges[0];
      r = PinRange();
      r.space = space_;
      r.spans.push_back({space_->planes()[0].object.get(), 0, 1});
      ready_ = false;
      EXPECT_TRUE(world_.mm->pin(batch_, world_.clock.now()).ok());
    }
    step();
    return true;
  }

  void reset() {
    const Vma& v = *space_->planes()[0].vma;
    world_.run_job([&](MmJob& j) {
      return world_.mm->clear_range({v.start, v.page_size * v.pages}, j);
    });
    std::fill(std::begin(value_), std::end(value_), 0);
    ASSERT_EQ(world_.swap.used_bytes(), Bytes(0)) << "a slot leaked";
    for (const auto& tier : world_.tiers->tiers()) {
      ASSERT_EQ(tier->pool().free_bytes(), tier->pool().capacity()) << "a frame leaked";
    }
    ASSERT_EQ(world_.mm->stats().migrate_failed.load(), 0u);
    ASSERT_EQ(world_.mmu->violations(), 0u);
    ASSERT_EQ(world_.mm->stats().wrong_pages.load(), 0u);
    ASSERT_EQ(world_.mm->stats().poisoned.load(), 0u);
  }

  World world_;
  AddressSpace* space_ = nullptr;
  uint64_t value_[kPages] = {};
  uint64_t stamp_ = 0;
  std::optional<Wait> waits_[2];
  MmJob job_;
  bool short_ = false;
  bool clearing_ = false;
  bool dropped_ = false;
  uint32_t generation_before_ = 0;
  PinBatch batch_;
  bool ready_ = false;
};

class Scopes : public ::testing::TestWithParam<Scope> {};

TEST_P(Scopes, EveryOrderEndsWell) {
  const Scope& scope = GetParam();
  set_check_hook(say_what_played);
  Player player(scope);
  uint64_t sequences = 0;
  std::set<uint64_t> states;
  const auto letters = static_cast<int>(std::strlen(scope.letters));
  for (const char from : std::string(scope.tiers ? "zrsf" : "zrs")) {
    std::string word(static_cast<size_t>(scope.length), scope.letters[0]);
    std::vector<int> digit(static_cast<size_t>(scope.length), 0);
    bool more = true;
    while (more) {
      for (size_t i = 0; i < word.size(); ++i) {
        word[i] = scope.letters[digit[i]];
      }
      std::snprintf(now_playing, sizeof now_playing, "%s %c:%s", scope.name, from, word.c_str());
      player.start(from);
      size_t played = 0;
      while (played < word.size() && player.play(word[played])) {
        states.insert(player.state());
        ++played;
      }
      player.finish();
      sequences += played == word.size() ? 1 : 0;
      if (HasFailure()) {
        FAIL() << now_playing << ", letter " << played;
      }
      // The next word that differs in what was played.
      size_t at = std::min(played, word.size() - 1);
      std::fill(digit.begin() + static_cast<ptrdiff_t>(at) + 1, digit.end(), 0);
      while (true) {
        if (++digit[at] < letters) {
          break;
        }
        digit[at] = 0;
        if (at == 0) {
          more = false;
          break;
        }
        --at;
      }
    }
  }
  set_check_hook(nullptr);
  std::printf("%s: %llu sequences of %d, %zu states\n", scope.name,
              static_cast<unsigned long long>(sequences), scope.length, states.size());
  RecordProperty("sequences", static_cast<int>(sequences));
  // The scope is worth its name: reclaim met touches, and pages came from the swap area.
  EXPECT_GT(sequences, 50000u);
  EXPECT_GT(player.cancelled(), 1000u);
  EXPECT_GT(player.majors(), 10000u);
  if (scope.tiers) {
    EXPECT_GT(player.stats().pages_demoted.load(), 10000u);
    EXPECT_GT(player.stats().pages_promoted.load(), 1000u);
    EXPECT_GT(player.stats().migrate_cancelled.load(), 1000u);
  }
}

INSTANTIATE_TEST_SUITE_P(Worlds, Scopes,
                         ::testing::Values(
                             // name, letters, length, frames
                             Scope{"room", "abwecpton", 6, 3}, Scope{"pressure", "abwxecton", 6, 2},
                             Scope{"room_asynchronous_mmu", "abwecpto", 6, 3, true},
                             Scope{"pressure_asynchronous_mmu", "abwxecto", 6, 2, true},
                             Scope{"room_tiers", "abwedcpt", 6, 6, false, false, true},
                             Scope{"pressure_tiers", "abwxedct", 6, 3, false, false, true},
                             Scope{"room_tiers_asynchronous_mmu", "abedcpt", 6, 6, true, false,
                                   true},
                             Scope{"room_shareable", "abwecpton", 6, 3, false, true},
                             Scope{"pressure_shareable", "abwxecton", 6, 2, false, true}),
                         [](const auto& i) { return i.param.name; });

}  // namespace
}  // namespace kvmm::test
