"""Runs the MCP server of a corpus over stdio or HTTP until it is stopped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import uvicorn

from ingest_pipeline.api import OpenCorpus
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.integrations.mcp.server import create_server
from ingest_pipeline.integrations.mcp.tokens import TokenFile

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve_stdio(corpus: OpenCorpus, principals: Sequence[str]) -> None:
    """Serve the process that started this one, until it closes stdin. Only the protocol is written to stdout."""
    create_server(corpus, principals=principals).run("stdio")


def serve_http(corpus: OpenCorpus, principals: Sequence[str], tokens: Path | None, host: str, port: int) -> None:
    """Serve HTTP at `/mcp` until the process is interrupted.

    Raises:
        ConfigurationError: Other machines could call the tools, and there are no tokens; or the file is malformed.
    """
    if tokens is None and host not in _LOOPBACK:
        raise ConfigurationError(
            f"The server would answer everybody who reaches {host}",
            "Name a file of tokens with --tokens, or listen on 127.0.0.1.",
        )
    shown = f"[{host}]" if ":" in host else host
    verifier = None if tokens is None else TokenFile(tokens)
    server = create_server(corpus, principals=principals, tokens=verifier, url=f"http://{shown}:{port}")
    # The tools keep no state between calls, so any process behind a load balancer can answer any call.
    app = server.streamable_http_app(host=host, stateless_http=True, json_response=True)
    uvicorn.Server(uvicorn.Config(app, host=host, port=port, log_level="warning")).run()
