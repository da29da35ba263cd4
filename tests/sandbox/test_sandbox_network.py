"""A sandbox with a network reaches what is opened to it, and nothing else."""

from __future__ import annotations

import asyncio
import gc
import socket
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from ludus.errors import ConfigError, SandboxFailed, SandboxUnavailable
from ludus.sandbox import Limits, LocalSandbox, SandboxSpec, capabilities, open_sandbox
from ludus.sandbox.doors import address_of
from ludus.sandbox.hosts import is_allowed, is_public, may_connect, normal_name, parse_host

OPEN = SandboxSpec(network=())
BEFORE = """
import os, socket, sys, urllib.request, urllib.error
def attempt(work, *args):
    try: return work(*args)
    except urllib.error.HTTPError as error: return f"{error.code} {error.read().decode().strip()}"
    except OSError as error: return f"refused: {error}"
"""


def port_of(url: str) -> int:
    return address_of(url)[2]


@asynccontextmanager
async def serving(handle):
    """A server on this machine; its port."""
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def echo(reader, writer):
    """Answers when the other side has said everything."""
    writer.write((await reader.read()).upper())
    writer.close()


async def answers_http(reader, writer):
    head = await reader.readuntil(b"\r\n\r\n")
    body = head.split(b"\r\n")[0] + b"|" + (b"told of proxies" if b"proxy" in head.lower() else b"plain")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    await writer.drain()
    writer.close()


def num_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def no_sockets_of_sandboxes_left() -> bool:
    return not [task for task in asyncio.all_tasks() if "of a sandbox" in task.get_name()]


# --- single addresses ---------------------------------------------------------------------------------------------


async def test_an_address_of_the_host_can_be_reached_and_no_other():
    async with serving(echo) as port, serving(echo) as other, open_sandbox(OPEN) as sandbox:
        url = await sandbox.reach(f"http://127.0.0.1:{port}/v1?x=1#y")
        assert url == f"http://127.0.0.1:{port_of(url)}/v1?x=1#y"
        code = f"""
c = socket.create_connection(("127.0.0.1", {port_of(url)}))
c.sendall(b"x" * 3_000_000)
c.shutdown(socket.SHUT_WR)
print(len(c.makefile("rb").read()))
for place in (("127.0.0.1", {other}), ("127.0.0.1", 22), ("10.0.0.1", 80), ("1.1.1.1", 53), ("::1", {other})):
    print(attempt(socket.create_connection, place, 5))
"""
        lines = (await sandbox.run(BEFORE + code)).stdout.splitlines()
        assert lines[0] == "3000000" and len(lines) == 6
        assert all(line.startswith("refused") for line in lines[1:])
    assert no_sockets_of_sandboxes_left()


async def test_each_address_has_its_own_way_and_the_same_one_stays():
    async with serving(echo) as port, serving(answers_http) as other, open_sandbox(OPEN) as sandbox:
        one, two = f"http://127.0.0.1:{port}/a", f"http://user:word@127.0.0.1:{other}/b"
        urls = await asyncio.gather(*(sandbox.reach(url) for url in (one, two, one)))
        assert urls[0] == urls[2] and urls[0] != urls[1] and urls[1].startswith("http://user:word@127.0.0.1:")
        said = await sandbox.run(
            BEFORE + f"print(urllib.request.urlopen('{urls[1].replace('user:word@', '')}').read())"
        )
        assert said.stdout == "b'GET /b HTTP/1.1|plain'\n"


async def test_programs_of_a_sandbox_reach_each_other():
    async with open_sandbox(OPEN) as sandbox:
        code = """
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
client.sendall(b"hello")
print(server.accept()[0].recv(9))
"""
        assert (await sandbox.run(BEFORE + code)).stdout == "b'hello'\n"


async def test_other_sandboxes_don_t_share_its_loopback():
    async with serving(echo) as port, open_sandbox(OPEN) as one, open_sandbox(OPEN) as other:
        url = await one.reach(f"http://127.0.0.1:{port}/")
        code = f"print(attempt(socket.create_connection, ('127.0.0.1', {port_of(url)}), 5))"
        assert "refused" in (await other.run(BEFORE + code)).stdout


