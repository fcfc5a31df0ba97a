// SPDX-License-Identifier: Apache-2.0
#include "drivers/error/error_driver.h"

#include <cerrno>
#include <limits>

#include "drivers/options.h"

namespace kvmm {
namespace {

struct Word {
  std::string_view text;
  uint8_t value;
};
constexpr Word kActions[] = {
    {"fail", static_cast<uint8_t>(ErrorAction::kFail)},
    {"shorten", static_cast<uint8_t>(ErrorAction::kShorten)},
    {"flip", static_cast<uint8_t>(ErrorAction::kFlip)},
    {"misdirect", static_cast<uint8_t>(ErrorAction::kMisdirect)},
    {"lose", static_cast<uint8_t>(ErrorAction::kLose)},
    {"tear", static_cast<uint8_t>(ErrorAction::kTear)},
    {"stale", static_cast<uint8_t>(ErrorAction::kStale)},
    {"refuse", static_cast<uint8_t>(ErrorAction::kRefuse)},
};
constexpr Word kOps[] = {
    {"read", mask_of(BlockOp::kRead)},   {"write", mask_of(BlockOp::kWrite)},
    {"flush", mask_of(BlockOp::kFlush)}, {"discard", mask_of(BlockOp::kDiscard)},
    {"grow", mask_of(BlockOp::kGrow)},
};

template <size_t N>
const Word* find_word(const Word (&words)[N], std::string_view text) {
  for (const Word& w : words) {
    if (w.text == text) {
      return &w;
    }
  }
  return nullptr;
}

Error not_understood(std::string_view word) {
  return Error(Errc::kInvalid, "error: rule: '" + std::string(word) +
                                   "' is not understood; for example "
                                   "fail/op:write/nth:3/count:1/errno:28");
}

// Cuts the part before `separator` off `text`.
std::string_view cut(std::string_view& text, char separator) {
  const size_t at = text.find(separator);
  const std::string_view head = text.substr(0, at);
  text = at == std::string_view::npos ? std::string_view() : text.substr(at + 1);
  return head;
}

Errc result_of_errno(uint64_t e) {
  return e == ENOSPC ? Errc::kNoSpace : e == ENODEV ? Errc::kDeviceGone : Errc::kIo;
}

class ErrorDevice final : public Device {
 public:
  ErrorDevice(DeviceInfo info, std::unique_ptr<Device> below, uint64_t seed, uint32_t depth)
      : Device(std::move(info)), below_(std::move(below)), block_(*below_->block(), seed, depth) {}
  const char* driver_name() const override { return "error"; }
  BlockOps* block() override { return &block_; }
  ErrorBlock& control() { return block_; }

 private:
  std::unique_ptr<Device> below_;  // before block_: destroyed after it
  ErrorBlock block_;
};

class ErrorDriver final : public Driver {
 public:
  const char* name() const override { return "error"; }
  const char* help() const override {
    return "stacks over a block device, fails by rules; seed=0, depth=256, "
           "rule=ACTION/op:OPS/nth:N/count:N/from:B/to:B/per_million:N/distance:B/errno:N";
  }
  bool probe(const DeviceInfo&) const override { return false; }
  Result<std::unique_ptr<Device>> bind(DeviceInfo info, std::unique_ptr<Device> below) override {
    if (below == nullptr || below->block() == nullptr) {
      return Error(Errc::kInvalid, "error: stacks over a block device, and there is none below");
    }
    auto options = Options::parse(name(), info.options, {"seed", "depth", "rule"});
    if (!options) {
      return options.error();
    }
    auto seed = options->number("seed", 0, 0, UINT64_MAX);
    auto depth = options->number("depth", 256, 1, 65536);
    if (!seed) {
      return seed.error();
    }
    if (!depth) {
      return depth.error();
    }
    auto device = std::make_unique<ErrorDevice>(std::move(info), std::move(below), *seed,
                                                static_cast<uint32_t>(*depth));
    for (const std::string& text : options->all("rule")) {
      auto rule = parse_error_rule(text);
      if (!rule) {
        return rule.error();
      }
      auto number = device->control().add_rule(*rule);
      if (!number) {
        return number.error();
      }
    }
    return std::unique_ptr<Device>(std::move(device));
  }
};

}  // namespace

Result<ErrorRule> parse_error_rule(std::string_view text) {
  ErrorRule rule;
  const std::string_view action = cut(text, '/');
  const Word* word = find_word(kActions, action);
  if (word == nullptr) {
    return not_understood(action);
  }
  rule.action = static_cast<ErrorAction>(word->value);
  while (!text.empty()) {
    const std::string_view item = cut(text, '/');
    std::string_view value = item;
    const std::string_view key = cut(value, ':');
    if (key == "op") {
      rule.ops = 0;
      do {
        const Word* op = find_word(kOps, cut(value, '+'));
        if (op == nullptr) {
          return not_understood(item);
        }
        rule.ops |= op->value;
      } while (!value.empty());
      continue;
    }
    auto number = parse_number(value);
    if (!number) {
      return not_understood(item);
    }
    if (key == "nth") {
      rule.nth = *number;
    } else if (key == "count") {
      rule.count = *number;
    } else if (key == "from") {
      rule.from = *number;
    } else if (key == "to") {
      rule.to = *number;
    } else if (key == "distance") {
      rule.distance = *number;
    } else if (key == "per_million" && *number <= 1'000'000) {
      rule.per_million = static_cast<uint32_t>(*number);
    } else if (key == "errno" && *number >= 1 && *number <= 4095) {
      rule.os_error = static_cast<int>(*number);
      rule.result = result_of_errno(*number);
    } else {
      return not_understood(item);
    }
  }
  return rule;
}

std::unique_ptr<Driver> make_error_driver() {
  return std::make_unique<ErrorDriver>();
}

ErrorBlock* find_error(Device& device) {
  auto* d = dynamic_cast<ErrorDevice*>(&device);
  return d == nullptr ? nullptr : &d->control();
}

}  // namespace kvmm
