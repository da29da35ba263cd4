"""Spell a word backward."""

import ludus

WORDS = {"train": ["apple", "bread", "cheese"], "test": ["lemon", "melon"]}


class Backward(ludus.Environment):
    """Spell a word backward."""

    def tasks(self, split):
        return [ludus.Task(prompt=f"Spell {word} backward.", answer=word[::-1]) for word in WORDS[split]]

    @ludus.reward
    def correct(self, task, rollout):
        return float(rollout.reply.strip() == task.answer)