KINDS = {
    "raw": (socket.AF_INET, socket.SOCK_RAW, 1), "ping": (socket.AF_INET, socket.SOCK_DGRAM, 1),
    "packets": (socket.AF_PACKET, socket.SOCK_DGRAM, 0), "netlink": (socket.AF_NETLINK, socket.SOCK_RAW, 0),
    "hypervisor": (40, socket.SOCK_STREAM, 0), "multipath": (socket.AF_INET, socket.SOCK_STREAM, 262),
    "sctp": (socket.AF_INET6, socket.SOCK_STREAM, 132), "crypto": (38, socket.SOCK_SEQPACKET, 0),
}  # fmt: skip


async def test_only_tcp_and_udp_and_no_way_to_more():
    code = f"""
for arguments in {[tuple(map(int, kind)) for kind in KINDS.values()]}:
    print(attempt(socket.socket, *arguments))
import fcntl, struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in (0x8914, 0x8916):
    print(attempt(fcntl.ioctl, s, number, struct.pack("16sh22x", b"lo", 0)))
print(attempt(s.sendto, b"x", ("255.255.255.255", 9)))
"""
    async with open_sandbox(OPEN) as sandbox:
        lines = (await sandbox.run(BEFORE + code)).stdout.splitlines()
        assert len(lines) == len(KINDS) + 3 and all(line.startswith("refused") for line in lines), lines


@pytest.mark.slow
async def test_hundreds_of_connections_at_once():
    code = """
port, count = map(int, sys.argv[1:]) if sys.argv[1:] else PLACE
conns = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
for c in conns: c.sendall(b"hello")
for c in conns: c.shutdown(socket.SHUT_WR)
print(sum(c.makefile("rb").read() == b"HELLO" for c in conns))
"""
    async with serving(echo) as port, open_sandbox(SandboxSpec(network=(), limits=Limits(open_files=1200))) as sandbox:
        url = await sandbox.reach(f"http://127.0.0.1:{port}/")
        for _ in range(2):
            result = await sandbox.run(BEFORE + code.replace("PLACE", f"{port_of(url)}, 400"))
            assert result.stdout == "400\n", result
        late = await sandbox.run(BEFORE + code.replace("PLACE", f"{port_of(url)}, 500"))
        assert late.stdout == "500\n", late


async def test_a_server_that_is_dead_ends_the_connection():
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    async with open_sandbox(OPEN) as sandbox:
        url = await sandbox.reach(f"http://127.0.0.1:{port}/")
        code = f"""
def read():
    c = socket.create_connection(("127.0.0.1", {port_of(url)}), 10)
    return c.recv(1) or "refused: end"
for _ in range(3): print(attempt(read))
"""
        assert (await sandbox.run(BEFORE + code, timeout_s=20)).stdout.count("refused") == 3


async def test_a_server_that_breaks_off_ends_the_connection():
    async def breaks_off(reader, writer):
        await reader.read(1)
        writer.transport.abort()

    async with serving(breaks_off) as port, open_sandbox(OPEN) as sandbox:
        url = await sandbox.reach(f"http://127.0.0.1:{port}/")
        code = f"""
def read():
    c = socket.create_connection(("127.0.0.1", {port_of(url)}), 10)
    c.sendall(b"x" * 100000)
    return c.recv(1) or "refused: end"
print(attempt(read))
"""
        assert "refused" in (await sandbox.run(BEFORE + code, timeout_s=20)).stdout


@pytest.mark.slow
async def test_the_kill_of_a_sandbox_ends_its_connections():
    begun, ended = asyncio.Event(), asyncio.Event()

    async def waits(reader, writer):
        begun.set()
        try:
            await reader.read()
        except ConnectionError:
            pass
        writer.close()
        ended.set()

    before = num_descriptors()
    async with serving(waits) as port:
        sandbox = await LocalSandbox.create(OPEN)
        url = await sandbox.reach(f"http://127.0.0.1:{port}/")
        talks = f"import socket, time; c = socket.create_connection(('127.0.0.1', {port_of(url)})); time.sleep(600)"
        running = asyncio.create_task(sandbox.run(talks))
        await begun.wait()
        await sandbox.kill()
        with pytest.raises(SandboxFailed, match="was killed"):
            await running
        async with asyncio.timeout(5):
            await ended.wait()
        with pytest.raises(SandboxFailed):
            await sandbox.reach(f"http://127.0.0.1:{port + 1}/")
    gc.collect()
    assert no_sockets_of_sandboxes_left() and num_descriptors() <= before + 1


