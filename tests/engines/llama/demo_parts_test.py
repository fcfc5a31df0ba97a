#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The demo's parts alone: comparison, chats, sampling, cache, messages. No engine, no kvmm."""

import errno
import json
import mmap
import os
import subprocess
import sys
import tempfile
import unittest
import zipfile
from unittest import mock

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
sys.path[:0] = [os.path.join(ROOT, "tools", part) for part in ("demo.d", "engines/llama")]

import chats  # noqa: E402
import compare  # noqa: E402
import fetch  # noqa: E402
import host  # noqa: E402
import report  # noqa: E402
import sampler  # noqa: E402
import verdict  # noqa: E402
from runner import Schedule  # noqa: E402


def line(token=7, logprob=-0.25, top=((7, -0.25), (8, -1.5))):
    return {"id": token, "logprob": logprob, "top": [list(pair) for pair in top]}


class CompareTest(unittest.TestCase):
    def test_same(self):
        result = compare.compare({(0, 0, 0): line()}, {(0, 0, 0): line()})
        self.assertTrue(result.identical)
        self.assertEqual((result.tokens, result.logprobs), (1, 3))

    def test_last_bit_counts(self):
        near = compare.compare(
            {(0, 0, 0): line(logprob=-0.1)}, {(0, 0, 0): line(logprob=-0.1 - 2**-56)}
        )
        self.assertNotEqual(-0.1, -0.1 - 2**-56)
        self.assertTrue(near.tokens_identical)
        self.assertFalse(near.logprobs_identical)
        self.assertIn("chat 0, turn 0, token 0: the log-probability", near.first_difference)

    def test_sign_of_zero_counts(self):
        self.assertFalse(
            compare.compare(
                {(0, 0, 0): line(logprob=0.0)}, {(0, 0, 0): line(logprob=-0.0)}
            ).identical
        )

    def test_alternatives_count(self):
        other = line(top=((7, -0.25), (9, -1.5)))
        self.assertFalse(
            compare.compare({(0, 0, 0): line()}, {(0, 0, 0): other}).logprobs_identical
        )

    def test_token_differs(self):
        result = compare.compare({(3, 1, 4): line(7)}, {(3, 1, 4): line(9)})
        self.assertFalse(result.tokens_identical)
        self.assertEqual(
            result.first_difference, "chat 3, turn 1, token 4: the token is 7 against 9"
        )

    def test_missing_token_differs(self):
        both = {(0, 0, 0): line(), (0, 0, 1): line()}
        self.assertFalse(compare.compare(both, {(0, 0, 0): line()}).identical)
        self.assertFalse(compare.compare({(0, 0, 0): line()}, both).identical)

    def test_nothing_compared_is_not_identical(self):
        self.assertFalse(compare.compare({}, {}).identical)
        some = {(0, 0, 0): line()}
        self.assertFalse(compare.compare(some, some, lambda chat, turn: chat == 5).identical)

    def test_transcript_keeps_every_bit(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "t.jsonl")
            transcript = compare.Transcript(path)
            value = -0.004984083119779825
            top = [[5, value], [6, -1e-300], [7, -3.0], [8, -4.0], [9, -5.0]]
            transcript.add(1, 2, [5], [[value, *top]])
            transcript.close()
            read = compare.load(path)[(1, 2, 0)]
            self.assertEqual(compare.bits(read["logprob"]), compare.bits(value))
            self.assertEqual(read["top"], top)
            with open(path, "a", encoding="ascii") as file:
                file.write(json.dumps({"chat": 1, "turn": 2, "index": 0}) + "\n")
            with self.assertRaises(ValueError):
                compare.load(path)


    def test_fewer_alternatives_than_promised_are_refused(self):
        top = [[token, -float(token)] for token in range(1, 5)]
        with tempfile.TemporaryDirectory() as folder:
            transcript = compare.Transcript(os.path.join(folder, "t.jsonl"))
            transcript.add(0, 0, [1], [[-1.0, *top, [5, -5.0]]])
            for few in ([[-1.0, *top]], [[-1.0]]):
                with self.assertRaisesRegex(ValueError, "chat 0, turn 1, token 0: .* alternatives"):
                    transcript.add(0, 1, [1], few)
            with self.assertRaises(ValueError):
                transcript.add(0, 1, [1, 2], [[-1.0, *top, [5, -5.0]]])
            transcript.close()


