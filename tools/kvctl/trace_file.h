// SPDX-License-Identifier: Apache-2.0
//
// A recorded trace (docs/formats/trace.md): lines of JSON, written as they come, read with
// suspicion.
//
//   {"kvmm_trace":1,"runtime":"llama-server","pid":4242,"schema":[...]}
//   [17,5012345,"map",3,17,139,0]                    events, their numbers ascend
//   {"lost":12}                                      that many are missing here
//   {"end":true,"events":1,"lost":12}                nothing follows
//
// Thread safety: none; one thread a file.
#pragma once

#include <cstdio>
#include <memory>
#include <optional>
#include <string>

#include "tools/kvctl/trace_rows.h"

namespace kvmm::ctl {

class TraceWriter {
 public:
  // Makes or replaces the file, readable by its owner only. Errors: kIo.
  static Result<TraceWriter> create(const std::string& path, const Hello& from,
                                    const TraceSchema& schema);
  Result<void> event(const TraceRow& row);
  Result<void> lost(uint64_t count);
  // Writes the last line and closes. A file without it is known to have been cut off.
  Result<void> end();

 private:
  struct Close {
    void operator()(std::FILE* f) const { std::fclose(f); }
  };
  TraceWriter(std::string path, std::FILE* file) : path_(std::move(path)), file_(file) {}
  Result<void> line(const std::string& text);

  std::string path_;
  std::unique_ptr<std::FILE, Close> file_;
  uint64_t events_ = 0;
  uint64_t lost_ = 0;
};

class TraceReader {
 public:
  struct Line {
    std::optional<TraceRow> event;
    uint64_t lost = 0;
  };

  // Errors: kIo, kCorrupt; their text names the file, the line and the byte where it begins.
  static Result<TraceReader> open(const std::string& path);
  const TraceSchema& schema() const { return schema_; }
  // The next event or gap; an empty optional at the end.
  Result<std::optional<Line>> next();

 private:
  struct Close {
    void operator()(std::FILE* f) const { std::fclose(f); }
  };
  TraceReader(std::string path, std::FILE* file) : path_(std::move(path)), file_(file) {}
  Result<std::string> read_line();
  Error bad(const std::string& what) const;
  Result<void> read_head();

  std::string path_;
  std::unique_ptr<std::FILE, Close> file_;
  TraceSchema schema_;
  uint64_t line_ = 0;   // the one read last, from 1
  uint64_t begin_ = 0;  // its first byte
  uint64_t at_ = 0;
  std::optional<uint64_t> last_number_;
  uint64_t events_ = 0;
  uint64_t lost_ = 0;
};

}  // namespace kvmm::ctl
