# SPDX-License-Identifier: Apache-2.0
"""What came of a run: every promise of the demo is held against what was measured, and nothing else is.

Input are three transcripts (the reference, the second stock run, kvmm) and the figures; output is one line for
each promise that was not kept. A control counts as caught only if the whole turn is there on both sides and a
log-probability differs: a turn that is missing proves nothing.
"""

import compare

KV_BYTES_LEAST = 128 << 20
OVERCOMMIT_LEAST = 4.0
ROUND_TRIPS_LEAST = 2


def last_turns(options, schedule):
    """{chat: number of its control turn, or of the turn that never came}."""
    return {
        chat: options.turns + (2 if chat in schedule.timed else 0) for chat in range(options.chats)
    }


def positions(transcript, chat, turn):
    return sorted(index for c, t, index in transcript if (c, t) == (chat, turn))


def control_problem(mine, reference, chat, turn, tokens):
    """None if the damage of this turn was noticed, else why not."""
    whole = list(range(tokens))
    for name, transcript in (("kvmm", mine), ("stock", reference)):
        if positions(transcript, chat, turn) != whole:
            return f"the control turn of chat {chat} is not whole in the transcript of {name}"
    seen = compare.compare(mine, reference, lambda c, t: (c, t) == (chat, turn))
    return f"damaged KV went unnoticed in chat {chat}" if seen.logprobs_identical else None


def judge(options, schedule, result, extra, mine, reference, again):
    """Fills `result` and `extra` with what was compared; returns the problems, none if all is as promised."""
    problems = []
    last = last_turns(options, schedule)
    same = compare.compare(mine, reference, lambda chat, turn: turn < last[chat])
    result["tokens_identical"] = same.tokens_identical
    result["logprobs_identical"] = same.logprobs_identical
    extra |= {"tokens": same.tokens, "logprobs": same.logprobs}
    if not same.identical:
        problems.append(f"kvmm differs from stock: {same.first_difference}")
    wanted = sum(last.values()) * options.turn_tokens
    if same.tokens != wanted:
        problems.append(f"{same.tokens} tokens were compared instead of {wanted}")

    repeat = compare.compare(
        again, reference, lambda chat, turn: chat < 2 and turn < options.turns
    )
    extra["stock_repeats"] = repeat.identical
    if not repeat.identical:
        problems.append(f"stock differs from stock: {repeat.first_difference}")

    missed = [
        control_problem(mine, reference, chat, last[chat], options.turn_tokens)
        for chat in (schedule.zeroed, *schedule.exchanged)
    ]
    result["negative_control_caught"] = not any(missed)
    problems += filter(None, missed)
    if not result["corrupt_slot_caught"]:
        problems.append(f"a changed slot was not caught: {extra.get('corrupt_ends')}")

    # Fewer or shorter chats than by default promise nothing about sizes.
    sizes = options.chats >= 8 and options.chat_tokens >= 1500
    if sizes and result["overcommit"] < OVERCOMMIT_LEAST:
        problems.append(f"over-commit {result['overcommit']} is below {OVERCOMMIT_LEAST}")
    if sizes and result["kv_bytes_touched"] < KV_BYTES_LEAST:
        problems.append(f"only {result['kv_bytes_touched']} bytes of KV were written")
    if result["wrong_pages"]:
        problems.append(f"{result['wrong_pages']} pages failed verification")
    if extra["round_trips"] < ROUND_TRIPS_LEAST:
        problems.append(f"a chat was out and back only {extra['round_trips']} times")
    return problems
