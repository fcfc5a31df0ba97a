# SPDX-License-Identifier: Apache-2.0
"""The chats: long, different, and the same in every run.

Each chat is a report about a place of its own, made of sentences drawn with a fixed seed, and questions about it.
The engine gets a chat as a list of texts and token ids: what it generated goes back as ids, so that no
tokenisation can differ between runs.
"""

import random

# About 21 tokens a sentence for this model; the runner checks the count that the engine reports.
TOKENS_PER_SENTENCE = 18

TOPICS = [
    ("the harbour", ["boats", "cranes", "nets", "buoys"], ["the pilot", "the customs officer"]),
    ("the observatory", ["mirrors", "lenses", "plates", "clocks"], ["the astronomer", "the guard"]),
    ("the orchard", ["ladders", "baskets", "pear trees", "hives"], ["the grafter", "the picker"]),
    ("the railway depot", ["wagons", "signals", "axles", "lamps"], ["the shunter", "the driver"]),
    ("the glassworks", ["furnaces", "pipes", "moulds", "sheets"], ["the blower", "the cutter"]),
    ("the archive", ["shelves", "folios", "seals", "maps"], ["the archivist", "the copyist"]),
    ("the salt mine", ["shafts", "carts", "pumps", "ropes"], ["the foreman", "the surveyor"]),
    ("the theatre", ["curtains", "masks", "seats", "pulleys"], ["the prompter", "the carpenter"]),
    ("the bakery", ["ovens", "peels", "troughs", "sacks"], ["the baker", "the miller"]),
    (
        "the weather station",
        ["vanes", "gauges", "balloons", "charts"],
        ["the observer", "the clerk"],
    ),
    ("the shipyard", ["keels", "ribs", "rivets", "sails"], ["the shipwright", "the rigger"]),
    (
        "the botanical garden",
        ["palms", "ferns", "ponds", "labels"],
        ["the gardener", "the botanist"],
    ),
]

VERBS = ["counted", "repaired", "painted", "measured", "moved", "inspected", "sold", "replaced"]
REASONS = [
    "because the winter had been long",
    "after a letter from the council",
    "before the visitors arrived",
    "although nobody had asked for it",
    "so that the work could go on",
    "while the rain kept everyone inside",
]
QUESTIONS = [
    "\n\nQuestion: What should be done there next year?\nAnswer:",
    "\n\nQuestion: Who did most of the work, and why?\nAnswer:",
    "\n\nQuestion: Which of these events was the strangest?\nAnswer:",
    "\n\nQuestion: What would a newcomer have to learn first?\nAnswer:",
    "\n\nQuestion: How did it go on in the year after?\nAnswer:",
]


def opening(chat, tokens):
    """The first message of chat number `chat`: at least `tokens` tokens, different for every number."""
    place, things, people = TOPICS[chat % len(TOPICS)]
    draw = random.Random(1000 + chat)
    lines = [f"Report number {chat * 37 + 11} about {place}."]
    for day in range(1, tokens // TOKENS_PER_SENTENCE + 2):
        lines.append(
            f"On day {day} {draw.choice(people)} of {place} {draw.choice(VERBS)} "
            f"{draw.randrange(2, 900)} {draw.choice(things)} {draw.choice(REASONS)}."
        )
    return " ".join(lines)


class Chat:
    """One conversation as the engine is told it."""

    def __init__(self, number, tokens):
        self.number = number
        self.turns = 0
        self.length = 0  # tokens the engine holds for it after its last turn
        self.parts = [opening(number, tokens)]

    def ask(self):
        """The prompt of the next turn. Texts and ids alternate: the engine takes texts that follow each
        other for prompts of their own."""
        question = QUESTIONS[self.turns % len(QUESTIONS)]
        if isinstance(self.parts[-1], str):
            self.parts[-1] += question
        else:
            self.parts.append(question)
        return list(self.parts)

    def answered(self, ids, prompt_tokens):
        self.parts.extend(ids)
        self.length = prompt_tokens + len(ids)
        self.turns += 1
