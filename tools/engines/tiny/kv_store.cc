// SPDX-License-Identifier: Apache-2.0
#include "tools/engines/tiny/kv_store.h"

namespace tiny {

std::string plane_name(uint32_t plane) {
  return std::string(plane % 2 == 0 ? "k_l" : "v_l") + std::to_string(plane / 2);
}

Row* PlainView::at(uint32_t plane, uint64_t token) {
  auto& rows = rows_[plane];
  return token < rows.size() && rows[token] ? &*rows[token] : nullptr;
}

Access PlainView::read(uint32_t plane, uint64_t token, Row* row) {
  const Row* have = at(plane, token);
  if (have == nullptr)
    return Access::kGone;
  *row = *have;
  return Access::kOk;
}

Access PlainView::write(uint32_t plane, uint64_t token, const Row& row) {
  auto& rows = rows_[plane];
  if (token >= rows.size())
    rows.resize(token + 1);
  rows[token] = row;
  return Access::kOk;
}

std::string Mismatch::describe() const {
  uint32_t i = 0;
  while (i + 1 < kRowValues && want[i] == have[i])
    ++i;
  return "session " + std::to_string(session) + ": " + plane_name(plane) + " token " +
         std::to_string(token) + (on_write ? ": computed again as " : ": read ") +
         std::to_string(have[i]) + ", should be " + std::to_string(want[i]) + " (value " +
         std::to_string(i) + ")";
}

Access CheckedView::differs(uint32_t plane, uint64_t token, bool on_write, const Row& want,
                            const Row& have) {
  mismatch_ = Mismatch{session_, plane, token, on_write, want, have};
  return Access::kWrong;
}

Access CheckedView::read(uint32_t plane, uint64_t token, Row* row) {
  if (mismatch_)
    return Access::kWrong;
  if (Access a = below_.read(plane, token, row); a != Access::kOk)
    return a;
  const auto& expected = expected_[plane];
  const bool known = token < expected.size() && expected[token].has_value();
  ++reads_checked_;
  if (!known)
    return differs(plane, token, false, Row{}, *row);
  if (*expected[token] != *row)
    return differs(plane, token, false, *expected[token], *row);
  return Access::kOk;
}

Access CheckedView::write(uint32_t plane, uint64_t token, const Row& row) {
  if (mismatch_)
    return Access::kWrong;
  auto& expected = expected_[plane];
  if (token >= expected.size())
    expected.resize(token + 1);
  if (!expected[token]) {
    expected[token] = row;
  } else if (*expected[token] != row) {
    return differs(plane, token, true, *expected[token], row);
  }
  return below_.write(plane, token, row);
}

}  // namespace tiny
