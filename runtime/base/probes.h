// SPDX-License-Identifier: Apache-2.0
//
// Static probes (USDT) of provider `kvmm`: places where bpftrace, perf or gdb look into a running
// engine without its help.
//
//   KVMM_PROBE4(swap_out, session, page, slot, ns)   one nop, and a note in the library that says
//                                                    where it is and where the arguments lie
//
// Nobody attached: the nop, and what it takes to have the arguments at hand, so they are values
// that the code has anyway. Which probes there are, and what their arguments mean, is a contract:
// docs/operating/tracing.md, held against the library by a test.
//
// The header that makes them is Debian's systemtap-sdt-dev. Without it they are nothing at all.
#pragma once

#if defined(__linux__) && __has_include(<sys/sdt.h>)
#include <sys/sdt.h>
#define KVMM_PROBE2(name, a, b) STAP_PROBE2(kvmm, name, a, b)
#define KVMM_PROBE3(name, a, b, c) STAP_PROBE3(kvmm, name, a, b, c)
#define KVMM_PROBE4(name, a, b, c, d) STAP_PROBE4(kvmm, name, a, b, c, d)
#define KVMM_PROBE5(name, a, b, c, d, e) STAP_PROBE5(kvmm, name, a, b, c, d, e)
#else
#define KVMM_PROBE2(name, a, b) ((void)(a), (void)(b))
#define KVMM_PROBE3(name, a, b, c) ((void)(a), (void)(b), (void)(c))
#define KVMM_PROBE4(name, a, b, c, d) ((void)(a), (void)(b), (void)(c), (void)(d))
#define KVMM_PROBE5(name, a, b, c, d, e) ((void)(a), (void)(b), (void)(c), (void)(d), (void)(e))
#endif
