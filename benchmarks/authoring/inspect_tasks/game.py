"""Find a number from "higher" and "lower"."""

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.model import ChatMessageUser
from inspect_ai.scorer import exact
from inspect_ai.solver import solver

NUMBERS = {"train": [3, 17, 25], "test": [8, 30]}


@solver
def guesses(most: int = 6):
    async def solve(state, generate):
        hidden = int(state.target.text)
        for turn in range(most):
            state = await generate(state)
            guess = state.output.completion.strip()
            if guess == str(hidden) or turn == most - 1:
                break
            lower = guess.isdecimal() and int(guess) > hidden
            answer = "lower" if lower else "higher" if guess.isdecimal() else "not a number"
            state.messages.append(ChatMessageUser(content=answer))
        return state

    return solve


@task
def guess(split: str = "train"):
    prompt = "Find a number from 1 to 32. Reply with a guess alone."
    samples = [Sample(input=prompt, target=str(number)) for number in NUMBERS[split]]
    return Task(dataset=samples, solver=guesses(), scorer=exact())
