"""What a server says of itself, asked outside of any event loop: tasks and splits are needed before anything is played."""

from __future__ import annotations

import functools
import ssl
from typing import Any

import httpx2

from ludus.environments.remote import is_loopback
from ludus.errors import UsageError

LACKING = (400, 404, 405, 422, 501)
"""Status codes of what a server does not have."""


def fetch(url: str, headers: dict[str, str], timeout_s: float, method: str, path: str, body: Any = None) -> Any:
    """The JSON that one request is answered with; None where the server has no such thing.

    Raises:
        UsageError: there is no such server, or it refuses.
    """
    try:
        with httpx2.Client(**connection(url, headers, timeout_s)) as http:
            response = http.request(method, path, json=body)
            if response.status_code in LACKING:
                return None
            response.raise_for_status()
            return response.json()
    except httpx2.HTTPStatusError as error:
        status = error.response.status_code
        hint = "; name the environment variable that holds its key: --arg key_env=NAME" if status in (401, 403) else ""
        raise UsageError(f"the server at {url} answered {path} with HTTP {status}{hint}") from None
    except (httpx2.HTTPError, ValueError, RecursionError) as error:
        raise UsageError(f"no server to play on at {url}: {said(error)}") from None


def connection(url: str, headers: dict[str, str], timeout_s: float) -> dict[str, Any]:
    """Settings of an HTTP client; none goes through a proxy to its own machine."""
    return {
        "base_url": url,
        "headers": headers,
        "timeout": timeout_s,
        "verify": certificates(),
        "trust_env": not is_loopback(url),
        "follow_redirects": not headers,  # a key is not to be carried elsewhere
    }


@functools.cache
def certificates() -> ssl.SSLContext:
    """Read once: it takes longer than a request."""
    return httpx2.create_ssl_context()


def said(error: Exception) -> str:
    """Type and text of an error, where it has one."""
    return f"{type(error).__name__}: {error}".rstrip(": ")
