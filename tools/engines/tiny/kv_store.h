// SPDX-License-Identifier: Apache-2.0
//
// Where K/V rows lie: in plain memory (the reference), and a view that knows every value it should
// read.
//
//   Model::forward --> CheckedView --> PlainView    rows in a vector
//                           |      \-> KvmmView     rows in kvmm memory (kvmm_store.h)
//                       its own copy of each row, in plain memory
//
// Thread safety: none; a view belongs to whoever runs its sequence.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tools/engines/tiny/model.h"

namespace tiny {

// "k_l0", "v_l3".
std::string plane_name(uint32_t plane);

// Rows of one sequence in plain memory, growing as they are written. Reading a row that was never
// written answers kGone.
class PlainView : public KvView {
 public:
  Access read(uint32_t plane, uint64_t token, Row* row) override;
  Access write(uint32_t plane, uint64_t token, const Row& row) override;

  // For tests: the row itself, or null.
  Row* at(uint32_t plane, uint64_t token);

 private:
  std::array<std::vector<std::optional<Row>>, kPlanes> rows_;
};

// One value that was not what it should have been.
struct Mismatch {
  uint32_t session = 0;
  uint32_t plane = 0;
  uint64_t token = 0;
  bool on_write = false;  // a row computed again came out differently (else: a row read was wrong)
  Row want{}, have{};

  // "session 3: v_l1 token 17: read -12, should be 40 (value 5)".
  std::string describe() const;
};

// Passes everything on to another view and compares: each row read with the row written last, each
// row written again with the row written first. The comparison is made on the copy that the model
// uses, so a page that changes between two reads is seen too. After the first difference every
// access is kWrong.
class CheckedView : public KvView {
 public:
  // `below` must outlive this.
  CheckedView(uint32_t session, KvView& below) : session_(session), below_(below) {}

  Access read(uint32_t plane, uint64_t token, Row* row) override;
  Access write(uint32_t plane, uint64_t token, const Row& row) override;

  const std::optional<Mismatch>& mismatch() const { return mismatch_; }
  uint64_t reads_checked() const { return reads_checked_; }

 private:
  Access differs(uint32_t plane, uint64_t token, bool on_write, const Row& want, const Row& have);

  uint32_t session_;
  KvView& below_;
  std::array<std::vector<std::optional<Row>>, kPlanes> expected_;
  std::optional<Mismatch> mismatch_;
  uint64_t reads_checked_ = 0;
};

}  // namespace tiny
