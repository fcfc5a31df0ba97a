# SPDX-License-Identifier: Apache-2.0
"""Runs the same chats through one engine process, stock or on kvmm, and writes what came out.

Schedule    which chat takes its next turn, in which order: the same for every run
Engine      one engine process: commands out, answers in
play        goes through a schedule; on kvmm, chats are evicted between their turns
"""

import json
import os
import signal
import subprocess
import sys

from chats import Chat

ENGINE_PY = os.path.join(
    os.path.dirname(os.path.abspath(__file__)), "..", "engines", "llama", "engine.py"
)


class RunError(Exception):
    """The engine, the runtime or a promise of this demo failed; one sentence."""


class Schedule:
    """Steps of (phase, chat). A chat's turns are numbered as they come."""

    def __init__(self, chats, turns):
        self.chats = chats
        self.main = [("main", chat) for _ in range(turns) for chat in range(chats)]
        # One turn after the chat was away, one right behind it: the two first-token times.
        self.timed = sorted({chats // 2, chats // 2 - 1, chats // 2 + 1, 1} & set(range(1, chats)))
        self.timing = [(phase, chat) for chat in self.timed for phase in ("resumed", "resident")]
        # What the negative controls are compared with: one more turn of three chats.
        self.zeroed = 0
        self.exchanged = (chats - 2, chats - 1)
        self.controls = [("control", chat) for chat in (self.zeroed, *self.exchanged)]
        self.steps = self.main + self.timing + self.controls


class Engine:
    """An engine process. It ends when the object is closed, whatever happened."""

    def __init__(self, found, options, log_path, plugin=None, environment=None):
        self.log_path = log_path
        command = [
            sys.executable,
            ENGINE_PY,
            "--engine",
            found["engine"],
            "--model",
            found["model"],
        ]
        command += ["--lanes", str(options.lanes), "--lane-tokens", str(options.lane_tokens)]
        command += ["--threads", str(options.threads), "--cache-type", options.cache_type]
        command += ["--plugin", plugin] if plugin else []
        with open(log_path, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is ours to handle, in order
                env=os.environ | (environment or {}),
            )
        try:
            ready = self.answer()
        except BaseException:
            self.close()
            raise
        self.pid = self.process.pid
        self.start_s = ready["start_s"]

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            how = f"by signal {signal.Signals(-status).name}" if status < 0 else f"with {status}"
            raise RunError(f"the engine ended {how}; its log is {self.log_path}{self.last_words()}")
        reply = json.loads(line)
        if reply["event"] == "error":
            raise RunError(reply["text"] + self.last_words())
        return reply

    def last_words(self):
        """kvmm's own lines in the engine's log."""
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            lines = [line.rstrip() for line in log if line.startswith("kvmm")]
        return "".join("\n  " + line for line in lines[-5:])

    def ask(self, op, **fields):
        try:
            self.process.stdin.write(json.dumps({"op": op} | fields) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # answer() says how it ended
        return self.answer()

    def quit(self):
        """Ends it in order; anything but a clean end is an error."""
        self.ask_to_end()
        status = self.process.wait(timeout=60)
        if status != 0:
            raise RunError(f"the engine ended with status {status}; its log is {self.log_path}")

    def ask_to_end(self):
        self.process.stdin.write('{"op": "quit"}\n')
        self.process.stdin.flush()

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Conversation:
    """All chats of one run, with the transcript of what the engine answered."""

    def __init__(self, engine, options, transcript):
        self.engine = engine
        self.options = options
        self.transcript = transcript
        self.chats = [Chat(number, options.chat_tokens) for number in range(options.chats)]

    def turn(self, number):
        """One turn of one chat. Returns the engine's answer."""
        chat = self.chats[number]
        reply = self.engine.ask(
            "turn", slot=number, prompt=chat.ask(), tokens=self.options.turn_tokens
        )
        if chat.turns == 0 and reply["prompt_tokens"] < self.options.chat_tokens:
            raise RunError(
                f"chat {number} has only {reply['prompt_tokens']} tokens, wanted "
                f"{self.options.chat_tokens}"
            )
        if chat.turns > 0 and reply["cached_tokens"] < chat.length - 1:
            raise RunError(
                f"chat {number} was computed again: only {reply['cached_tokens']} of "
                f"{chat.length} tokens came from the cache"
            )
        try:
            self.transcript.add(number, chat.turns, reply["ids"], reply["logprobs"])
        except ValueError as error:
            raise RunError(str(error)) from error
        chat.answered(reply["ids"], reply["prompt_tokens"])
        return reply

    def prefill(self, number, slot):
        """The first token of a chat's next turn, all of it computed again in an unused slot."""
        chat = self.chats[number]
        prompt = list(chat.parts) + ["\n\nQuestion: And then?\nAnswer:"]
        return self.engine.ask("turn", slot=slot, prompt=prompt, tokens=1)["first_token_ms"]
