// SPDX-License-Identifier: Apache-2.0
//
// The op tables: everything kvmm asks of a device.
//
//   +---------+------------------------------------------------+---------------------------------+
//   | table   | what the device can do                         | who has it                      |
//   +---------+------------------------------------------------+---------------------------------+
//   | MmuOps  | frames, address ranges, map, unmap, faults     | host, cuda, sim                 |
//   | CopyOps | copy between frames (of one or two devices)    | host, cuda, sim                 |
//   | BlockOps| read, write, flush, discard                    | uring, null, sim; error, delay  |
//   | DataOps | checksum, zero, scrub, copy of bytes in frames | host, cuda, sim                 |
//   +---------+------------------------------------------------+---------------------------------+
//
// Every op below says: REQUIRED or OPTIONAL (then `info()` says whether it is there; calling it all
// the same answers kNotSupported), BLOCKING (may take a system call that waits: only at set-up and
// tear-down, never from a step) or NON-BLOCKING, and what may be returned.
//
// Asynchrony. `submit` is NON-BLOCKING in every table. It takes a span of requests and returns how
// many it took, from the front; the caller offers the rest again after the next completion. A taken
// request is finished by a push to its queue, at once (host MMU) or later (disk, GPU): callers
// treat both alike. `poll` is NON-BLOCKING and moves what has finished to the queues. `event_fd` is
// a file descriptor that becomes readable when a poll would find something, or -1 if the device
// finishes everything inside submit or only by being polled.
//
// Order. Requests of one table may finish in any order. Who needs an order waits for the first
// completion, or gives a `Fence`.
//
// Thread safety: unless an op says otherwise, calls on one device are serialised by the caller (the
// core lock); the device may push completions from its own threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "drivers/request.h"
#include "runtime/base/units.h"

namespace kvmm {

// ---------------------------------------------------------------------------------------- fences

// Work of the engine that must be over before a page may be unmapped.
struct Fence {
  enum class Kind : uint8_t {
    kNone,      // no work is in flight
    kCallback,  // `done(handle)` answers: called NON-BLOCKING from a step until it says true
    kEvent,     // `handle` is an event of the device (cuda: CUevent), asked through its driver
  };
  Kind kind = Kind::kNone;
  void* handle = nullptr;
  int (*done)(void* handle) = nullptr;  // non-zero: the work is over
};

// ---------------------------------------------------------------------------------------- memory

enum class FrameKind : uint8_t {
  kMovable,    // anonymous memory, exactly one mapping, one process; moves between address ranges
  kShareable,  // memfd: many mappings and processes; a frame belongs to one offset of its object
  kDma,        // pinned or registered: never moves, many users
};
const char* frame_kind_name(FrameKind kind) noexcept;

enum class Prot : uint8_t { kNone, kRead, kReadWrite };

// A run of `count` frames of `size` bytes each, one behind another in the device's address space.
// Frame i is at base + i * size. For copy and I/O, the frame's bytes are there while it is unmapped
// (movable) or always (shareable, dma).
struct FrameArea {
  FrameAddr base;
  Bytes frame_size;
  uint32_t count = 0;
  FrameKind kind = FrameKind::kMovable;
  uint64_t handle = 0;  // the device's
  FrameAddr frame(uint32_t i) const { return base + frame_size * i; }
};

enum class MmuOp : uint8_t {
  kMap,      // frame -> va. The frame's bytes become the page at va, atomically.
  kUnmap,    // va -> frame. Afterwards no access of the engine reaches the frame's bytes.
  kProtect,  // change the rights of mapped pages
  kPoison,   // va: an access gets an error (host: SIGBUS), never bytes
  kClear,    // va: back to "never mapped": drops poison and markers, gives page tables back
  kFree,     // fixed frames only: the frame of va, which is not mapped, gives its memory back; its
             // content is zeros from then on
};

// One page of a batch.
struct MapEntry {
  VirtAddr va;
  FrameAddr frame;          // kMap, kUnmap
  Errc result = Errc::kOk;  // set by the device, entry by entry: a batch may half succeed
  bool split = false;  // set by the device when a frame came back (kUnmap, a kMap that failed):
                       // whole, but no longer one huge page; DataOp::kRebuild heals it
};

struct MmuRequest : Request {
  MmuOp op = MmuOp::kMap;
  Prot prot = Prot::kReadWrite;  // kMap, kProtect
  Bytes page_size;               // of every entry
  Fence fence;                   // kUnmap, kPoison, kClear: not before this
  std::span<MapEntry> entries;   // the caller's; stays in place until completion
  // `result` is kOk if every entry is, else that of the first entry that failed. Per entry:
  //   kExists     kMap, kPoison, kClear: a page is mapped at va; it is left alone
  //   kNotFound   kUnmap: nothing is mapped at va; kMap: the frame has no content to map
  //   kBusy       the frame is held by I/O or a pin although bounded retries were made, or (kFree)
  //               it is mapped; nothing has changed
  //   kRange      va or frame is in nothing that this device made
  //   kIo         a page was left in two halves: the device is not to be trusted with it again
  //   kInvalid (alignment, size, a foreign frame or fence), kNoMemory (page tables), kLimit
  //   (mappings), kDeviceGone
};

// An access to a page that is not mapped, reported by a faulting MMU.
struct FaultEvent {
  VirtAddr va;  // rounded down to 4 KiB
  bool write = false;
  uint32_t thread = 0;  // OS thread id, 0 if unknown
};

struct MmuInfo {
  const char* name = "";
  Bytes granule;  // smallest page (host 4 KiB, cuda 2 MiB)
  Bytes page_size_max;
  bool faults =
      false;  // engine accesses to unmapped pages are reported (host), or impossible (cuda)
  bool asynchronous = false;             // completions may come later than submit
  bool protects = false;                 // kProtect and Prot::kRead are enforced
  bool poisons = false;                  // kPoison is enforced
  FrameKind kind = FrameKind::kMovable;  // the kind of frame that this MMU maps
  bool fixed_frames = false;   // a page's frame is decided by its address: see `fixed_frame`
  bool frames_zeroed = false;  // what `create_frames` made reads as zeros
};

struct MmuStats {
  uint64_t maps = 0, unmaps = 0, poisons = 0, clears = 0;
  uint64_t busy_retries = 0;  // EBUSY and EAGAIN seen and retried
  uint64_t frames_split = 0;  // huge frames that lost their huge page
};

class MmuOps {
 public:
  virtual ~MmuOps() = default;

