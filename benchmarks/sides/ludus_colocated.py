"""Our engine where it samples and trains in turn. Settings: model, device.

Commands: {"train": tokens, "length": of a sequence} times one forward and backward; {"switch": rounds} times what it
takes to go from sampling to training and back; {"matmul": n} and {"read": bytes} say what the device can do.
"""

import asyncio
import statistics
import time
from pathlib import Path

import talk
import torch

from ludus.engine.torch.engine import TorchEngine
from ludus.protocols import AdamW, Datum, Loss, SampleRequest, WeightsRef
from ludus.types import Sampling

ROUNDS = 10
SMALL = [Datum(tokens_T=[5, 6, 7, 8], arrays={"weights": [0.0, 1.0, 1.0, 1.0]})]
NOTHING = AdamW(lr=0.0)


def clock(device):
    """Seconds, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


async def train(engine, tokens, length):
    """Median seconds of one forward and backward over so many packed tokens."""
    texts = [[(7 * i + 3 * n) % 1000 + 5 for i in range(length)] for n in range(tokens // length)]
    data = [Datum(tokens_T=text, arrays={"weights": [1.0] * length}) for text in texts]
    seconds = []
    for _ in range(ROUNDS):
        began = clock(engine.device)
        await engine.trainer.forward_backward(data, Loss("cross_entropy"))
        seconds.append(clock(engine.device) - began)
    await engine.trainer.optim_step(NOTHING)
    return {"seconds": statistics.median(seconds)}


async def first_token(engine):
    """Seconds until a request of one token is answered."""
    request = SampleRequest(tokens=list(range(5, 37)), sampling=Sampling(max_tokens=1))
    began = clock(engine.device)
    async for _ in engine.sampler.sample(request):
        pass
    return clock(engine.device) - began


async def training_step(engine):
    """Seconds of the smallest optimiser step."""
    began = clock(engine.device)
    await engine.trainer.forward_backward(SMALL, Loss("cross_entropy"))
    await engine.trainer.optim_step(NOTHING)
    return clock(engine.device) - began


async def switch(engine, rounds):
    """Seconds that sampling and training in turn take more than as many of the same in a row, publishing included."""
    for _ in range(2):
        await first_token(engine), await training_step(engine)
    sampling = statistics.median([await first_token(engine) for _ in range(rounds)])
    training = statistics.median([await training_step(engine) for _ in range(rounds)])
    in_turn = []
    for _ in range(rounds):
        began = clock(engine.device)
        await training_step(engine)
        await engine.publish(WeightsRef())
        await first_token(engine)
        in_turn.append(clock(engine.device) - began)
    return {"seconds": max(0.0, statistics.median(in_turn) - sampling - training)}


def matmul(device, size):
    """Operations a second of a product of square bfloat16 matrices."""
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    return 2 * size**3 / fastest(device, lambda: a @ a)


def read(device, num_bytes):
    """Bytes a second that a sum reads."""
    values = torch.zeros(num_bytes // 4, device=device)
    return num_bytes / fastest(device, values.sum)


def fastest(device, work):
    """Seconds of the fastest of several rounds."""
    seconds = []
    for _ in range(ROUNDS):
        began = clock(device)
        work()
        seconds.append(clock(device) - began)
    return min(seconds)


async def main():
    given = talk.settings()
    engine = TorchEngine(Path(given["model"]), device=given["device"])
    name = torch.cuda.get_device_name() if engine.device.type == "cuda" else "cpu"
    talk.answer(versions=talk.versions("torch"), device=name)
    while True:
        command = talk.command()
        if "train" in command:
            talk.answer(**await train(engine, command["train"], command["length"]))
        elif "switch" in command:
            talk.answer(**await switch(engine, command["switch"]))
        else:
            talk.answer(flops=matmul(engine.device, command["matmul"]), bandwidth=read(engine.device, command["read"]))


if __name__ == "__main__":
    asyncio.run(main())
