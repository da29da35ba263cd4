"""Spell a word backward."""

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import exact
from inspect_ai.solver import generate

WORDS = {"train": ["apple", "bread", "cheese"], "test": ["lemon", "melon"]}


@task
def backward(split: str = "train"):
    samples = [Sample(input=f"Spell {word} backward.", target=word[::-1]) for word in WORDS[split]]
    return Task(dataset=samples, solver=generate(), scorer=exact())
