// SPDX-License-Identifier: Apache-2.0
//
// What the memory manager tells those who look: trace events, static probes, times of faults. It
// decides nothing: take this file away and every page goes the same way.
#include "runtime/base/probes.h"
#include "sched/mm.h"

namespace kvmm {
namespace {

uint64_t home_of(const Page& p) {
  const AddressSpace* home = p.object->home();
  return home != nullptr ? home->id() : 0;
}

uint64_t name_of(const Page& p) {
  const auto& vmas = p.object->vmas();
  return trace_page(vmas.empty() ? 0 : vmas.front().plane, p.index);
}

}  // namespace

// The moment, as exact as there is a clock for it: the step's own time stands still while it runs.
Tick Mm::moment() const {
  return clock_ != nullptr ? clock_->now() : now_;
}

void Mm::trace(TraceEvent event, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e) {
  if (trace_ != nullptr && trace_->enabled(event)) {
    trace_->record(moment(), event, a, b, c, d, e);
  }
}

void Mm::trace_of(TraceEvent event, const Page& p, uint64_t c, uint64_t d, uint64_t e) {
  if (trace_ != nullptr && trace_->enabled(event)) {
    trace_->record(moment(), event, home_of(p), name_of(p), c, d, e);
  }
}

void Mm::fault_began(const FaultEvent& fault, const Vma& vma, const Page& p, FaultKind kind) {
  const uint64_t session = vma.space->id();
  const uint64_t page = trace_page(vma.plane, p.index);
  open_faults_.begin({&p, session, page, now_, kind});
  const uint64_t write = fault.write ? 1 : 0;
  if (trace_ != nullptr) {  // stamped with the time at which the core read it
    trace_->record(now_, TraceEvent::fault_begin, session, page, fault.va.value(), write,
                   static_cast<uint64_t>(kind));
  }
  KVMM_PROBE5(fault_begin, session, page, fault.va.value(), write, static_cast<uint64_t>(kind));
}

void Mm::fault_ended(const Page& p, Errc why) {
  OpenFaults::Entry f;
  if (!open_faults_.end(&p, &f)) {
    return;
  }
  const Tick end = moment();
  const uint64_t ns = end > f.began ? (end - f.began).value() : 0;
  if (static_cast<size_t>(f.kind) < stats_.fault_ns.size()) {
    stats_.fault_ns[static_cast<size_t>(f.kind)].record(ns);
  }
  if (trace_ != nullptr) {
    trace_->record(end, TraceEvent::fault_end, f.session, f.page_name, static_cast<uint64_t>(why),
                   ns, static_cast<uint64_t>(f.kind));
  }
  KVMM_PROBE5(fault_end, f.session, f.page_name, static_cast<uint64_t>(why), ns,
              static_cast<uint64_t>(f.kind));
}

void Mm::read_began(const PageOp& op) {
  const Page& p = *op.page;
  const uint64_t bytes = p.object->page_size().value();
  trace_of(TraceEvent::read, p, p.slot, bytes, op.chunks_used);
  KVMM_PROBE4(swap_in_begin, home_of(p), name_of(p), p.slot, bytes);
}

uint64_t Mm::read_ended(const PageOp& op, Errc why) {
  const Page& p = *op.page;
  const uint64_t ns = (moment() - op.started).value();
  trace_of(TraceEvent::swap_in, p, p.slot, static_cast<uint64_t>(why), ns);
  KVMM_PROBE5(swap_in_end, home_of(p), name_of(p), p.slot, static_cast<uint64_t>(why), ns);
  return ns;
}

uint64_t Mm::write_ended(const PageOp& op, Errc why) {
  const Page& p = *op.page;
  const uint64_t ns = (moment() - op.started).value();
  trace_of(TraceEvent::swap_out, p, op.slot.value(), static_cast<uint64_t>(why), ns);
  KVMM_PROBE5(swap_out, home_of(p), name_of(p), op.slot.value(), static_cast<uint64_t>(why), ns);
  return ns;
}

void Mm::verify_failed(const Page& p, Errc why) {
  trace_of(TraceEvent::verify_fail, p, p.slot, static_cast<uint64_t>(why));
  KVMM_PROBE4(verify_fail, home_of(p), name_of(p), p.slot, static_cast<uint64_t>(why));
}

void Mm::victim_chosen(const Page& p) {
  trace_of(TraceEvent::victim, p, reclaim_by_, reclaim_pass_);
  KVMM_PROBE4(reclaim_victim, home_of(p), name_of(p), reclaim_by_, reclaim_pass_);
}

// A piece of a page that was handed to its device, or came back from it.
void Mm::trace_piece(TraceEvent event, const BlockRequest& io) {
  if (trace_ == nullptr || !trace_->enabled(event) ||
      static_cast<RequestKind>(io.kind) != RequestKind::kPageIo) {
    return;
  }
  const auto& op = *static_cast<const PageOp*>(io.owner);
  uint64_t piece = 0;
  while (piece + 1 < op.chunks_used && &op.chunks[piece].io != &io) {
    ++piece;
  }
  const bool submit = event == TraceEvent::io_submit;
  trace_of(event, *op.page, piece, submit ? io.length.value() : static_cast<uint64_t>(io.result),
           io.op == BlockOp::kWrite ? 1 : 0);
}

}  // namespace kvmm
