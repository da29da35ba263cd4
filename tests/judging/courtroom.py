"""What the tests of judges share: models that say what they are told, and rollouts to judge."""

import json
import re

from ludus.types import Call, EnvironmentRef, Reply, Rollout, Seeds, Task, user

SECTION = re.compile(r"^[0-9a-f]{16} attempt with the id (\d+):$", re.MULTILINE)


class SaysModel:
    """A model of a rollout: a text, or a function of the conversation that gives one (or raises). Keeps
    what it was asked."""

    def __init__(self, what):
        self.what, self.asked, self.sampling = what, [], []

    async def chat(self, messages, *, tools=(), **sampling):
        assert not tools
        self.asked.append(list(messages))
        self.sampling.append(sampling)
        said = self.what(messages) if callable(self.what) else self.what
        return said if isinstance(said, Reply) else Reply({"role": "assistant", "content": said})

    @property
    def question(self):
        """The last question."""
        return self.asked[-1][1]["content"]


def rollout(
    reply="fine", prompt="Write something.", *, number=0, answer=None, said=None, tools=(), **fields
) -> Rollout:
    task = Task(prompt=prompt, answer=answer)
    messages = [user(prompt), *(said or [])]
    return Rollout(
        id=f"r{number}",
        group="g",
        environment=EnvironmentRef("test"),
        task=task,
        seeds=Seeds(0, 0, number, 0),
        calls=[Call(messages=messages, reply={"role": "assistant", "content": reply})],
        tools=list(tools),
        **fields,
    )


def mark(value, reason="because"):
    return json.dumps({"reason": reason, "mark": value})


def attempts_of(question: str) -> dict[str, str]:
    """The text under each id of a comparing question."""
    body = question.rpartition(" end of what is quoted.")[0][:-16]
    places = list(SECTION.finditer(body))
    ends = [place.start() for place in places[1:]] + [len(body)]
    return {place[1]: body[place.end() : end] for place, end in zip(places, ends, strict=True)}


def ranks(score):
    """A comparing judge that gives each attempt the score that a function of its text gives."""

    def say(messages):
        scores = [
            {"id": name, "reason": f"as it is {name}", "score": score(text)}
            for name, text in attempts_of(messages[1]["content"]).items()
        ]
        return json.dumps({"scores": scores})

    return say
