"""Which addresses an allow-list of hosts lets a sandbox reach: names are matched here, and what they resolve to is checked.

A name that the list has may resolve to anything, so addresses of this machine and of private networks, where clouds keep
their credentials, are refused unless the list names that very address.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple

from ludus.errors import ConfigError

PORTS = (80, 443)
"""Of a host that is named without one."""
ENTRY = re.compile(r"(?P<name>\[[0-9a-fA-F:.]+\]|(?:\*\.)?[^\s:/*@\[\]]+)(?::(?P<port>\d{1,5}))?")
NAT64 = IPv6Network("64:ff9b::/96")

Address = IPv4Address | IPv6Address


class Host(NamedTuple):
    """One entry of the list."""

    name: str
    """In lower case; "*.pypi.org" for every name below pypi.org."""
    ports: tuple[int, ...]

    def allows(self, name: str, port: int) -> bool:
        """Whether it names this host and port."""
        fits = name.endswith(self.name[1:]) if self.name.startswith("*.") else name == self.name
        return fits and port in self.ports


def parse_host(entry: str) -> Host:
    """An entry as it is written: `pypi.org`, `*.pypi.org`, `10.0.0.5:8080`, `[::1]:80`. Raises ConfigError."""
    bare_v6 = entry.count(":") > 1 and not entry.startswith("[")
    found = ENTRY.fullmatch(f"[{entry}]" if bare_v6 else entry)
    port = int(found["port"]) if found and found["port"] else None
    if found is None or (port is not None and not 0 < port < 1 << 16):
        raise ConfigError(f"network: expected hosts such as pypi.org, *.pypi.org or 10.0.0.5:8080, got {entry!r}")
    return Host(normal_name(found["name"]), PORTS if port is None else (port,))


def normal_name(name: str) -> str:
    """One spelling for each host: lower case, no dot at the end, addresses without brackets. Raises ConfigError."""
    name = name.strip("[]").rstrip(".").lower()
    try:
        return str(ip_address(name))
    except ValueError:
        pass
    try:
        return name if name.isascii() else name.encode("idna").decode()
    except UnicodeError:
        raise ConfigError(f"network: {name!r} is no name of a host") from None


def is_allowed(hosts: Sequence[Host], name: str, port: int) -> bool:
    """Whether the list has this name, as `normal_name` gives it, with this port."""
    return any(host.allows(name, port) for host in hosts)


def may_connect(hosts: Sequence[Host], address: str, port: int) -> bool:
    """Whether a name that is allowed may lead to this address."""
    found = ip_address(address.partition("%")[0])
    return is_public(found) or any(host == (str(found), host.ports) and port in host.ports for host in hosts)


def is_public(address: Address) -> bool:
    """Whether it is somebody's on the internet, and so are those that it stands for.

    >>> [is_public(ip_address(text)) for text in ("1.1.1.1", "10.0.0.1", "169.254.169.254", "::ffff:127.0.0.1")]
    [True, False, False, False]
    """
    return all(each.is_global and not (each.is_multicast or each.is_reserved) for each in (address, *_within(address)))


def _within(address: Address) -> list[IPv4Address]:
    """The addresses of version 4 that one of version 6 leads to."""
    if isinstance(address, IPv4Address):
        return []
    translated = IPv4Address(int(address) & 0xFFFFFFFF) if address in NAT64 else None
    teredo = address.teredo[1] if address.teredo else None
    return [each for each in (address.ipv4_mapped, address.sixtofour, teredo, translated) if each is not None]
