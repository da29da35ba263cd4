"""An environment whose replies have given lengths: what is compared is time, so both sides sample as many tokens."""

import zlib

import ludus


class Forced(ludus.Environment):
    """One reply to each prompt, cut at the next of the lengths; its reward is a number that the text gives."""

    def __init__(self, prompts: list[str], lengths: list[int]) -> None:
        self._prompts, self._lengths, self._started = prompts, lengths, 0

    def tasks(self, split: str) -> list[ludus.Task]:
        return [ludus.Task(prompt=prompt) for prompt in self._prompts]

    async def run(self, ctx: ludus.Context) -> None:
        length = self._lengths[self._started % len(self._lengths)]
        self._started += 1
        await ctx.model.chat(self.opening(ctx.task), max_tokens=length)

    @ludus.reward
    def checksum(self, rollout: ludus.Rollout) -> float:
        return zlib.crc32(rollout.reply.encode()) / 2**32