  // REQUIRED, NON-BLOCKING.
  virtual MmuInfo info() const = 0;
  virtual MmuStats stats() const { return {}; }

  // REQUIRED, BLOCKING. A range of engine-visible addresses with nothing mapped; stays reserved
  // until `release`. `length` is a multiple of `align`, a power of two >= granule. `page_size` is
  // the page size that will mostly be mapped there (a hint: huge pages or not). Errors: kNoMemory,
  // kInvalid, kLimit.
  virtual Result<AddressRange> reserve(Bytes length, Bytes align, Bytes page_size) = 0;
  // REQUIRED, BLOCKING. REQUIRES: nothing is mapped in the range, no request on it is in flight.
  virtual void release(AddressRange range) = 0;

  // REQUIRED, BLOCKING. Frames of `size` bytes with undefined content (tests fill them; the host's
  // are populated, so that no step ever faults on them). `node` is the NUMA node to bind to.
  // Errors: kNoMemory, kInvalid (size), kNotSupported (kind), kPermission, kLimit.
  virtual Result<FrameArea> create_frames(Bytes size, uint32_t count, NodeId node) = 0;
  // REQUIRED, BLOCKING. REQUIRES: no frame of the area is mapped or used by I/O.
  virtual void destroy_frames(const FrameArea& area) = 0;
  // OPTIONAL (info().fixed_frames), NON-BLOCKING. The frame of the page at `va`, always there for
  // copies and I/O; `reserve` made it, without memory. Touching it through this address gives it
  // memory (zeros), MmuOp::kFree takes that back: a pool of such frames is a count, and
  // `create_frames` answers kNotSupported. Address 0: `va` is in no reserved range.
  virtual FrameAddr fixed_frame(VirtAddr va) const {
    (void)va;
    return FrameAddr(0);
  }

  // OPTIONAL, NON-BLOCKING. The 2 MiB frame at `frame`, which nobody uses, will be used as smaller
  // frames from now on. True: its bytes are as they were; false: they are undefined now. The host
  // takes its huge page apart here, so that the small frames stay runs of physical memory.
  virtual bool carve(FrameAddr frame) {
    (void)frame;
    return true;
  }

  // REQUIRED, NON-BLOCKING. Returns how many were taken.
  virtual size_t submit(std::span<MmuRequest* const> requests) = 0;
  // OPTIONAL (asynchronous devices), NON-BLOCKING.
  virtual void poll() {}
  virtual int event_fd() const { return -1; }

