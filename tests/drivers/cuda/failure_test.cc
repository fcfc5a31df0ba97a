// SPDX-License-Identifier: Apache-2.0
//
// Every call of the driver API fails once, in turn: a typed error each time, nothing left behind.
//
// The scenario binds, makes frames and a reservation, maps, copies both ways, digests, unmaps
// behind an event, and tears down. It is run once to count its calls, then once for each call.
// Calls that give something back can leave it at the driver when they fail; all others must not.
#include <map>
#include <set>

#include "tests/drivers/cuda/rig.h"

namespace kvmm::cuda {
namespace {

struct Outcome {
  Errc code = Errc::kOk;       // of the first step that failed
  uint64_t calls_to_work = 0;  // calls made before the teardown
  uint64_t calls = 0;
  bool bytes_intact = true;
};

class Scenario {
 public:
  explicit Scenario(const Controls& c) : controls_(c) {}

  Outcome run() {
    Result<std::unique_ptr<Device>> bound = make_cuda_driver()->bind(double_info(), nullptr);
    note(bound.code());
    if (bound) {
      device_.reset(static_cast<CudaDevice*>(bound->release()));
      work();
      out_.calls_to_work = controls_.calls(nullptr);
      failed_before_teardown_ = controls_.failed() != nullptr;
      tear_down();
    } else {
      failed_before_teardown_ = controls_.failed() != nullptr;
    }
    out_.calls = controls_.calls(nullptr);
    return out_;
  }
  bool failed_before_teardown() const { return failed_before_teardown_; }

 private:
  void note(Errc code) { out_.code = out_.code == Errc::kOk ? code : out_.code; }

  template <class Ops, class R>
  Errc finish(Ops& ops, R& r) {
    CompletionQueue cq;
    r.queue = &cq;
    std::array<R*, 1> one{&r};
    EXPECT_EQ(ops.submit(one), 1U);
    for (int i = 0; i < 64 && cq.empty(); ++i) {
      controls_.step(1);
      ops.poll();
    }
    EXPECT_EQ(cq.pop(), &r);
    note(r.result);
    return r.result;
  }

  Errc copy(FrameAddr to, FrameAddr from) {
    CopyRequest r;
    r.to = to;
    r.from = from;
    r.length = kPage;
    return finish(*device_->copy(), r);
  }

  Errc pages(MmuOp op) {
    std::array<MapEntry, 3> e{};
    for (uint32_t i = 0; i < 3; ++i) {
      e[i] = {.va = range_.start + kPage * i, .frame = frames_.frame(i)};
    }
    MmuRequest r;
    r.op = op;
    r.prot = Prot::kReadWrite;
    r.page_size = kPage;
    r.entries = e;
    return finish(*device_->mmu(), r);
  }

  void work() {
    MmuOps& mmu = *device_->mmu();
    const Result<AddressRange> range = mmu.reserve(mib(8), kPage, kPage);
    const Result<FrameArea> frames = mmu.create_frames(kPage, 3, NodeId(0));
    const Result<FrameArea> host = device_->host_frames().create(kPage, 2);
    note(range.code());
    note(frames.code());
    note(host.code());
    if (range) {
      range_ = *range;
    }
    if (frames) {
      frames_ = *frames;
    }
    if (host) {
      host_ = *host;
    }
    if (!range || !frames || !host) {
      return;
    }
    fill_pattern(bytes_at(host_.base.value()), kPage.value(), 3);
    const bool mapped = pages(MmuOp::kMap) == Errc::kOk;
    const bool in = copy(frames_.frame(1), host_.frame(0)) == Errc::kOk;
    std::array<uint64_t, 32> digests{};
    DataRequest d;
    d.addr = frames_.frame(1);
    d.length = kPage;
    d.digests = digests;
    finish(*device_->data(), d);
    if (mapped) {
      pages(MmuOp::kProtect);
    }
    // What failed stays as it was and is given back at the second try.
    pages(MmuOp::kUnmap);
    pages(MmuOp::kUnmap);
    if (in && copy(host_.frame(1), frames_.frame(1)) == Errc::kOk) {
      out_.bytes_intact = std::memcmp(bytes_at(host_.frame(0).value()),
                                      bytes_at(host_.frame(1).value()), kPage.value()) == 0;
    }
  }

