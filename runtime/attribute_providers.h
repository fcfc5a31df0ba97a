// SPDX-License-Identifier: Apache-2.0
//
// Directories of the attribute tree that come and go: arenas, sessions, swap areas. Their entries
// are looked up when somebody asks; see runtime/attributes.h for the thread safety.
#pragma once

#include <string>
#include <vector>

#include "runtime/attributes.h"

namespace kvmm {

class RuntimeAttributes::Arenas final : public AttrProvider {
 public:
  explicit Arenas(Runtime& runtime) : runtime_(runtime) {}
  static std::vector<const AttrDef*> defs();
  std::vector<std::string> entries() override;
  bool contains(std::string_view entry) override;
  Result<AttrValue> get(std::string_view entry, const AttrDef& def) override;
  Result<void> set(std::string_view entry, const AttrDef& def, const AttrValue& value) override;

 private:
  Runtime& runtime_;
};

class RuntimeAttributes::Sessions final : public AttrProvider {
 public:
  explicit Sessions(Runtime& runtime) : runtime_(runtime) {}
  static std::vector<const AttrDef*> defs();
  std::vector<std::string> entries() override;
  bool contains(std::string_view entry) override;
  Result<AttrValue> get(std::string_view entry, const AttrDef& def) override;
  Result<void> set(std::string_view entry, const AttrDef& def, const AttrValue& value) override;

 private:
  Runtime& runtime_;
};

class RuntimeAttributes::Swap final : public AttrProvider {
 public:
  explicit Swap(Runtime& runtime) : runtime_(runtime) {}
  static std::vector<const AttrDef*> defs();
  std::vector<std::string> entries() override;
  bool contains(std::string_view entry) override;
  Result<AttrValue> get(std::string_view entry, const AttrDef& def) override;
  Result<void> set(std::string_view entry, const AttrDef& def, const AttrValue& value) override;

 private:
  Runtime& runtime_;
};

}  // namespace kvmm
