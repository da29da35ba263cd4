"""The torch engine and the fake one pass the suite that every engine must pass."""

from __future__ import annotations

from ludus.engine.fake import FakeEngine
from ludus.testing.engine_suite import check_sampler, check_trainer


async def test_torch_sampler_conforms(make_engine):
    await check_sampler(lambda: make_engine().sampler)


async def test_torch_trainer_conforms(make_engine):
    await check_trainer(lambda: make_engine().trainer)


async def test_fake_engine_conforms():
    await check_sampler(FakeEngine)
    await check_trainer(FakeEngine)
