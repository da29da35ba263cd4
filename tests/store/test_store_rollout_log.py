"""The rollout log: exact round trips, whole lines or none, and what damage does where."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import struct
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from recorded import make_rollout, rollouts

from ludus.errors import RunFolderError
from ludus.store import RolloutLog, record
from ludus.types import Rollout


@given(rollouts)
@settings(max_examples=60, deadline=None)
@pytest.mark.slow
def test_any_record_comes_back_equal(rollout: Rollout) -> None:
    line = record.encode(rollout)
    assert line.count(b"\n") == 1
    assert record.is_intact(line)
    assert record.decode(line, verify=True) == rollout


def test_a_line_is_readable_without_ludus() -> None:
    line = json.loads(record.encode(make_rollout()))
    sequence = line["sequences"][0]
    assert line["schema"] == 1
    assert struct.unpack("<4i", base64.b64decode(sequence["tokens"])) == (1, 2, 3, 4)
    assert struct.unpack("<4i", base64.b64decode(sequence["versions"])) == (-1, 2, -1, 2)
    assert base64.b64decode(sequence["sampled_mask"]) == bytes([0, 1, 0, 1])
    assert struct.unpack("<4d", base64.b64decode(sequence["logprobs"])) == (0.0, -0.5, 0.0, -0.1)
    found = line.pop("hash")
    canonical = json.dumps(line, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert found == hashlib.blake2b(canonical, digest_size=16).hexdigest()


def test_float32_log_probabilities_take_four_bytes_each() -> None:
    rollout = make_rollout()
    rollout.sequences[0].logprobs = [0.0, -0.5, 0.0, struct.unpack("f", struct.pack("f", -0.1))[0]]
    line = record.encode(rollout)
    assert len(base64.b64decode(json.loads(line)["sequences"][0]["logprobs"])) == 16
    assert record.decode(line) == rollout


def test_the_hash_does_not_depend_on_the_order_of_keys() -> None:
    a, b = make_rollout(), make_rollout()
    a.epilogue = [{"role": "user", "content": "x"}]
    b.epilogue = [{"content": "x", "role": "user"}]
    assert record.encode(a) == record.encode(b)


def test_another_schema_is_refused_and_named() -> None:
    rollout = make_rollout()
    rollout.schema = 2
    with pytest.raises(RunFolderError, match="schema 2"):
        record.decode(record.encode(rollout))
    with pytest.raises(RunFolderError, match="schema 9"):
        record.decode(b'{"schema":9,"everything":"else"}\n')


def test_text_that_is_not_unicode_is_kept_in_escaped_form(caplog: pytest.LogCaptureFixture) -> None:
    rollout = make_rollout()
    rollout.epilogue = [{"role": "user", "content": "half \ud800 pair"}]
    back = record.decode(record.encode(rollout), verify=True)
    assert back.epilogue[0]["content"] == "half \\ud800 pair"
    assert back.sequences == rollout.sequences
    assert "not valid Unicode" in caplog.text


def test_segments_roll_and_keep_their_order(tmp_path: Path) -> None:
    log = RolloutLog(tmp_path / "rollouts", segment_bytes=3000)
    written = [make_rollout(number) for number in range(8)]
    places = [log.append(rollout) for rollout in written]
    assert len(log.segments()) > 1
    assert list(log) == written
    assert [log.get(place) for place in places] == written


def test_every_writer_starts_a_segment(tmp_path: Path) -> None:
    for number in range(3):
        log = RolloutLog(tmp_path)
        log.append(make_rollout(number))
        log.close()
    assert [path.name for path in RolloutLog(tmp_path).segments()] == ["000001.jsonl", "000002.jsonl", "000003.jsonl"]
    assert [rollout.id for rollout in RolloutLog(tmp_path)] == ["r0", "r1", "r2"]


def two_segments(folder: Path) -> tuple[RolloutLog, Path]:
    for number in (0, 2):
        log = RolloutLog(folder)
        log.append(make_rollout(number))
        log.append(make_rollout(number + 1))
        log.close()
    return RolloutLog(folder), folder / "000001.jsonl"


@pytest.mark.parametrize("cut", [1, 2, 100])
def test_a_torn_last_record_is_skipped_with_a_warning(
    tmp_path: Path, cut: int, caplog: pytest.LogCaptureFixture
) -> None:
    log, first = two_segments(tmp_path)
    first.write_bytes(first.read_bytes()[:-cut])
    with caplog.at_level(logging.WARNING):
        assert [rollout.id for rollout in log] == ["r0", "r2", "r3"]
    assert "000001.jsonl: skipped a torn last record" in caplog.text


def test_a_last_record_with_a_wrong_hash_is_skipped_when_verifying(tmp_path: Path) -> None:
    log, first = two_segments(tmp_path)
    data = bytearray(first.read_bytes())
    data[data.rfind(b"higher")] = ord("H")
    first.write_bytes(data)
    assert [rollout.id for rollout in log.read(verify=True)] == ["r0", "r2", "r3"]


def test_damage_in_the_middle_names_file_and_line(tmp_path: Path) -> None:
    log, first = two_segments(tmp_path)
    data = bytearray(first.read_bytes())
    data[data.find(b"higher")] = ord("H")
    first.write_bytes(data)
    with pytest.raises(RunFolderError, match=r"000001\.jsonl, line 1 .*hash"):
        list(log.read(verify=True))
    data[data.find(b'"calls"')] = 0
    first.write_bytes(data)
    with pytest.raises(RunFolderError, match=r"000001\.jsonl, line 1"):
        list(log)


def test_arrays_that_are_cut_are_damage(tmp_path: Path) -> None:
    line = record.encode(make_rollout())
    tokens = json.loads(line)["sequences"][0]["tokens"].encode()
    with pytest.raises(record.DamagedRecord):
        record.decode(line.replace(tokens, tokens[:4]))


def test_what_json_cannot_hold_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    log = RolloutLog(tmp_path)
    rollout = make_rollout()
    rollout.epilogue = [{"role": "user", "content": object()}]
    with pytest.raises(TypeError):
        log.append(rollout)
    assert list(log) == []


DISK_FULL = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from recorded import make_rollout
from ludus.errors import RunFolderError
from ludus.store import RolloutLog

log = RolloutLog(Path(sys.argv[1]))
line = log.append(make_rollout()).length
resource.setrlimit(resource.RLIMIT_FSIZE, (2 * line + 50, 2 * line + 50))
log.append(make_rollout(1))
try:
    log.append(make_rollout(2))
except RunFolderError as error:
    print("refused:", error)
log.append(make_rollout(3))
"""


@pytest.mark.slow
def test_a_full_disk_leaves_no_half_record(tmp_path: Path) -> None:
    command = [sys.executable, "-c", DISK_FULL, str(tmp_path), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "refused: can't record rollout r2" in done.stdout, done.stderr
    assert [rollout.id for rollout in RolloutLog(tmp_path).read(verify=True)] == ["r0", "r1", "r3"]
    assert all(path.read_bytes().endswith(b"\n") for path in RolloutLog(tmp_path).segments())


def test_the_hashed_record_is_what_msgspec_calls_sorted() -> None:
    line = record.encode(make_rollout())
    body = msgspec.json.decode(line)
    body.pop("hash")
    assert line.endswith(msgspec.json.encode(body, order="sorted")[1:] + b"\n")