  // OPTIONAL (info().faults), NON-BLOCKING. Fills `out` from the front, returns how many; 0: none
  // now.
  virtual size_t read_faults(std::span<FaultEvent> out) {
    (void)out;
    return 0;
  }
  // OPTIONAL (info().faults), NON-BLOCKING. Lets threads that wait on [start, end) try again.
  virtual void wake(AddressRange range) { (void)range; }
  virtual int fault_fd() const { return -1; }
};

// ---------------------------------------------------------------------------------------- copies

struct CopyRequest : Request {
  FrameAddr from, to;  // addresses that the device reaches: its own frames and, for a GPU, dma
                       // frames of the host
  Bytes length;
  // Results: kInvalid (an address is unmapped or without access), kIo, kDeviceGone.
};

class CopyOps {
 public:
  virtual ~CopyOps() = default;
  // REQUIRED, NON-BLOCKING. Returns how many were taken. Ranges of one batch do not overlap.
  virtual size_t submit(std::span<CopyRequest* const> requests) = 0;
  // OPTIONAL, NON-BLOCKING.
  virtual void poll() {}
  virtual int event_fd() const { return -1; }
};

// ---------------------------------------------------------------------------------------- blocks

enum class BlockOp : uint8_t {
  kRead,
  kWrite,
  kFlush,
  kDiscard,  // OPTIONAL (info().discards): the range gives its place back; its content is undefined
  kGrow,     // OPTIONAL (info().grows_to): see BlockRequest::offset
};
// Who waits for it, most urgent first. A device may use it for I/O priorities.
enum class Urgency : uint8_t { kFault, kPrefetch, kWriteback, kBackground };
const char* urgency_name(Urgency u) noexcept;

struct BlockRequest : Request {
  BlockOp op = BlockOp::kRead;
  Urgency urgency = Urgency::kFault;
  std::byte* data = nullptr;  // kRead, kWrite; host memory, aligned to info().alignment
  uint64_t offset = 0;        // bytes from the start of the device, aligned likewise
  Bytes length;               // aligned likewise; <= info().length_max (kGrow: any)
  Tick submitted;             // the caller's; devices never look at it
  // kGrow: when it has finished, the device has place for [offset, offset + length), taken from the
  // file system, and a capacity of offset + length at least. offset <= capacity.
  // Results: kOk means all `length` bytes. A short read or write is kIo. kNoSpace (a sparse file
  // that cannot grow), kIo with os_error, kInvalid (alignment, outside capacity), kDeviceGone.
};

struct BlockInfo {
  const char* name = "";
  Bytes capacity;
  Bytes alignment;     // of data, offset and length (512 or 4096)
  Bytes length_max;    // of one request
  uint32_t depth = 0;  // requests that make sense in flight at once
  bool discards = false;
  Bytes grows_to;                 // kGrow: the largest capacity there can be; 0: it does not grow
  bool volatile_content = false;  // null: what is written is lost on purpose
};

class BlockOps {
 public:
  virtual ~BlockOps() = default;
  // REQUIRED, NON-BLOCKING.
  virtual BlockInfo info() const = 0;
  // REQUIRED, NON-BLOCKING. Returns how many were taken. kFlush finishes after every write that had
  // finished before it was submitted is on stable storage; it orders nothing else.
  virtual size_t submit(std::span<BlockRequest* const> requests) = 0;
  // REQUIRED, NON-BLOCKING.
  virtual void poll() = 0;
  // OPTIONAL.
  virtual int event_fd() const { return -1; }
  // OPTIONAL, NON-BLOCKING. The owner is about to sleep on event_fd(). True: do not, something has
  // finished already. From its first call on a device may leave the descriptor alone between a poll
  // and the next call, which spares one system call or two for each completion of a busy owner; an
  // owner that never calls it is told of everything.
  virtual bool arm() { return false; }
  // OPTIONAL, BLOCKING (set-up; kGrow is for while it runs). Grows (never shrinks) the device
  // without taking place for it. Errors: kNotSupported, kNoSpace, kIo.
  virtual Result<void> resize(Bytes capacity) {
    (void)capacity;
    return Errc::kNotSupported;
  }
};

// ---------------------------------------------------------------------------------------- data

enum class DataOp : uint8_t {
  kChecksum,  // XXH3-64 of every 64 KiB piece (the last may be shorter) into `digests`
  kZero,      // fill with zeros: a page that was never written
  kScrub,     // overwrite the bytes of another tenant (zeros that no optimiser may drop)
  kCopy,      // from -> addr
  kRebuild,   // OPTIONAL: makes a split huge frame one huge page again; the content becomes zeros
};

// Work on page bytes. It never runs inside a step: a step decides and submits, and the digests come
// back by completion (inline in the simulator, from N workers in the runtime, from a GPU kernel).
struct DataRequest : Request {
  DataOp op = DataOp::kChecksum;
  FrameAddr addr;
  FrameAddr from;  // kCopy
  Bytes length;
  std::span<uint64_t> digests;  // kChecksum: ceil(length / kPieceSize) of them
  // Results: kOk, kNotSupported, kDeviceGone.
};

class DataOps {
 public:
  virtual ~DataOps() = default;
  // REQUIRED, NON-BLOCKING. Returns how many were taken.
  virtual size_t submit(std::span<DataRequest* const> requests) = 0;
  // OPTIONAL, NON-BLOCKING.
  virtual void poll() {}
};

}  // namespace kvmm
