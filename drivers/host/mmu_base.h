// SPDX-License-Identifier: Apache-2.0
//
// What the host's three MMUs share: batches, fences, fault messages, reservations.
//
//                    HostMmu
//        .--------------+--------------.
//   HostMoveMmu    HostShareMmu    HostPinMmu
//   movable        shareable       shareable
//   UFFDIO_MOVE    CONTINUE        mprotect
//   faults         faults          does not fault
//
// A batch is worked off inside `submit`, entry by entry; an entry that fails does not stop the
// others. A request whose callback fence is not done waits in the device and is finished by `poll`,
// in the order of arrival among those that wait.
//
// Invariants
//   1. Nothing in submit, poll, read_faults and wake allocates memory or waits.
//   2. All memory is MADV_DONTFORK and MADV_DONTDUMP: a forked child has none of it.
// Thread safety: as MmuOps says; `read_faults` and `fault_fd` from any thread, at any time.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>

#include "drivers/host/regions.h"
#include "drivers/host/system_calls.h"
#include "drivers/host/uffd.h"
#include "drivers/ops.h"

namespace kvmm {

struct HostConfig {
  const SystemCalls* calls = &real_system_calls();
  NodeId node;              // NUMA node of reserved memory; frames say theirs
  uint32_t numa_nodes = 1;  // of the machine; with one, nothing is bound
  // Tries of a move that says EBUSY or EAGAIN without progress, at about 1 us each. A direct read
  // that has just completed lets go within tens of them; a pin never does.
  uint32_t busy_retries = 256;
};

class HostMmu : public MmuOps {
 public:
  HostMmu(const HostMmu&) = delete;
  HostMmu& operator=(const HostMmu&) = delete;

  MmuStats stats() const override { return stats_; }
  size_t submit(std::span<MmuRequest* const> requests) override;
  void poll() override;
  size_t read_faults(std::span<FaultEvent> out) override;
  void wake(AddressRange range) override;
  int fault_fd() const override { return uffd_ ? uffd_->fd() : -1; }

 protected:
  // What became of one entry.
  struct Outcome {
    Errc code = Errc::kOk;
    int os_error = 0;
    static Outcome of_errno(int os_error) { return {errc_of_errno(os_error), os_error}; }
    bool ok() const { return code == Errc::kOk; }
  };

  HostMmu(const HostConfig& config, std::optional<Uffd>&& uffd)
      : config_(config), calls_(*config.calls), uffd_(std::move(uffd)) {}

  // One entry each. `range` is the reserved range that holds [e.va, e.va + size).
  virtual Outcome map(Region& range, MapEntry& e, Bytes size, Prot prot) = 0;
  virtual Outcome unmap(Region& range, MapEntry& e, Bytes size) = 0;
  virtual Outcome protect(Region& range, MapEntry& e, Bytes size, Prot prot);
  virtual Outcome poison(Region& range, MapEntry& e, Bytes size);
  virtual Outcome clear(Region& range, MapEntry& e, Bytes size);
  virtual Outcome free(Region& range, MapEntry& e, Bytes size);

  struct Mapping {
    int prot;
    int flags;
    int fd = -1;
  };
  // `length` bytes at a multiple of `align`. Errors: kNoMemory (the text names the limits).
  Result<uint64_t> map_aligned(uint64_t length, uint64_t align, Mapping m) const;
  // DONTFORK and DONTDUMP. Errors: kNoMemory, kInvalid.
  Result<void> hide_from_children(uint64_t start, uint64_t length) const;
  // Binds to `node`, if there is a choice. Errors: kInvalid (no such node), kNoMemory.
  Result<void> bind_to_node(uint64_t start, uint64_t length, NodeId node) const;
  int advise(uint64_t start, uint64_t length, int advice) const;  // 0 or errno
  void unmap_memory(uint64_t start, uint64_t length) const;

  // Constant after construction.
  const HostConfig config_;
  const SystemCalls& calls_;
  const std::optional<Uffd> uffd_;
  // Guarded by the caller.
  RegionMap ranges_;
  MmuStats stats_;

 private:
  void run(MmuRequest& r);
  Outcome apply(const MmuRequest& r, MapEntry& e);

  // Requests that wait for their fence, oldest first; guarded by the caller.
  Request* waiting_ = nullptr;
  Request** waiting_tail_ = &waiting_;
};

// Whether `length`, `align` and `page_size` of a reservation make sense for pages of 4 KiB..2 MiB.
bool valid_reservation(Bytes length, Bytes align, Bytes page_size);

}  // namespace kvmm