class VerdictTest(unittest.TestCase):
    """What the demo promises, broken one at a time: each has to be one problem, with its own words."""

    TOKENS = 4

    def setUp(self):
        self.options = mock.Mock(chats=8, chat_tokens=1500, turns=3, turn_tokens=self.TOKENS)
        self.schedule = Schedule(8, 3)
        self.last = verdict.last_turns(self.options, self.schedule)
        self.reference = {
            (chat, turn, index): line(logprob=-1.0 / (1 + chat + turn + index))
            for chat, last in self.last.items()
            for turn in range(last + (chat in self.controls()))
            for index in range(self.TOKENS)
        }
        self.mine = {key: dict(value) for key, value in self.reference.items()}
        for chat in self.controls():
            self.damage(chat, self.last[chat], 0)
        self.again = {
            key: dict(value)
            for key, value in self.reference.items()
            if key[0] < 2 and key[1] < self.options.turns
        }
        self.result = {
            "overcommit": 4.0,
            "kv_bytes_touched": 128 << 20,
            "wrong_pages": 0,
            "corrupt_slot_caught": True,
        }
        self.extra = {"round_trips": 2}

    def controls(self):
        return (self.schedule.zeroed, *self.schedule.exchanged)

    def damage(self, chat, turn, index):
        self.mine[chat, turn, index]["logprob"] -= 0.125

    def drop(self, transcript, chat, turn, index=None):
        for key in [k for k in transcript if k[:2] == (chat, turn) and index in (None, k[2])]:
            del transcript[key]

    def problems(self):
        return verdict.judge(
            self.options,
            self.schedule,
            self.result,
            self.extra,
            self.mine,
            self.reference,
            self.again,
        )

    def test_all_as_promised(self):
        self.assertEqual(self.problems(), [])
        self.assertIs(self.result["negative_control_caught"], True)
        self.assertTrue(self.result["tokens_identical"] and self.result["logprobs_identical"])
        self.assertEqual(self.extra["tokens"], (3 * 8 + 2 * len(self.schedule.timed)) * self.TOKENS)

    def test_each_broken_promise_is_told(self):
        chat = self.schedule.zeroed
        turn = self.last[chat]
        table = {
            "kvmm differs": lambda: self.damage(3, 1, 2),
            "kvmm differs from stock: chat 5": lambda: self.drop(self.mine, 5, 2),
            "tokens were compared instead": lambda: [
                self.drop(transcript, 5, 2) for transcript in (self.mine, self.reference)
            ],
            "stock differs from stock": lambda: self.again[1, 2, 3].update(logprob=-9.0),
            "stock differs from stock: chat 0": lambda: self.again.clear(),
            "over-commit 3.999": lambda: self.result.update(overcommit=3.999),
            "bytes of KV": lambda: self.result.update(kv_bytes_touched=(128 << 20) - 1),
            "1 pages failed": lambda: self.result.update(wrong_pages=1),
            "out and back only 1": lambda: self.extra.update(round_trips=1),
            "changed slot": lambda: self.result.update(corrupt_slot_caught=False),
            f"unnoticed in chat {chat}": lambda: self.mine.update(
                {(chat, turn, 0): self.reference[chat, turn, 0]}
            ),
            f"chat {chat} is not whole in the transcript of kvmm": lambda: self.drop(
                self.mine, chat, turn
            ),
            f"chat {chat} is not whole in the transcript of stock": lambda: self.drop(
                self.reference, chat, turn, self.TOKENS - 1
            ),
        }
        for words, breach in table.items():
            with self.subTest(words):
                self.setUp()
                breach()
                problems = self.problems()
                self.assertTrue(any(words in problem for problem in problems), problems)
                control = "control turn" in problems[-1] or "unnoticed" in problems[-1]
                self.assertIs(self.result["negative_control_caught"], not control)

    def test_each_control_counts(self):
        for chat in self.controls():
            with self.subTest(chat):
                self.setUp()
                for transcript in (self.mine, self.reference):
                    self.drop(transcript, chat, self.last[chat])
                self.assertEqual(len(self.problems()), 1)
                self.assertIs(self.result["negative_control_caught"], False)

    def test_few_or_short_chats_promise_nothing_about_sizes(self):
        self.options.chat_tokens = 640
        self.result |= {"overcommit": 1.0, "kv_bytes_touched": 1}
        self.assertEqual(self.problems(), [])


