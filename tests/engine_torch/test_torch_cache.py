"""Slots of the key-value cache: who gets which, what is reused, what goes first."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ludus.engine.torch.cache import KVCache
from ludus.engine.torch.config import DecoderConfig
from ludus.engine.torch.prefix import common_prefix
from ludus.engine.torch.weights import WeightsKey

CONFIG = DecoderConfig(
    model_type="qwen3", vocab_size=50, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=1, head_dim=4, intermediate_size=8, max_position_embeddings=512,
)  # fmt: skip
POSITION_BYTES = 2 * 2 * 1 * 4 * 4
WEIGHTS, NEWER, BASE = WeightsKey("current"), WeightsKey("current", 1, 1), WeightsKey("base")


def make_cache(positions=10_000):
    return KVCache(CONFIG, torch.device("cpu"), torch.float32, positions * POSITION_BYTES)


def run(cache, slot):
    """What a forward does: the prompt is in the cache, each position marked by its token."""
    cache.copy_prefixes()
    for layer in range(2):
        for t in range(slot.num_cached, len(slot.tokens)):
            cache.keys[layer][slot.index, :, t] = slot.tokens[t]
    slot.num_cached = len(slot.tokens)
    cache.filled(slot)


def held(cache, slot):
    return cache.keys[1][slot.index, 0, : slot.num_cached, 0].tolist()


def test_a_session_goes_on_where_it_stopped():
    cache = make_cache()
    slot = cache.acquire("a", [1, 2, 3, 4], WEIGHTS)
    run(cache, slot)
    cache.park(slot)
    again = cache.acquire("a", [1, 2, 3, 9, 9], WEIGHTS)
    assert again is slot
    assert again.num_cached == 3


def test_at_least_one_token_is_left_to_compute():
    cache = make_cache()
    slot = cache.acquire("a", [1, 2, 3, 4], WEIGHTS)
    run(cache, slot)
    cache.park(slot)
    assert cache.acquire("a", [1, 2, 3], WEIGHTS).num_cached == 2


def test_other_weights_reuse_nothing():
    cache = make_cache()
    prompt = list(range(20))
    slot = cache.acquire("a", prompt, WEIGHTS)
    run(cache, slot)
    busy = cache.acquire("b", prompt, WEIGHTS)
    run(cache, busy)
    cache.park(slot)
    assert cache.acquire("a", prompt, NEWER).num_cached == 0
    assert cache.acquire("c", prompt, NEWER) is None  # "a" is about to compute it anew
    cache.park(busy)  # filled by old weights: not kept
    assert cache.acquire("b", [7, 7], NEWER).num_cached == 0


def test_weights_of_several_names_are_kept_side_by_side():
    cache = make_cache()
    prompt = list(range(20))
    slots = [cache.acquire("a", prompt, weights) for weights in (WEIGHTS, BASE)]
    assert [slot.num_cached for slot in slots] == [0, 0]
    for slot in slots:
        run(cache, slot)
        cache.filled(slot)
        cache.park(slot)
    assert cache.acquire("a", prompt, NEWER).num_cached == 0
    assert cache.acquire("b", prompt, BASE).num_cached == 19
    assert cache.acquire("a", prompt, BASE) is slots[1]


def test_who_begins_alike_waits_for_the_first_and_copies():
    cache = make_cache()
    prompt = list(range(10, 30))
    first = cache.acquire("a", prompt, WEIGHTS)
    assert cache.acquire("b", prompt[:], WEIGHTS) is None
    run(cache, first)
    second = cache.acquire("b", prompt[:], WEIGHTS)
    assert second.num_cached == 19
    third = cache.acquire("c", [*prompt[:12], 1, 2], WEIGHTS)
    cache.copy_prefixes()
    assert held(cache, second) == prompt[:19]
    assert held(cache, third) == prompt[:12]


def test_a_copy_of_a_copy_is_whole():
    cache = make_cache()
    prompt = list(range(10, 30))
    first = cache.acquire("a", prompt, WEIGHTS)
    run(cache, first)
    second = cache.acquire("b", [*prompt, 5], WEIGHTS)
    third = cache.acquire("c", [*prompt, 5, 6], WEIGHTS)
    cache.copy_prefixes()
    assert held(cache, second) == prompt
    assert held(cache, third) == prompt


def test_copies_survive_growth_and_eviction_of_their_source():
    cache = make_cache(positions=64 * 3)
    prompt = list(range(10, 30))
    first = cache.acquire("a", prompt, WEIGHTS)
    run(cache, first)
    cache.park(first)
    second = cache.acquire("b", [*prompt, 1], WEIGHTS)
    others = [cache.acquire(f"other {i}", [i] * 3, WEIGHTS) for i in range(2)]
    assert all(others)  # the last took the slot that "b" copies from
    assert cache.acquire("late", [9], WEIGHTS) is None
    cache.copy_prefixes()
    assert held(cache, second) == prompt


def test_the_least_recently_used_warm_slot_goes_first():
    cache = make_cache(positions=64 * 2)
    slots = [cache.acquire(name, [i], WEIGHTS) for i, name in enumerate("ab")]
    cache.park(slots[1])
    cache.park(slots[0])
    assert cache.acquire("c", [5], WEIGHTS).index == slots[1].index
    assert cache.acquire("a", [0, 3], WEIGHTS) is slots[0]


def test_released_sessions_make_room_at_once_or_when_they_end():
    cache = make_cache(positions=64)
    slot = cache.acquire("a", [1], WEIGHTS)
    cache.release("a")
    assert cache.acquire("b", [2], WEIGHTS) is None
    cache.park(slot)
    assert cache.acquire("b", [2], WEIGHTS).index == slot.index


def test_growing_keeps_what_is_held_and_gives_up_warm_slots():
    cache = make_cache(positions=256)
    slots = [cache.acquire(str(i), [40 + i] * 5, WEIGHTS) for i in range(4)]
    for slot in slots:
        run(cache, slot)
    for slot in slots[:2]:
        cache.park(slot)
    assert cache.reserve(100)
    assert held(cache, slots[2]) == [42.0] * 5
    assert held(cache, slots[3]) == [43.0] * 5
    assert cache.acquire("0", [40] * 5, WEIGHTS) is None
    assert not cache.reserve(200)


@pytest.mark.parametrize("length", [1, 64, 65, 512])
def test_reserve_covers_the_length(length):
    cache = make_cache()
    cache.acquire("a", [1], WEIGHTS)
    assert cache.reserve(length)
    assert cache.keys[0].shape[2] >= length


@settings(max_examples=50, deadline=None)
@given(a=st.lists(st.integers(0, 2), max_size=8), b=st.lists(st.integers(0, 2), max_size=8))
def test_common_prefix_is_the_longest(a, b):
    n = common_prefix(a, b)
    assert a[:n] == b[:n]
    assert n == min(len(a), len(b)) or a[n] != b[n]
