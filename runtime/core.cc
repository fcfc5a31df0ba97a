// SPDX-License-Identifier: Apache-2.0
#include "runtime/core.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <semaphore>

#include "runtime/thread.h"

namespace kvmm {

namespace {

// Pages that the core thread maps before it looks for faults again. Several devices tell of all
// their reads at once, when they have run out of them: while one page is mapped, the thread that
// waited for the last one runs and asks for the next, and the device should have that at once.
constexpr uint32_t kPagesAStep = 2;

// The mm_ that this thread is stepping: what it pushes to its own queue meanwhile it pops itself.
// Of the initial-exec model, because the fault path must not allocate a thread-local block.
// NOLINTNEXTLINE(cppcoreguidelines-avoid-non-const-global-variables): a mark of this thread's
[[gnu::tls_model("initial-exec")]] constinit thread_local const void* stepping = nullptr;

}  // namespace

struct Core::Query {
  const std::function<void(Mm&)>* fn = nullptr;
  Query* next = nullptr;
  std::binary_semaphore done{0};
  bool ran = false;
};

Core::Core(const Parts& parts) : parts_(parts) {}

Result<std::unique_ptr<Core>> Core::create(const Parts& parts) {
  std::unique_ptr<Core> core(new Core(parts));
  core->wake_fd_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  core->notice_fd_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (core->wake_fd_ < 0 || core->notice_fd_ < 0) {
    return Error(Errc::kLimit, "no eventfd: raise ulimit -n", errno);
  }
  Mm::Deps deps;
  deps.tiers = parts.tiers;
  deps.swap = &core->swap_;
  deps.map = &core->map_;
  deps.data = parts.data;
  deps.trace = parts.trace;
  deps.clock = parts.platform.clock;
  deps.completions = parts.completions;
  deps.notice_time = parts.notice_time;
  core->mm_ = std::make_unique<Mm>(deps, core->config_);
  parts.completions->set_notifier(
      [](void* context) noexcept {
        auto* self = static_cast<Core*>(context);
        if (stepping != self->mm_.get()) {
          self->wake();
        }
      },
      core.get());
  return core;
}

Core::~Core() {
  stop();
  for (const int fd : {wake_fd_, notice_fd_}) {
    if (fd >= 0) {
      close(fd);
    }
  }
}

void Core::start() {
  if (!parts_.platform.executor->threaded()) {
    return;
  }
  thread_ = start_thread("kvmm-core", [this] { run(); });
  running_ = true;
}

void Core::stop() {
  if (!thread_.joinable()) {
    return;
  }
  stop_ = true;
  wake();
  thread_.join();
  running_ = false;
  MutexLock l(lock_);
  run_queries();  // those that came last are answered too
}

void Core::wake() noexcept {
  woken_.store(true);
  if (asleep_.load()) {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = write(wake_fd_, &one, sizeof one);  // full: it is awake
  }
}

void Core::step_now(Tick now, bool with_io, uint32_t pages_max) {
  stepping = mm_.get();
  mm_->step(now, with_io, pages_max);
  stepping = nullptr;
}

void Core::step() {
  // Its I/O is submitted by the core thread: the kernel may finish I/O in the thread that submitted
  // it, and cancels it if that thread ends. A thread of the engine may do anything, also wait in
  // write(2) for the very page.
  const bool with_io = !running_.load(std::memory_order_relaxed);
  while (!parts_.platform.executor->threaded() && take_faults()) {  // nobody else reads them
  }
  step_now(now(), with_io, UINT32_MAX);
  const Tick due = mm_->next_due();
  const bool sooner = due != Tick(0) && (armed_ == Tick(0) || due < armed_);
  if (!with_io && (mm_->io_waits() || sooner)) {
    wake();  // it sleeps without this I/O, or by an older due time
  }
  after_step();
}

void Core::after_step() {
  if (mm_->has_notice()) {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = write(notice_fd_, &one, sizeof one);
  }
  if (waiters_ != 0) {
    stepped_.notify_all();  // any thread's step may have finished what another one waits for
  }
}

bool Core::wait_until(const std::function<bool()>& pred) {
  step();
  while (!pred()) {
    if (parts_.platform.executor->threaded()) {
      ++waiters_;
      stepped_.wait(lock_);
      --waiters_;
    } else {
      if (!parts_.platform.executor->pass_time() && !mm_->busy()) {
        return pred();
      }
      step();
    }
  }
  return true;
}

bool Core::query(const std::function<void(Mm&)>& fn) {
  if (!running_.load()) {
    MutexLock l(lock_);  // no core thread: nobody's faults wait for this lock
    fn(*mm_);
    return true;
  }
  Query q;
  q.fn = &fn;
  Query* head = queries_.load(std::memory_order_relaxed);
  do {
    q.next = head;
  } while (!queries_.compare_exchange_weak(head, &q, std::memory_order_release,
                                           std::memory_order_relaxed));
  wake();
  q.done.acquire();
  return q.ran;
}

bool Core::run_queries() {
  Query* q = queries_.exchange(nullptr, std::memory_order_acquire);
  const bool any = q != nullptr;
  while (q != nullptr) {
    Query* next = q->next;  // `q` is gone once its owner is released
    (*q->fn)(*mm_);
    q->ran = true;
    q->done.release();
    q = next;
  }
  return any;
}

bool Core::take_faults() {
  std::array<FaultEvent, 32> events;
  const size_t n = parts_.tiers->fastest().mmu().read_faults(events);
  const Tick t = now();
  stepping = mm_.get();  // a step follows
  for (size_t i = 0; i < n; ++i) {
    mm_->handle_fault(events[i], t);
  }
  stepping = nullptr;
  return n == events.size();
}

void Core::called_from_here(AddressSpace& space) {
  if (parts_.cpus == nullptr || !parts_.cpus->several()) {
    return;
  }
  if (const auto node = parts_.cpus->here()) {
    mm_->called_from(space, *node);
  }
}

bool Core::threads_unknown() {
  return parts_.cpus != nullptr && parts_.cpus->several() && mm_->threads().any_due();
}

// Where threads run that have touched: a few at a time and without the lock, so that a fault that
// comes meanwhile waits for some tens of microseconds at most.
void Core::look_at_threads() {
  std::array<uint32_t, 4> threads{};
  std::array<std::optional<NodeId>, 4> nodes;
  size_t n = 0;
  {
    MutexLock l(lock_);
    n = mm_->threads().due(threads, now());
  }
  for (size_t i = 0; i < n; ++i) {
    nodes[i] = parts_.cpus->of_thread(threads[i]);
  }
  MutexLock l(lock_);
  for (size_t i = 0; i < n; ++i) {
    if (nodes[i]) {
      mm_->threads().learnt(threads[i], mm_->zones().row_of(*nodes[i]), now());
    } else {
      mm_->threads().unknown(threads[i], now());
    }
  }
}

void Core::run() {
  std::array<pollfd, 3 + SwapSpace::kAreasMax> fds{};
  parts_.data->helper_started();
  while (true) {
    (void)woken_.exchange(false);  // before looking at everything that it may stand for
    if (stop_.load()) {
      break;
    }
    size_t n = 0;
    Tick due;
    bool idle = true;
    bool look = false;
    {
      MutexLock l(lock_);
      for (bool more = true; more;) {
        more = take_faults();
        step_now(now(), true, kPagesAStep);
      }
      const bool asked = run_queries();
      look = threads_unknown();
      due = mm_->next_due();
      armed_ = due;
      // A query may have changed what is wanted: then another step starts it.
      idle =
          !asked && parts_.completions->empty() && !mm_->has_ready() && !parts_.data->help_wanted();
      if (idle) {
        const MmuOps& mmu = parts_.tiers->fastest().mmu();
        fds[n++] = {wake_fd_, POLLIN, 0};
        for (const int fd : {mmu.fault_fd(), mmu.event_fd()}) {
          if (fd >= 0) {
            fds[n++] = {fd, POLLIN, 0};
          }
        }
        for (const auto& area : swap_.areas()) {
          idle = idle && !area->block().arm();
          const int fd = area->block().event_fd();
          if (fd >= 0 && n < fds.size()) {
            fds[n++] = {fd, POLLIN, 0};
          }
        }
      }
      after_step();
    }
    if (look) {
      look_at_threads();
    } else if (idle) {
      wait_for_events(std::span(fds).first(n), due);
    }
    if (!idle) {
      worked_ = true;
      parts_.data->help();
    }
  }
  parts_.data->helper_stopped();
}

// Takes the tick of a wake-up, so that the descriptor tells of the next one only.
void Core::drain(const pollfd& wake) const {
  if ((wake.revents & POLLIN) != 0) {
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t got = read(wake_fd_, &count, sizeof count);
  }
}

void Core::wait_for_events(std::span<pollfd> fds, Tick due) {
  timespec timeout{};
  const Tick t = now();
  if (due > t) {
    timeout.tv_sec = static_cast<time_t>((due - t).value() / 1'000'000'000u);
    timeout.tv_nsec = static_cast<long>((due - t).value() % 1'000'000'000u);
  }
  if (spin(fds, due)) {
    return;
  }
  asleep_.store(true);
  if (!woken_.load()) {
    const int ready = ppoll(fds.data(), fds.size(), due == Tick(0) ? nullptr : &timeout, nullptr);
    worked_ = ready > 0;
    if (ready > 0) {
      drain(fds[0]);
    }
  }
  asleep_.store(false, std::memory_order_relaxed);
}

// Looks for the next event a little longer than it takes to be woken: the threads that have just
// got their pages touch the next ones soon. True: there is one. Not after a sleep that ended by its
// time.
bool Core::spin(std::span<pollfd> fds, Tick due) {
  const Tick spin = micros(config_.spin_us.load(std::memory_order_relaxed));
  if (!worked_ || spin == Tick(0)) {
    return false;
  }
  worked_ = false;
  Tick end = now() + spin;
  if (due != Tick(0)) {
    end = std::min(end, due);
  }
  const timespec none{};
  do {
    if (woken_.load() || ppoll(fds.data(), fds.size(), &none, nullptr) > 0) {
      drain(fds[0]);
      worked_ = true;
      return true;
    }
    sched_yield();  // who wants this core shall have it
  } while (now() < end);
  return false;
}

}  // namespace kvmm