async def test_what_can_t_be_reached():
    async with open_sandbox() as sandbox:
        with pytest.raises(SandboxUnavailable, match="reaches nothing"):
            await sandbox.reach("http://127.0.0.1:1/")
    async with open_sandbox(OPEN) as sandbox:
        with pytest.raises(SandboxUnavailable, match=r"network=\('api.example.org',\)"):
            await sandbox.reach("https://api.example.org/v1")
        for wrong in ("", "127.0.0.1:80", "ftp://host/", "http://", "http://h:99999/", None):
            with pytest.raises(ConfigError, match="expected an address"):
                await sandbox.reach(wrong)
    async with open_sandbox(SandboxSpec(tier="none", network=())) as sandbox:
        assert await sandbox.reach("https://api.example.org/v1") == "https://api.example.org/v1"


async def test_without_a_network_there_is_no_loopback_and_no_proxy():
    async with open_sandbox() as sandbox:
        result = await sandbox.run(
            BEFORE + "print(attempt(socket.socket), [n for n in os.environ if 'roxy' in n.lower()])"
        )
        assert result.stdout.startswith("refused") and result.stdout.endswith("[]\n")


# --- the allow-list -----------------------------------------------------------------------------------------------


async def test_a_host_of_the_list_can_be_reached_through_the_proxy():
    async with AsyncExitStack() as stack:
        port, other = [await stack.enter_async_context(serving(answers_http)) for _ in range(2)]
        spec = SandboxSpec(network=(f"127.0.0.1:{port}", "*.example.invalid", f"localhost:{other}"))
        sandbox = await stack.enter_async_context(open_sandbox(spec))
        names = "print(sorted(name for name in os.environ if name.lower().endswith('_proxy')))"
        assert (await sandbox.run(BEFORE + names)).stdout == (
            "['HTTPS_PROXY', 'HTTP_PROXY', 'NO_PROXY', 'http_proxy', 'https_proxy', 'no_proxy']\n"
        )
        # for what is on the list by its address, the variables' own exception has to be left out
        await sandbox.write("fetch.py", (BEFORE + FETCH).encode())
        proxied = {"no_proxy": "", "NO_PROXY": ""}
        urls = [
            f"http://127.0.0.1:{port}/a?b=c", f"http://127.0.0.1:{other}/", "http://169.254.169.254/latest/",
            "http://10.0.0.1/", "http://pypi.org/", "http://localhost/", f"http://localhost:{port}/",
            "http://a.example.invalid/", "http://example.invalid/", "http://[::1]/", "http://2130706433/",
            f"http://localhost:{other}/",
        ]  # fmt: skip
        result = await sandbox.exec(["python3", "fetch.py", *urls], env=proxied, timeout_s=60)
        lines = result.stdout.splitlines()
        assert lines[0] == "b'GET /a?b=c HTTP/1.1|plain'", result
        assert lines[7].startswith("502 a.example.invalid can't be resolved") or "no address" in lines[7]
        assert lines.pop().startswith("403 localhost leads to")
        for line in lines[1:7] + lines[8:]:
            assert line.startswith("403") and "is not among the hosts that this sandbox may reach" in line
    assert no_sockets_of_sandboxes_left()


FETCH = "for url in sys.argv[1:]: print(attempt(lambda: urllib.request.urlopen(url, timeout=20).read()))"

RAW = """
address = os.environ["HTTP_PROXY"].rpartition("/")[2].split(":")
def say(text, more=b""):
    c = socket.create_connection((address[0], int(address[1])), 20)
    c.sendall(text)
    answer = c.recv(4096)
    if b" 200 " in answer and more:
        c.sendall(more); c.shutdown(socket.SHUT_WR)
        answer = c.makefile("rb").read()
    return answer
"""


