"""The event loop's lag: the function that blocks is named while it blocks."""

import asyncio
import logging
import threading
import time

from playground import Says, Small

from ludus.rollouts.lag import LagMonitor
from ludus.rollouts.scheduler import Plan, Scheduler
from ludus.types import MAIN_ROLE

AT_MOST_S = 20.0


def block(records: list[logging.LogRecord]) -> None:
    """Holds up the loop until that has been logged."""
    end = time.monotonic() + AT_MOST_S
    while not records and time.monotonic() < end:
        time.sleep(0.01)


def times_named(records: list[logging.LogRecord]) -> int:
    return sum("s by block (" in record.getMessage() for record in records)


async def test_the_function_that_blocks_is_named(caplog):
    monitor = LagMonitor()
    monitor.start()
    await asyncio.sleep(0.06)
    block(caplog.records)
    await asyncio.sleep(0.06)
    await monitor.stop()
    assert times_named(caplog.records) == 1
    assert "the event loop has been blocked for" in caplog.text and "test_rollouts_lag.py" in caplog.text
    assert monitor.worst_s > 0.4  # what it takes to be noticed


async def test_one_block_is_reported_once(caplog):
    monitor = LagMonitor()
    monitor.start()
    await asyncio.sleep(0.06)
    block(caplog.records)
    time.sleep(0.2)
    await monitor.stop()
    assert times_named(caplog.records) == 1


async def test_a_monitor_ends_with_its_loop():
    monitor = LagMonitor()
    monitor.start()
    threads = [thread for thread in threading.enumerate() if thread.name == "ludus-lag"]
    await monitor.stop()
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()
    await monitor.stop()  # twice does no harm


async def test_a_rollout_that_blocks_the_loop_is_named(caplog):
    class Blocking(Small):
        async def respond(self, ctx, reply):  # async code that never awaits
            block(caplog.records)

    env = Blocking()
    async with Scheduler(env, {MAIN_ROLE: Says()}, Plan()) as scheduler:
        async for group in scheduler.groups([(env.tasks("test")[0], 0)], 1):
            assert group.scored
    assert times_named(caplog.records) == 1
