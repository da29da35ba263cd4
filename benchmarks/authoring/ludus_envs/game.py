"""Find a number from "higher" and "lower"."""

import ludus

NUMBERS = {"train": [3, 17, 25], "test": [8, 30]}


class Guess(ludus.Environment):
    """Find a number from 1 to 32 in at most six guesses."""

    max_turns = 6

    def tasks(self, split):
        prompt = "Find a number from 1 to 32. Reply with a guess alone."
        return [ludus.Task(prompt=prompt, answer=number, id=f"{split}-{number}") for number in NUMBERS[split]]

    def respond(self, ctx, reply):
        guess = reply.text.strip()
        if not guess.isdecimal():
            return "not a number"
        hidden = ctx.task.answer
        return None if int(guess) == hidden else "higher" if int(guess) < hidden else "lower"

    @ludus.reward
    def found(self, task, rollout):
        return float(rollout.reply.strip() == str(task.answer))
