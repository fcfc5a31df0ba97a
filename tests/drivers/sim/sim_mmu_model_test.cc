// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <random>

#include "tests/drivers/sim/sim_mmu_rig.h"

namespace kvmm {
namespace {

// Random maps, unmaps, poisons, clears and accesses of pages of three sizes, against a table of
// what each granule should be.
TEST_F(SimMmuTest, AgreesWithANaiveModel) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  Random random(seed);
  build("size=64K,granule=256", kib(1), 16);  // 64 granules of address, 64 of frames
  constexpr uint64_t kGranule = 256, kGranules = 64;
  struct Granule {
    uint64_t frame = 0;  // granule of the frames that is mapped here
    uint64_t page = 0;   // size of the page that it belongs to; 0: not mapped
    bool poison = false;
  };
  std::array<Granule, kGranules> model;
  std::array<bool, kGranules> frame_mapped{};
  TestBytes content(kGranules * kGranule, std::byte{0xdb});  // by frame

  for (int step = 0; step < 20'000; ++step) {
    const uint64_t n = uint64_t{1} << random.below(3);  // granules of the page
    const uint64_t at = random.below(kGranules / n) * n;
    uint64_t to = random.below(kGranules / n) * n;
    if (model[at].page == n && random.chance(3, 4)) {
      to = model[at].frame;
    }
    const auto any = [&](auto predicate) {
      return std::any_of(model.begin() + static_cast<ptrdiff_t>(at),
                         model.begin() + static_cast<ptrdiff_t>(at + n), predicate);
    };
    const bool mapped = any([](const Granule& g) { return g.page != 0; });
    const auto set = [&](uint64_t frame_at, uint64_t page, bool poison) {
      for (uint64_t i = 0; i < n; ++i) {
        model[at + i] = {frame_at + i, page, poison};
      }
    };
    const MmuOp op = static_cast<MmuOp>(random.below(5));
    Errc expected = Errc::kOk;
    if (op == MmuOp::kMap) {
      bool taken = false;
      for (uint64_t i = 0; i < n; ++i) {
        taken = taken || frame_mapped[to + i];
      }
      expected = mapped ? Errc::kExists : taken ? Errc::kNotFound : Errc::kOk;
      if (expected == Errc::kOk) {
        set(to, n, false);
        std::fill_n(frame_mapped.begin() + static_cast<ptrdiff_t>(to), n, true);
      }
    } else if (op == MmuOp::kUnmap) {
      const bool whole = model[at].page == n;
      expected = !mapped                 ? Errc::kNotFound
                 : !whole                ? Errc::kInvalid
                 : model[at].frame != to ? Errc::kExists
                                         : Errc::kOk;
      if (expected == Errc::kOk) {
        set(0, 0, false);
        std::fill_n(frame_mapped.begin() + static_cast<ptrdiff_t>(to), n, false);
      }
    } else if (op == MmuOp::kProtect) {
      expected = model[at].page == n ? Errc::kOk : Errc::kNotFound;
      // A page of n granules starts at a multiple of n, so the first granule decides.
    } else {
      expected = mapped ? Errc::kExists : Errc::kOk;
      if (expected == Errc::kOk) {
        set(0, 0, op == MmuOp::kPoison);
      }
    }
    MapEntry e{range_.start + Bytes(at * kGranule), area_.base + Bytes(to * kGranule)};
    MmuRequest r;
    prepare(r, op, {&e, 1});
    r.page_size = Bytes(n * kGranule);
    MmuRequest* one = &r;
    ASSERT_EQ(mmu_->submit({&one, 1}), 1u);
    ASSERT_EQ(queue_.pop(), &r);
    ASSERT_EQ(r.result, expected) << "step " << step << " op " << static_cast<int>(op);
    mmu_->check_invariants();

    const uint64_t touched = random.below(kGranules);
    const Granule& g = model[touched];
    const auto b = static_cast<std::byte>(random());
    const SimAccess access = mmu_->write(range_.start + Bytes(touched * kGranule + 5), {&b, 1});
    ASSERT_EQ(access, g.page != 0 ? SimAccess::kDone
                      : g.poison  ? SimAccess::kPoisoned
                                  : SimAccess::kFault);
    if (g.page != 0) {
      content[g.frame * kGranule + 5] = b;
    }
    mmu_->wake(range_);
    (void)faults();
    ASSERT_EQ(0, std::memcmp(bytes(0), content.data(), content.size())) << "step " << step;
  }
}

}  // namespace
}  // namespace kvmm