  void tear_down() {
    if (host_.count != 0) {
      device_->host_frames().destroy(host_);
    }
    if (range_.length != Bytes(0)) {
      device_->mmu()->release(range_);
    }
    if (frames_.count != 0) {
      device_->mmu()->destroy_frames(frames_);
    }
    device_.reset();
  }

  const Controls& controls_;
  std::unique_ptr<CudaDevice> device_;
  AddressRange range_;
  FrameArea frames_;
  FrameArea host_;
  Outcome out_;
  bool failed_before_teardown_ = false;
};

// Calls of one entry point that each get their turn; of more, the first of them and the last.
constexpr uint64_t kEachOf = 24;

bool gives_back(const std::string& name) {
  static const std::set<std::string> names = {"cuMemUnmap",
                                              "cuMemRelease",
                                              "cuMemAddressFree",
                                              "cuMemFreeHost",
                                              "cuStreamDestroy_v2",
                                              "cuEventDestroy_v2",
                                              "cuDevicePrimaryCtxRelease_v2"};
  return names.count(name) != 0;
}

TEST(CudaFailures, EachCallFailsOnce) {
  const Controls controls = Controls::load();
  controls.reset(nullptr);
  const Outcome clean = Scenario(controls).run();
  // The second round of unmaps finds nothing: the only error of a clean run.
  ASSERT_EQ(clean.code, Errc::kNotFound);
  ASSERT_TRUE(clean.bytes_intact);
  ASSERT_EQ(leaks(counts_of(controls)), 0U);
  ASSERT_GT(clean.calls, 500U);

  std::map<std::string, uint64_t> calls;
  CudaApi api{};
  for_each_entry_point(api, [&](const char* name, auto&) { calls[name] = controls.calls(name); });
  for (const char* never :
       {"cuGetErrorName", "cuMemcpyDtoDAsync_v2", "cuMemsetD8Async", "cuCtxPopCurrent_v2"}) {
    calls.erase(never);  // not in the scenario, or cannot fail
  }

  uint64_t typed = 0;
  uint64_t runs = 0;
  for (const auto& [name, count] : calls) {
    ASSERT_GT(count, 0U) << name;
    for (uint64_t n = 1; n <= count; ++n) {
      if (n > kEachOf && n + 2 < count) {
        continue;  // one more of nearly 200 events
      }
      const CuResult injected = ++runs % 2 == 0 ? CuResult::kOutOfMemory : CuResult::kUnknown;
      controls.reset(nullptr);
      controls.fail(name.c_str(), n, static_cast<int>(injected));
      Scenario scenario(controls);
      const Outcome out = scenario.run();
      SCOPED_TRACE(name + ", call " + std::to_string(n) + " of " + std::to_string(count));
      ASSERT_NE(controls.failed(), nullptr);
      EXPECT_TRUE(out.bytes_intact);
      EXPECT_EQ(counts_of(controls).pageable_copies, 0U);
      const bool reported = out.code == to_errc(injected);
      typed += reported ? 1 : 0;
      if (!reported) {
        EXPECT_EQ(out.code, Errc::kNotFound);  // as in a clean run: the failure was made good
      }
      if (scenario.failed_before_teardown() && !gives_back(name)) {
        EXPECT_EQ(leaks(counts_of(controls)), 0U);
      }
      if (::testing::Test::HasFailure()) {
        return;  // one is enough to read
      }
    }
  }
  EXPECT_GT(typed, runs / 3) << "most failures before the teardown are reported";
}

}  // namespace
}  // namespace kvmm::cuda
