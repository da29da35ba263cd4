"""Our side of sampling, in process. Settings: model, threads. Commands: {"prompts": [ids...], "max_tokens": n}."""

import asyncio
from pathlib import Path

import talk

from ludus.engine.torch.engine import TorchEngine
from ludus.protocols import SampleRequest
from ludus.types import Sampling


def main():
    given = talk.settings()
    engine = TorchEngine(Path(given["model"]), threads=given.get("threads"), device=given.get("device", "auto"))

    async def reply(prompt, sampling):
        request = SampleRequest(tokens=prompt, sampling=sampling)
        return [chunk async for chunk in engine.sampler.sample(request)]

    async def follow():
        talk.answer(versions=talk.versions("torch"))
        while True:
            command = talk.command()
            sampling = Sampling(max_tokens=command["max_tokens"])
            replies = await asyncio.gather(*(reply(prompt, sampling) for prompt in command["prompts"]))
            tokens = sum(len(chunk.tokens) for chunks in replies for chunk in chunks)
            assert tokens == sum(len(chunk.logprobs) for chunks in replies for chunk in chunks)
            talk.answer(tokens=tokens)

    asyncio.run(follow())


if __name__ == "__main__":
    main()
