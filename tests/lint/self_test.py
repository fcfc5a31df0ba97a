#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The lints are tested like everything else: each is shown a breach, and must see that one and no more.

Every case plants files in a tree of its own. Words that a lint looks for are put together here, so that
this file passes the lints itself.
"""

import os
import subprocess
import tempfile
import unittest

import dead_files
import file_size
import layering
import links
import lintlib
import no_sleep
import spdx
import top_level
import words

SPDX = "// SPDX-License-Identifier: Apache-2.0\n"
HERE = os.path.dirname(os.path.abspath(__file__))


class Planted(unittest.TestCase):
    def setUp(self):
        self._folder = tempfile.TemporaryDirectory(prefix="kvmm-lint-")
        self.root = self._folder.name

    def tearDown(self):
        self._folder.cleanup()

    def plant(self, path, text=""):
        full = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8") as f:
            f.write(text)

    def sees(self, lint, *expected):
        """The lint reports exactly these: (path, line, part of the text)."""
        found = lint.check(self.root)
        self.assertEqual([(v.path, v.line) for v in found], [(p, n) for p, n, _ in expected], found)
        for violation, (_, _, part) in zip(found, expected):
            self.assertIn(part, violation.text)


class Layering(Planted):
    def setUp(self):
        super().setUp()
        for path in ("runtime/base/a.h", "drivers/ops.h", "drivers/host/h.h", "vmm/v.h", "tiers/t.h",
                     "sched/s.h", "runtime/r.h", "runtime/include/kvmm/kvmm.h", "tools/x/x.h"):  # fmt: skip
            self.plant(path)

    def test_good_includes_pass(self):
        self.plant("runtime/base/b.cc", '#include "runtime/base/a.h"\n#include <vector>\n')
        self.plant("vmm/v.cc", '#include "vmm/v.h"\n#include "drivers/ops.h"\n#include <boost/x.hpp>\n')
        self.plant("tools/x/x.cc", '#include "tools/x/x.h"\n#include <kvmm/kvmm.h>\n#include "third/party.h"\n')
        self.plant("tests/unit/t.cc", '#include "sched/s.h"\n#include "drivers/host/h.h"\n')
        self.plant("runtime/r.cc", '#include "drivers/host/h.h"\n#include <thread>\n#include <chrono>\n')
        self.sees(layering)

    def test_every_pair_that_goes_up_is_seen(self):
        table = layering.layers()
        one_of = {"public": "kvmm/kvmm.h", "base": "runtime/base/a.h", "drivers": "drivers/ops.h",
                  "vmm": "vmm/v.h", "tiers": "tiers/t.h", "sched": "sched/s.h", "runtime": "runtime/r.h",
                  "tools": "tools/x/x.h", "wire": "runtime/control/protocol.h"}  # fmt: skip
        self.plant("runtime/control/protocol.h")
        breaches = 0
        for name, folder, allowed in table:
            for other, header in one_of.items():
                path = f"{folder}/planted.cc"
                self.plant(path, f'\n#include "{header}"\n')
                if other in allowed:
                    self.sees(layering)
                else:
                    self.sees(layering, (path, 2, f"{name} must not include"))
                    breaches += 1
                os.unlink(os.path.join(self.root, path))
        self.assertGreater(breaches, 30)

    def test_includes_are_written_from_the_root(self):
        self.plant("vmm/v.cc", '#include "v.h"\n#include "vmm/gone.h"\n')
        self.sees(layering, ("vmm/v.cc", 1, "from the root"), ("vmm/v.cc", 2, "there is no"))

    def test_no_threads_and_clocks_below_the_runtime(self):
        self.plant("sched/s.cc", "#include <thread>\n// #include <chrono>\nint x;\n#include <mutex>\n")
        self.plant("drivers/d.cc", 'auto p = get' + 'env("X");\nauto s = "time(";\nreq.time();\nuint64_t t(time(0));\n')
        self.plant("runtime/base/lock.h", "#include <mutex>\n")
        self.plant("runtime/base/c.cc", "#include <mutex>\n")
        self.sees(
            layering,
            ("drivers/d.cc", 1, "getenv"), ("drivers/d.cc", 4, "time("),
            ("runtime/base/c.cc", 1, "<mutex>"),
            ("sched/s.cc", 1, "<thread>"), ("sched/s.cc", 4, "<mutex>"),
        )  # fmt: skip

    def test_no_concrete_driver_above_the_drivers(self):
        self.plant("tiers/t.cc", '#include "drivers/host/h.h"\nbind("uring");\n// "cuda" is a comment\n')
        self.plant("vmm/v.cc", 'HostMmu* m;\nlog("the host is slow");\ncuMemMap(p);\nError e;\nDelay d;\n')
        self.plant("runtime/r.cc", 'registry.add("host");\n')
        self.sees(
            layering,
            ("tiers/t.cc", 1, "concrete driver"), ("tiers/t.cc", 2, '"uring"'),
            ("vmm/v.cc", 1, "HostMmu"), ("vmm/v.cc", 3, "cuMemMap"),
        )  # fmt: skip

    def test_no_floating_point_in_decisions(self):
        self.plant("sched/s.cc", "int a = 1;\ndouble cost = 0.5;\n// a double\n")
        self.plant("runtime/r.cc", "double shown = 0.5;\n")
        self.sees(layering, ("sched/s.cc", 2, "double"))


class TopLevel(Planted):
    def test_sees_what_is_extra_and_what_is_missing(self):
        for entry in top_level.ENTRIES:
            self.plant(entry if "." in entry or entry == "LICENSE" else f"{entry}/x")
        self.plant(".clang-tidy")
        self.sees(top_level)
        self.plant("notes.txt")
        os.unlink(os.path.join(self.root, "README.md"))
        self.sees(top_level, ("notes.txt", 0, "does not belong"), ("README.md", 0, "missing"))

    def test_with_git_only_what_is_tracked_counts(self):
        git = ["git", "-C", self.root, "-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run([*git, "init", "-q"], check=True)
        self.plant("tracked.txt")
        self.plant("untracked.txt")
        self.plant(".gitignore", "ignored.txt\n")
        self.plant("ignored.txt")
        subprocess.run([*git, "add", "tracked.txt"], check=True)
        self.assertEqual(lintlib.files(self.root, tracked_only=True), ["tracked.txt"])
        self.assertEqual(lintlib.files(self.root), [".gitignore", "tracked.txt", "untracked.txt"])


class Spdx(Planted):
    def test_sees_a_file_without_a_licence(self):
        self.plant("a.cc", SPDX)
        self.plant("b.cc", "int x;\n")
        self.plant("c", "#!/bin/bash\necho\n")
        self.plant("d", "no script\n")
        self.plant("e.py", "#!/usr/bin/env python3\n#" + SPDX[2:])
        self.plant("f/CMakeLists.txt", "\n" * 9 + "#" + SPDX[2:])
        self.sees(spdx, ("b.cc", 1, "SPDX"), ("c", 1, "SPDX"), ("f/CMakeLists.txt", 1, "SPDX"))


class NoSleep(Planted):
    def test_sees_sleeping_tests(self):
        nap = "sle" + "ep"
        self.plant("tests/a.cc", f"// {nap}(1)\nint x;\nstd::this_thread::{nap}_for(1ms);\n")
        self.plant("tests/b.cc", f'u{nap}(1);\nlog("{nap}(1)");\nnode.{nap}(1);\npo' "ll(nullptr, 0, 5);\n")
        self.plant("tests/c.py", f"import time\ntime.{nap}(1)\n")
        self.plant("tests/d", f"#!/bin/bash\necho {nap}s\n{nap} 1\nwhile :; do {nap} 0.1; done\n")
        self.plant("tools/e.cc", f"u{nap}(1);\n")
        self.sees(
            no_sleep,
            ("tests/a.cc", 3, "sleeps"), ("tests/b.cc", 1, "sleeps"), ("tests/b.cc", 4, "poll"),
            ("tests/c.py", 2, "sleeps"), ("tests/d", 3, "sleeps"), ("tests/d", 4, "sleeps"),
        )  # fmt: skip


class FileSize(Planted):
    def test_sees_a_long_file(self):
        self.plant("a.cc", "\n" * file_size.LINES_MAX)
        self.plant("b.cc", "\n" * (file_size.LINES_MAX + 1))
        self.plant("c.md", "\n" * 10000)
        self.sees(file_size, ("b.cc", 0, "501 lines"))

    def test_nothing_is_excused(self):
        self.assertEqual(file_size.ALLOWED, {})


class DeadFiles(Planted):
    def test_sees_a_header_that_only_its_own_file_includes(self):
        self.plant("vmm/used.h")
        self.plant("vmm/dead.h")
        self.plant("vmm/dead.cc", '#include "vmm/dead.h"\n#include "vmm/used.h"\n')
        self.plant("vmm/lost.h", '// #include "vmm/dead.h"\n')
        self.plant("runtime/include/kvmm/kvmm.h")
        self.sees(dead_files, ("vmm/dead.h", 0, "no file includes"), ("vmm/lost.h", 0, "no file includes"))


class Words(Planted):
    def test_sees_folders_outside_and_unfinished_work(self):
        self.plant("docs/a.md", "fine\nsee ../" + "shared/design\n")
        self.plant("b.cc", "open(\"/wo" + "rk/main\");\n// TO" + "DO: later\n")
        self.plant("c.sh", "$HOME/work/x  build/work/\n/ro" + "ot/.cache\n")
        self.sees(words, ("b.cc", 1, "machine"), ("b.cc", 2, "unfinished"), ("c.sh", 2, "machine"),
                  ("docs/a.md", 2, "outside"))  # fmt: skip


class Links(Planted):
    def test_sees_what_is_not_there(self):
        self.plant("docs/b.md", "# One `two`: three\n\n## Same\n\n## Same\n")
        self.plant("docs/sub/c.md")
        self.plant(
            "docs/a.md",
            "[b](b.md), [folder](sub), [root](../docs/b.md), [web](https://example.org/x.md)\n"
            "[h](b.md#one-two-three) [again](b.md#same-1) ![gone](gone.png)\n"
            "[no heading](b.md#four) [no third](b.md#same-2)\n"
            "`[code](x.md)`\n```\n[block](y.md)\n# no heading\n```\n[own](#no-heading)\n",
        )
        self.sees(
            links,
            ("docs/a.md", 2, "gone.png"), ("docs/a.md", 3, "four"), ("docs/a.md", 3, "same-2"),
            ("docs/a.md", 9, "no-heading"),
        )  # fmt: skip

    def test_sees_documents_named_in_code(self):
        self.plant("docs/there.md", "see `docs/not_there.md`\n")
        self.plant("vmm/a.h", "// docs/there.md says why.\n// docs/lost.md: why\n#include \"x/docs/other.md\"\n")
        self.sees(links, ("docs/there.md", 1, "not_there"), ("vmm/a.h", 2, "docs/lost.md"))


class Code(unittest.TestCase):
    def test_comments_and_strings_go_and_lines_stay(self):
        text = 'a // b\n"c // d" /* e\nf */ g R"x(h // i)x" 1\'000 \'"\' j'
        plain = lintlib.code(text)
        self.assertEqual(plain.count("\n"), text.count("\n"))
        self.assertEqual(plain.split(), ["a", "g", "1'000", "'\"'", "j"])
        self.assertIn('"c // d"', lintlib.code(text, strings=True))


class HeadersAlone(Planted):
    """headers.cmake, in a project of its own."""

    def build(self):
        self.plant(
            "CMakeLists.txt",
            "cmake_minimum_required(VERSION 3.25)\nproject(planted LANGUAGES C CXX)\n"
            f"include({HERE}/headers.cmake)\nkvmm_headers_alone(alone ${{CMAKE_SOURCE_DIR}})\n",
        )
        build = os.path.join(self.root, "build")
        subprocess.run(["cmake", "-S", self.root, "-B", build], check=True, capture_output=True)
        command = ["cmake", "--build", build, "--target", "alone"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def test_sees_a_header_that_needs_its_neighbour(self):
        self.plant("vmm/good.h", "#pragma once\n#include <cstdint>\ninline uint64_t one() { return 1; }\n")
        self.plant("runtime/include/kvmm/k.h", "typedef int kvmm_int;\n")
        self.assertEqual(self.build().returncode, 0)
        self.plant("vmm/bad.h", "#pragma once\ninline one_t two() { return 2; }\n")
        done = self.build()
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("one_t", done.stdout + done.stderr)

    def test_sees_a_header_without_a_guard_and_one_that_is_no_c(self):
        self.plant("vmm/twice.h", "struct Twice {};\n")
        self.assertIn("redefinition", "".join(self.build_texts()))
        os.unlink(os.path.join(self.root, "vmm/twice.h"))
        self.plant("runtime/include/kvmm/k.h", "class NoC;\n")
        self.assertNotEqual(self.build().returncode, 0)

    def build_texts(self):
        done = self.build()
        self.assertNotEqual(done.returncode, 0)
        return done.stdout, done.stderr


if __name__ == "__main__":
    unittest.main()
