"""What adapters ask of their services, and what becomes of it when these refuse, break or are not there."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import os
import sys
import tarfile
from pathlib import Path

import pytest
from fake_kit import forget_clients

from ludus.errors import FileProblem, MissingExtra, SandboxFailed, SandboxFileError, SandboxUnavailable
from ludus.sandbox import Limits, SandboxSpec, create
from ludus.sandbox.remote import archive, engine, owners
from ludus.sandbox.remote.calls import STARTS_AT_A_TIME
from ludus.sandbox.spec import REMOTE

SOME_SLOW = [kind if kind in ("docker", "e2b") else pytest.param(kind, marks=pytest.mark.slow) for kind in REMOTE]
"""Importing the other clients takes a second or two each."""


@pytest.fixture(params=SOME_SLOW[:2])
async def engined(request, tmp_path, monkeypatch):
    """A kind of container, and the engine behind it."""
    pytest.importorskip(request.param)
    from fake_engine import fake_engine

    async with fake_engine(str(tmp_path / "socket")) as found:
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/socket")
        monkeypatch.setenv("CONTAINER_HOST", f"http+unix://{tmp_path}/socket")
        yield request.param, found
        await forget_clients()


@pytest.fixture
async def cluster(tmp_path, monkeypatch):
    pytest.importorskip("kubernetes")
    from fake_kubernetes import fake_cluster

    async with fake_cluster(tmp_path / "config") as found:
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
        yield found
        await forget_clients()


@pytest.mark.parametrize("kind", REMOTE)
async def test_a_missing_client_is_named_with_its_extra(kind, monkeypatch):
    monkeypatch.setitem(sys.modules, kind, None)
    with pytest.raises(MissingExtra, match=rf"pip install 'ludus-rl\[{kind}\]'"):
        await create(SandboxSpec(tier=kind))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # they leave sockets open
@pytest.mark.parametrize("kind", SOME_SLOW)
async def test_no_engine_no_cluster_no_key(kind, monkeypatch, tmp_path):
    pytest.importorskip(kind)
    for name in ("E2B_API_KEY", "DAYTONA_API_KEY", "MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none")
    monkeypatch.setenv("CONTAINER_HOST", f"http+unix://{tmp_path}/none")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(SandboxUnavailable) as raised:
        await create(SandboxSpec(tier=kind))
    assert "\n" not in str(raised.value) and kind in str(raised.value).lower()
    await forget_clients()
    del raised  # it holds on to what the client has left open
    gc.collect()


async def test_what_a_container_is_made_with(engined):
    kind, found = engined
    limits = Limits(memory_bytes=64 << 20, processes=50)
    async with await create(SandboxSpec(tier=kind, limits=limits)):
        (container,) = found.containers.values()
        asked = json.dumps(container.asked)
        for part in (str(64 << 20), "50", '"ALL"', "none", engine.FIRST.splitlines()[1][:10], owners.owner()):
            assert part in asked
        host = container.asked.get("HostConfig", container.asked)
        assert host.get("SecurityOpt") == ["no-new-privileges"] or host.get("no_new_privileges") is True
        assert host.get("AutoRemove") is True or host.get("remove") is True
    assert not found.containers


async def test_what_can_not_be_kept_is_refused(engined):
    with pytest.raises(SandboxUnavailable, match="no allow-list"):
        await create(SandboxSpec(tier=engined[0], network=("pypi.org",)))


@pytest.mark.slow
async def test_what_a_cluster_can_not_do_is_refused(cluster):
    with pytest.raises(SandboxUnavailable, match="no allow-list"):
        await create(SandboxSpec(tier="kubernetes", network=("pypi.org",)))
    with pytest.raises(SandboxUnavailable, match="push it to a registry"):
        await create(SandboxSpec(tier="kubernetes", image="/a/folder"))


@pytest.mark.slow
async def test_passing_faults_are_tried_again(engined):
    kind, found = engined
    found.failing += [("POST /containers/create", 500), (r"POST /containers/\w+/start", 503)]
    async with await create(SandboxSpec(tier=kind)) as sandbox:
        assert len(found.containers) == 1
        found.failing.append((r"POST /containers/\S+/exec", 500))
        await sandbox.write("x", b"1")
        assert not found.failing
    assert not found.containers


async def test_lasting_faults_are_the_infrastructures(engined):
    kind, found = engined
    found.failing += [("POST /containers/create", 400)]
    with pytest.raises(SandboxFailed, match="can't start a container") as raised:
        await create(SandboxSpec(tier=kind))
    assert raised.value.blame == "infrastructure" and "\n" not in str(raised.value) and not found.containers
    sandbox = await create(SandboxSpec(tier=kind))
    (name,) = found.containers
    await found.containers.pop(name).end()
    with pytest.raises(SandboxFailed) as raised:
        await sandbox.exec("true")
    assert raised.value.blame == "infrastructure"
    await sandbox.kill()


async def test_what_can_not_be_removed_is_told_and_fails_nobody(engined, caplog):
    kind, found = engined
    sandbox = await create(SandboxSpec(tier=kind))
    found.failing += [("DELETE /containers", 400)]
    await sandbox.kill()
    assert sandbox.name in caplog.text and "goes on until its time is over" in caplog.text


@pytest.mark.slow
async def test_so_many_are_started_at_a_time_and_no_more(engined):
    kind, found = engined
    made = await asyncio.gather(*(create(SandboxSpec(tier=kind)) for _ in range(STARTS_AT_A_TIME + 8)))
    assert 1 < found.most_starting <= STARTS_AT_A_TIME and len(found.containers) == STARTS_AT_A_TIME + 8
    await asyncio.gather(*(sandbox.kill() for sandbox in made))
    assert not found.containers


async def test_cancelled_while_it_starts_leaves_nothing(engined):
    kind, found = engined
    tasks = [asyncio.create_task(create(SandboxSpec(tier=kind))) for _ in range(6)]
    while not found.starting:
        await asyncio.sleep(0.005)
    for task in tasks:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes) and not found.containers


@pytest.mark.slow
async def test_images_are_pulled_or_built_once(engined, tmp_path):
    kind, found = engined
    spec = SandboxSpec(tier=kind, image="debian:12")
    await asyncio.gather(*[(await create(spec)).kill() for _ in range(2)])
    assert len([one for one in found.requests if one in ("POST /images/create", "POST /images/pull")]) == 1
    folder = tmp_path / "environment"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM debian:12\nCOPY data /data\n")
    (folder / "data").write_text("1")
    made = await asyncio.gather(*(create(SandboxSpec(tier=kind, image=str(folder))) for _ in range(3)))
    await asyncio.gather(*(sandbox.kill() for sandbox in made))
    assert len(found.built) == 1 and any("data" in name for name in found.built[0])
    with pytest.raises(SandboxFailed, match="there is no image missing:1") as raised:
        await create(SandboxSpec(tier=kind, image="missing:1"))
    assert raised.value.blame == "environment"


async def test_what_a_dead_process_left_is_removed_and_nothing_else(engined):
    from fake_engine import FakeContainer

    kind, found = engined
    place = owners.owner().partition(".")[0]
    labels = {"dead": f"{place}.999999999.1", "reused": f"{place}.{os.getpid()}.1", "ours": owners.owner(),
              "elsewhere": "0123456789abcdef.999999999.1", "odd": "?"}  # fmt: skip
    for number, (name, label) in enumerate(labels.items()):
        found.containers[name] = FakeContainer(f"{number + 100:064x}", name, {"Labels": {owners.LABEL: label}})
    await (await create(SandboxSpec(tier=kind))).kill()
    assert set(found.containers) == {"ours", "elsewhere", "odd"}


@pytest.mark.slow
async def test_what_a_pod_is_made_with(cluster):
    cluster.failing += [500]
    limits = Limits(memory_bytes=64 << 20, disk_bytes=1 << 20)
    async with await create(SandboxSpec(tier="kubernetes", limits=limits)):
        (pod,) = cluster.pods.values()
        spec = pod.manifest["spec"]
        container = spec["containers"][0]
        assert container["resources"]["limits"] == {"memory": str(64 << 20), "ephemeral-storage": str(1 << 20)}
        assert not spec["automountServiceAccountToken"] and not container["securityContext"]["allowPrivilegeEscalation"]
        chosen = cluster.policies[0]["spec"]["podSelector"]["matchLabels"].items()
        assert chosen <= pod.manifest["metadata"]["labels"].items()
    assert not cluster.pods


@pytest.mark.slow
async def test_a_pod_that_can_not_start_is_removed(cluster):
    with pytest.raises(SandboxFailed, match="ErrImagePull: there is no such image") as raised:
        await create(SandboxSpec(tier="kubernetes", image="missing:1"))
    assert raised.value.blame == "environment" and not cluster.pods


async def test_what_e2b_is_asked_for(monkeypatch):
    pytest.importorskip("e2b")
    from fake_e2b import KEY, fake_e2b

    async with fake_e2b(monkeypatch) as service:
        async with await create(SandboxSpec(tier="e2b", image="mine", env={"A": "b"})) as sandbox:
            sandbox._renew_at = 0.0
            await sandbox.exec("true")
            assert len(service.renewed) == 1
        async with await create(SandboxSpec(tier="e2b", network=("pypi.org",))):
            pass
        closed, opened = service.asked
        assert closed["templateID"] == "mine" and closed["allow_internet_access"] is False
        assert opened["network"]["allowOut"] == ["pypi.org"] and opened["network"]["denyOut"] == ["0.0.0.0/0"]
        assert closed["metadata"][owners.LABEL] == owners.owner() and not service.machines
        with pytest.raises(SandboxUnavailable, match="no single ports"):
            await create(SandboxSpec(tier="e2b", network=("pypi.org:8080",)))
        monkeypatch.setenv("E2B_API_KEY", wrong := KEY[:-1] + "f" + "0")
        with pytest.raises(SandboxUnavailable, match="set E2B_API_KEY") as raised:
            await create(SandboxSpec(tier="e2b"))
        assert wrong not in str(raised.value)


@pytest.mark.slow
async def test_what_daytona_is_asked_for(monkeypatch):
    pytest.importorskip("daytona")
    from fake_daytona import fake_daytona

    async with fake_daytona(monkeypatch) as service:
        service.failing += [503]
        async with await create(SandboxSpec(tier="daytona", image="debian:12", network=("pypi.org", "x.org"))):
            (asked,) = service.asked.values()
            assert asked["domainAllowList"] == "pypi.org,x.org" and asked["networkBlockAll"] is False
            assert asked["memory"] == 1 and asked["autoDeleteInterval"] == 0
        assert not service.machines


@pytest.mark.slow
async def test_what_modal_is_asked_for(monkeypatch, tmp_path):
    pytest.importorskip("modal")
    from fake_modal import fake_modal

    (tmp_path / "Dockerfile").write_text("FROM debian:12\n")
    with fake_modal(monkeypatch) as service:
        service.failing += [service.exception.ServiceError("busy")]
        async with await create(SandboxSpec(tier="modal", image=str(tmp_path), network=("pypi.org",))):
            (asked,) = service.asked
            assert asked["outbound_domain_allowlist"] == ["pypi.org"] and asked["memory"] == (128, 512)
        assert not service.machines
        service.failing += [service.exception.AuthError("who are you?")]
        with pytest.raises(SandboxUnavailable, match="set MODAL_TOKEN_ID"):
            await create(SandboxSpec(tier="modal"))


def member(name, kind=tarfile.REGTYPE, data=b"1", link=""):
    found = tarfile.TarInfo(name)
    found.type, found.size, found.linkname = kind, len(data) if kind == tarfile.REGTYPE else 0, link
    return found, data


def packed(*members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for found, data in members:
            tar.addfile(found, io.BytesIO(data) if found.size else None)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["../out", "a/../../out", "/etc/out", "a//b", ".", "a/./b"])
def test_names_in_an_archive_that_lead_elsewhere(tmp_path, name):
    with pytest.raises(SandboxFileError, match="no name of a file below"):
        archive.unpack(packed(member(name)), tmp_path / "new", "x", 1000)
    assert list(tmp_path.iterdir()) == []


def test_only_regular_files_are_taken_from_an_archive(tmp_path):
    (tmp_path / "secret").write_text("host")
    data = packed(
        member("ok"), member("link", tarfile.SYMTYPE, link="/etc/passwd"), member("pipe", tarfile.FIFOTYPE),
        member("same", tarfile.LNKTYPE, link="ok"), member("device", tarfile.CHRTYPE), member("folder", tarfile.DIRTYPE),
    )  # fmt: skip
    archive.unpack(data, tmp_path / "new", "x", 1000)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["ok", "same"]
    for place, link in (("other", "../secret"), ("third", "link")):
        hostile = packed(member("link", tarfile.SYMTYPE, link="/etc/passwd"), member("h", tarfile.LNKTYPE, link=link))
        with pytest.raises(SandboxFileError):
            archive.unpack(hostile, tmp_path / place, "x", 1000)
    twice = packed(member("a"), member("a"))
    with pytest.raises(FileProblem, match="can't make"):
        archive.unpack(twice, tmp_path / "twice", "x", 1000)


@pytest.mark.parametrize("data", [b"", b"no archive at all", b"\0" * 100, packed(member("a", data=b"1" * 900))[:700]])
def test_what_is_no_archive(tmp_path, data):
    try:
        archive.unpack(data, tmp_path / "new", "x", 1000)
    except SandboxFileError:
        pass
    assert not Path(tmp_path / "new" / "a").exists()


def test_an_archive_of_too_much(tmp_path):
    with pytest.raises(SandboxFileError, match="larger than the 3 bytes"):
        archive.unpack(packed(member("a", data=b"12"), member("b", data=b"34")), tmp_path / "new", "x", 3)
