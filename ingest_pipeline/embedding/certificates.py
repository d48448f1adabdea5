"""The certificates that the clients of embedding APIs and rerankers trust."""

from __future__ import annotations

import ssl
from functools import cache

import httpx2


@cache
def trusted_certificates() -> ssl.SSLContext:
    """The certificates that this machine trusts. All clients of a process share them, because loading takes 25 ms."""
    return httpx2.create_ssl_context()