class ChatsTest(unittest.TestCase):
    def test_different_and_the_same_again(self):
        texts = [chats.opening(number, 1500) for number in range(30)]
        self.assertEqual(len(set(text[200:400] for text in texts)), 30)
        self.assertEqual(texts, [chats.opening(number, 1500) for number in range(30)])

    def test_texts_never_follow_each_other(self):
        chat = chats.Chat(0, 700)
        for turn in range(3):
            prompt = chat.ask()
            kinds = "".join("t" if isinstance(part, str) else "i" for part in prompt)
            self.assertNotIn("tt", kinds)
            self.assertTrue(kinds.endswith("t"))
            chat.answered([turn, turn + 1], 700)
        self.assertEqual((chat.turns, chat.length), (3, 702))

    def test_schedule(self):
        for count in (3, 4, 8, 30):
            schedule = Schedule(count, 3)
            self.assertEqual(len(schedule.main), 3 * count)
            self.assertEqual(len({schedule.zeroed, *schedule.exchanged}), 3)
            self.assertTrue(all(0 < chat < count for chat in schedule.timed))
            self.assertEqual([phase for phase, _ in schedule.timing[:2]], ["resumed", "resident"])


class SamplerTest(unittest.TestCase):
    def test_ranges(self):
        self.assertEqual(
            sampler.parse_ranges("1000-2000\nff000-100000\n"),
            [(0x1000, 0x2000), (0xFF000, 0x100000)],
        )

    def test_pss_counts_what_is_touched(self):
        import ctypes

        with mmap.mmap(-1, 8 << 20) as area:
            view = ctypes.c_char.from_buffer(area)
            start = ctypes.addressof(view)
            ranges = [(start, start + (8 << 20))]
            before = sampler.pss_bytes(os.getpid(), ranges)
            for offset in range(0, 4 << 20, 4096):
                area[offset] = 1
            after = sampler.pss_bytes(os.getpid(), ranges)
            del view
        self.assertGreaterEqual(after - before, 3 << 20)
        self.assertEqual(sampler.pss_bytes(os.getpid(), []), 0)

    def test_cached_pages_of_a_file(self):
        with tempfile.TemporaryDirectory(dir=os.path.expanduser("~")) as folder:
            path = os.path.join(folder, "file")
            with open(path, "wb") as file:
                file.write(bytes(1 << 20))
            self.assertEqual(sampler.CachedFile(path).bytes(), 1 << 20)
            with open(path, "rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            self.assertEqual(sampler.CachedFile(path).bytes(), 0)
            open(path, "wb").close()
            self.assertEqual(sampler.CachedFile(path).bytes(), 0)

    def test_standing_still_goes_on(self):
        with subprocess.Popen(["sleep", "60"]) as process:
            try:
                with sampler.standing_still(process.pid, patience_s=10):
                    self.assertTrue(sampler.is_stopped(process.pid))
                self.assertIsNone(process.poll())
            finally:
                process.kill()


class FetchTest(unittest.TestCase):
    def test_every_pin_has_a_hash(self):
        pins = fetch.pins()
        self.assertIn(fetch.ENGINE, pins)
        self.assertEqual(sum(name.startswith(fetch.MODEL) for name in pins), 5)

    def wheel(self, folder, content=b"print(1)\n"):
        import base64
        import hashlib

        path = os.path.join(folder, "a-1-py3-none-any.whl")
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.py", content)
            archive.writestr(
                "a-1.dist-info/RECORD", f"a.py,sha256={digest},9\na-1.dist-info/RECORD,,\n"
            )
            archive.extractall(folder)
        return fetch.sha256_of(path)

    def test_damage_is_seen(self):
        with tempfile.TemporaryDirectory() as folder:
            digest = self.wheel(folder)
            self.assertTrue(fetch.wheel_is_intact(folder, digest))
            self.assertFalse(fetch.wheel_is_intact(folder, "0" * 64))
            with open(os.path.join(folder, "a.py"), "ab") as file:
                file.write(b"#")
            self.assertFalse(fetch.wheel_is_intact(folder, digest))
            os.remove(os.path.join(folder, "a.py"))
            self.assertFalse(fetch.wheel_is_intact(folder, digest))
        self.assertFalse(fetch.wheel_is_intact(folder, digest))

    def test_a_failed_download_leaves_nothing(self):
        with tempfile.TemporaryDirectory() as root:
            failed = subprocess.CompletedProcess([], 1, "", "no route to the index")
            with mock.patch.object(subprocess, "run", return_value=failed):
                with self.assertRaisesRegex(fetch.FetchError, "no route to the index"):
                    fetch.fetch_engine(root, lambda text: None)
                with self.assertRaisesRegex(fetch.FetchError, fetch.MODEL):
                    fetch.fetch_model(root, lambda text: None)
            self.assertEqual(os.listdir(root), [])


class HostTest(unittest.TestCase):
    def text(self, refused, uid=1000, features=0, device=True):
        with mock.patch.object(host, "userfaultfd_state", return_value=(refused, features)):
            with mock.patch.object(os, "geteuid", return_value=uid):
                with mock.patch.object(os.path, "exists", return_value=device):
                    with self.assertRaises(host.CannotRunHere) as caught:
                        host.check_userfaultfd()
        return str(caught.exception)

    def test_says_the_lines_that_mend_it(self):
        user = self.text(errno.EPERM)
        self.assertIn("sudo sysctl -w vm.unprivileged_userfaultfd=1", user)
        self.assertIn("sudo chown 1000 /dev/userfaultfd", user)
        self.assertNotIn("/dev/userfaultfd", self.text(errno.EPERM, device=False))
        self.assertIn("seccomp=unconfined", self.text(errno.EPERM, uid=0))
        self.assertIn("kernel", self.text(errno.ENOSYS))

    def test_a_kernel_that_cannot_move_pages_is_refused_before_anything_runs(self):
        every = sum(host.FEATURES.values())
        for name, bit in host.FEATURES.items():
            text = self.text(0, features=every & ~bit)
            self.assertIn(f"no {name},", text)
            self.assertIn("6.8", text)

    def test_passes_where_it_may(self):
        every = sum(host.FEATURES.values())
        with mock.patch.object(host, "userfaultfd_state", return_value=(0, every)):
            host.check_userfaultfd()

    def test_asks_the_kernel(self):
        refused, features = host.userfaultfd_state()
        if refused:
            self.skipTest("this user may not have a userfaultfd")
        self.assertTrue(features & 1, "UFFD_FEATURE_PAGEFAULT_FLAG_WP")

    def test_space(self):
        host.check_space("/", 0)
        with self.assertRaisesRegex(host.CannotRunHere, "--swap"):
            host.check_space("/", 1 << 62)


class ReportTest(unittest.TestCase):
    def test_exactly_the_fields(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "result.json")
            whole = {field: 1 for field in report.FIELDS}
            report.write_result(path, whole)
            with open(path, encoding="ascii") as file:
                self.assertEqual(list(json.load(file)), list(report.FIELDS))
            for wrong in (whole | {"more": 1}, {k: v for k, v in whole.items() if k != "engine"}):
                with self.assertRaises(ValueError):
                    report.write_result(path, wrong)


if __name__ == "__main__":
    unittest.main()
