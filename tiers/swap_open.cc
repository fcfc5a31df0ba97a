// SPDX-License-Identifier: Apache-2.0
//
// Opening a swap area: set-up work, so it may wait for the device.
#include <algorithm>
#include <bit>
#include <cerrno>
#include <string>
#include <utility>

#include "tiers/swap_area.h"

namespace kvmm {
namespace {

// Where file systems, partition tables and RAID keep their signatures: boot sectors and most
// superblocks in the first 128 KiB (btrfs at 64 KiB, ZFS labels up to 512 KiB), backup partition
// tables and RAID 0.90 superblocks in the last 128 KiB.
constexpr uint64_t kBlankHead = kMiB;
constexpr uint64_t kBlankTail = 128 * kKiB;

constexpr uint32_t kIndexBuffersMax = 4096;
constexpr Bytes kSizeMax = Bytes(uint64_t{1} << 50);  // its headers in memory: 16 TiB of addresses

}  // namespace

Result<void> SwapAreaConfig::validate() const {
  if (name.empty()) {
    return Error(Errc::kInvalid, "a swap area needs a name");
  }
  if (size > kSizeMax) {
    return Error(Errc::kInvalid, name + ": a swap area has at most 1 PiB");
  }
  if (index_buffers == 0 || index_buffers > kIndexBuffersMax) {
    return Error(Errc::kInvalid, "index_buffers must be 1 to 4096");
  }
  // Unit and extent alone: does a layout exist that is large enough for anything?
  if (auto g = lay_out(Bytes(uint64_t{1} << 50), unit, extent); !g) {
    return g.error();
  }
  return {};
}

SwapArea::SwapArea(BlockOps& block, SwapAreaConfig config)
    : block_(block), config_(std::move(config)), info_(block.info()) {}

Result<std::unique_ptr<SwapArea>> SwapArea::open(BlockOps& block, SwapAreaConfig config) {
  if (Result<void> valid = config.validate(); !valid) {
    return valid.error();
  }
  std::unique_ptr<SwapArea> area(new SwapArea(block, std::move(config)));
  if (Result<void> r = area->check_device(); !r) {
    return r.error();
  }
  // Everything that can fail comes before the one write.
  if (Result<void> r = area->identify(); !r) {
    return r.error();
  }
  if (Result<void> r = area->allocate_tables(); !r) {
    return r.error();
  }
  if (Result<void> r = area->make_room(); !r) {
    return r.error();
  }
  // The first index buffer is aligned and not yet in use.
  auto buffer = std::span(area->buffers_.data(), kSuperblockSize.value());
  if (Result<void> r = area->write_superblock(buffer); !r) {
    return r.error();
  }
  area->config_.wait = nullptr;  // whatever it holds may go away now
  return area;
}

// One request, to its end. Every turn of the loop gives the device its chance to make progress; a
// taken request always completes (drivers/request.h).
Result<void> SwapArea::run(BlockOp op, std::span<std::byte> data, uint64_t offset) {
  CompletionQueue queue;
  BlockRequest request;
  request.queue = &queue;
  request.op = op;
  request.urgency = Urgency::kBackground;
  request.data = data.data();
  request.offset = offset;
  request.length = Bytes(data.size());
  BlockRequest* one = &request;
  bool taken = block_.submit(std::span(&one, 1)) == 1;
  while (!taken || queue.pop() == nullptr) {
    block_.poll();
    if (!queue.empty()) {
      continue;
    }
    if (config_.wait) {
      config_.wait();
    }
    taken = taken || block_.submit(std::span(&one, 1)) == 1;
  }
  if (request.result != Errc::kOk) {
    return Error(request.result,
                 config_.name + ": " + (op == BlockOp::kRead ? "reading" : "writing") +
                     " at byte " + std::to_string(offset),
                 request.os_error);
  }
  return {};
}

Result<void> SwapArea::check_device() {
  const uint64_t alignment = info_.alignment.value();
  if (!std::has_single_bit(alignment) || alignment > kSuperblockSize.value() ||
      config_.unit.value() % alignment != 0) {
    return Error(Errc::kInvalid, config_.name + ": the device wants its I/O aligned to " +
                                     std::to_string(alignment) +
                                     " bytes; a swap area has units of " +
                                     std::to_string(config_.unit.value()));
  }
  if (info_.length_max < kSuperblockSize) {
    return Error(Errc::kInvalid, config_.name + ": the device takes no request of 4 KiB");
  }
  if (info_.capacity.value() == 0 && config_.size.value() != 0) {
    // An empty file: nothing there that growing could harm.
    if (Result<void> grown = block_.resize(kSuperblockSize); !grown) {
      return grown.error();
    }
    info_ = block_.info();
  }
  if (info_.capacity < kSuperblockSize) {
    return Error(Errc::kInvalid, config_.name + ": too small for a swap area: " +
                                     std::to_string(info_.capacity.value()) + " bytes");
  }
  return {};
}

Result<void> SwapArea::identify() {
  auto memory = LazyArray<std::byte>::create(kBlankHead);
  if (!memory) {
    return memory.error();
  }
  const auto buffer = std::span(memory->data(), memory->size());
  Superblock found;
  found.uuid = config_.uuid;
  if (!config_.force_format) {
    if (Result<void> r = run(BlockOp::kRead, buffer.first(kSuperblockSize.value()), 0); !r) {
      return r;
    }
    auto decoded = decode_superblock(ConstSuperblockBytes(buffer.first<kSuperblockSize.value()>()));
    if (decoded) {
      found = *decoded;
    } else if (decoded.code() != Errc::kInvalid) {
      return Error(
          decoded.code(),
          config_.name + ": " + decoded.error().detail +
              "; if nothing in it is wanted, delete it (a device: zero its head and tail)");
    } else if (Result<void> blank = check_blank(buffer); !blank) {
      return blank;
    }
  }
  if (!is_zero(found.model_id) && !is_zero(config_.model_id) &&
      found.model_id != config_.model_id) {
    return Error(Errc::kModelMismatch,
                 config_.name +
                     ": the area is dedicated to another model; use another file, or "
                     "delete it");
  }
  Bytes most = std::max(info_.capacity, info_.grows_to);
  if (config_.size > most && info_.grows_to.value() == 0) {
    if (Result<void> grown = block_.resize(config_.size); !grown) {
      return Error(grown.code() == Errc::kNotSupported ? Errc::kInvalid : grown.code(),
                   config_.name + ": the device has " + std::to_string(info_.capacity.value()) +
                       " bytes and cannot grow to " + std::to_string(config_.size.value()),
                   grown.error().os_error);
    }
    info_ = block_.info();
    most = info_.capacity;
  }
  if (config_.size > most) {
    return Error(Errc::kNoSpace, config_.name + ": can grow to " + std::to_string(most.value()) +
                                     " bytes, not to " + std::to_string(config_.size.value()) +
                                     "; a file: see ulimit -f");
  }
  // What an earlier opening left is given up, so the layout may be a new one.
  const Bytes size = config_.size.value() == 0 ? info_.capacity : std::min(config_.size, most);
  auto geometry = lay_out(size, config_.unit, config_.extent);
  if (!geometry) {
    return Error(geometry.code(), config_.name + ": " + geometry.error().detail);
  }
  superblock_ = found;
  superblock_.geometry = *geometry;
  ++superblock_.epoch;
  if (!is_zero(config_.model_id)) {
    superblock_.model_id = config_.model_id;
  }
  seed_ = superblock_.header_seed();
  units_per_extent_ = static_cast<uint32_t>(geometry->extent / geometry->unit);
  return {};
}

// No superblock of ours: only a device without any content may be taken.
Result<void> SwapArea::check_blank(std::span<std::byte> buffer) {
  const uint64_t alignment = std::max(info_.alignment.value(), uint64_t{512});
  const uint64_t capacity = round_down(info_.capacity.value(), alignment);
  const uint64_t head = std::min(capacity, kBlankHead);
  const uint64_t tail = std::min(capacity, kBlankTail);
  const std::array<std::pair<uint64_t, uint64_t>, 2> parts = {std::pair(uint64_t{0}, head),
                                                              std::pair(capacity - tail, capacity)};
  const uint64_t step =
      round_down(std::min<uint64_t>(info_.length_max.value(), buffer.size()), alignment);
  for (const auto& [start, end] : parts) {
    for (uint64_t at = start; at < end; at += step) {
      const auto piece = buffer.first(std::min(step, end - at));
      if (Result<void> r = run(BlockOp::kRead, piece, at); !r) {
        return r;
      }
      if (!is_zero(piece)) {
        return Error(Errc::kInvalid, config_.name + ": " +
                                         (config_.path.empty() ? "the device" : config_.path) +
                                         " has content and is not a swap area; use a new file");
      }
    }
  }
  return {};
}

Result<void> SwapArea::allocate_tables() {
  const SwapGeometry& g = superblock_.geometry;
  auto headers = LazyArray<SlotHeader>::create(g.index_sectors() * kHeadersPerSector);
  auto extents = LazyArray<Extent>::create(g.units / units_per_extent_);
  auto sectors = LazyArray<Sector>::create(g.index_sectors());
  auto buffers =
      LazyArray<std::byte>::create(size_t{config_.index_buffers} * kIndexSectorSize.value());
  if (!headers || !extents || !sectors || !buffers) {
    return Error(Errc::kNoMemory, config_.name + ": no address space for the slot index");
  }
  headers_ = std::move(*headers);
  extents_ = std::move(*extents);
  sectors_ = std::move(*sectors);
  buffers_ = std::move(*buffers);
  free_buffers_.reserve(config_.index_buffers);
  for (uint32_t b = config_.index_buffers; b-- > 0;) {
    free_buffers_.push_back(b);
  }
  return {};
}

// Superblock and index must be inside the device; the extents follow as they are needed.
Result<void> SwapArea::make_room() {
  const SwapGeometry& g = superblock_.geometry;
  if (info_.capacity.value() < g.data_offset) {
    if (Result<void> r = block_.resize(Bytes(g.data_offset)); !r) {
      return r;
    }
    info_ = block_.info();
  }
  const uint64_t there = (info_.capacity.value() - g.data_offset) / g.extent.value();
  grown_ = static_cast<uint32_t>(std::min<uint64_t>(there, extents_.size()));
  step_max_ = kGrowthMax;
  return {};
}

Result<void> SwapArea::write_superblock(std::span<std::byte> buffer) {
  encode_superblock(superblock_, SuperblockBytes(buffer.first<kSuperblockSize.value()>()));
  if (Result<void> r = run(BlockOp::kWrite, buffer, 0); !r) {
    return r;
  }
  return run(BlockOp::kFlush, {}, 0);
}

}  // namespace kvmm
