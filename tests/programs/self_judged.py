"""An environment whose judge is the model that is trained, where nobody else is named."""

import ludus


class SelfJudged(ludus.Environment):
    """The judge is asked side by side about each rollout of a group."""

    roles = ("policy", "judge")
    sampling = {"max_tokens": 6}

    def tasks(self, split):
        return [ludus.Task(prompt=f"{split} {n}") for n in range(20)]

    @ludus.reward
    async def liked(self, rollout, models):
        return len((await models["judge"].chat([{"role": "user", "content": rollout.reply}])).text)

    @ludus.reward
    async def best(self, group, models):
        said = [await models["judge"].chat([{"role": "user", "content": rollout.reply}]) for rollout in group]
        return [len(reply.text) for reply in said]