async def test_a_tunnel_and_what_is_no_request():
    async with serving(echo) as port, open_sandbox(SandboxSpec(network=(f"127.0.0.1:{port}",))) as sandbox:
        code = f"""
print(say(b"CONNECT 127.0.0.1:{port} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n", b"through"))
for text in (b"CONNECT 127.0.0.1:22 HTTP/1.0\\r\\n\\r\\n", b"CONNECT [::ffff:127.0.0.1]:{port} HTTP/1.0\\r\\n\\r\\n",
             b"CONNECT evil HTTP/1.0\\r\\n\\r\\n", b"GET / HTTP/1.0\\r\\n\\r\\n",
             b"\\x16\\x03\\x01" + b"x" * 100 + b"\\r\\n\\r\\n",
             b"GET https://127.0.0.1:{port}/ HTTP/1.0\\r\\n\\r\\n", b"GET http://u@ HTTP/1.0\\r\\n\\r\\n",
             b"GET http://127.0.0.1:{port}/ HTTP/1.1\\r\\nX: " + b"x" * 40000):
    print(say(text).split(b"\\r\\n")[0])
"""
        lines = (await sandbox.run(BEFORE + RAW + code, timeout_s=60)).stdout.splitlines()
        assert lines[0] == "b'THROUGH'"
        assert [line.split()[1] for line in lines[1:]] == ["403", "403", "400", "400", "400", "400", "400", "400"], (
            lines
        )


async def test_a_tunnel_to_a_server_that_is_dead():
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    async with open_sandbox(SandboxSpec(network=(f"127.0.0.1:{port}",))) as sandbox:
        code = f"print(say(b'CONNECT 127.0.0.1:{port} HTTP/1.0\\r\\n\\r\\n'))"
        assert "502 Bad Gateway" in (await sandbox.run(BEFORE + RAW + code)).stdout


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("1.1.1.1", True), ("2606:4700::1111", True), ("127.0.0.1", False), ("10.1.2.3", False), ("0.0.0.0", False),
        ("169.254.169.254", False), ("100.64.0.1", False), ("224.0.0.1", False), ("255.255.255.255", False),
        ("::1", False), ("::", False), ("fe80::1", False), ("fd00:ec2::254", False), ("ff02::1", False),
        ("::ffff:10.0.0.1", False), ("64:ff9b::a9fe:a9fe", False), ("2002:7f00:1::", False), ("240.0.0.1", False),
    ],
)  # fmt: skip
def test_public_addresses(address, public):
    assert is_public(ip_address(address)) == public
    assert may_connect([parse_host("some.name")], address, 80) == public
    assert may_connect([parse_host(f"[{address}]:8" if ":" in address else f"{address}:8")], address, 8)


def test_names_of_the_list():
    hosts = [
        parse_host(entry) for entry in ("PyPI.org.", "*.example.org", "one:8080", "[::1]:9", "::2", "bücher.example")
    ]
    for name, port in (
        ("pypi.org", 443), ("pypi.org", 80), ("a.example.org", 80), ("a.b.example.org", 443), ("one", 8080), ("::1", 9),
        ("::2", 80), ("xn--bcher-kva.example", 443),
    ):  # fmt: skip
        assert is_allowed(hosts, normal_name(name), port), name
    for name, port in (
        ("pypi.org", 8080), ("evilpypi.org", 80), ("pypi.org.evil", 80), ("example.org", 80), ("evilexample.org", 80),
        ("one", 80), ("", 80), ("::1", 80),
    ):  # fmt: skip
        assert not is_allowed(hosts, normal_name(name), port), name


@pytest.mark.parametrize(
    "entry", ["", "*", "*.", "http://pypi.org", "pypi.org/simple", "a b", "x:0", "x:70000", "a.*", "a@b"]
)
def test_what_is_no_host(entry):
    with pytest.raises(ConfigError, match="network: expected"):
        SandboxSpec(network=(entry,))


@pytest.mark.skipif("memory" in capabilities().uncounted, reason="no control group can be had here")
async def test_what_waits_in_sockets_is_limited():
    code = """
server = socket.create_server(("127.0.0.1", 0))
total, kept = 0, []
for _ in range(60):
    client = socket.create_connection(server.getsockname())
    kept += [client, server.accept()[0]]
    for end in kept[-2:]:
        end.setblocking(False)
        try:
            while True: total += end.send(bytes(65536))
        except BlockingIOError: pass
print(total)
"""
    async with open_sandbox(SandboxSpec(network=(), limits=Limits(memory_bytes=64 << 20))) as sandbox:
        result = await sandbox.run(BEFORE + code)
        assert result.oom_killed or int(result.stdout) < 64 << 20
