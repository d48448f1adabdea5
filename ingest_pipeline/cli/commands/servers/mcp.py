"""The command `mcp`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from ingest_pipeline.api import open_corpus
from ingest_pipeline.cli import _settings
from ingest_pipeline.cli._group import command
from ingest_pipeline.cli._numbers import PORT
from ingest_pipeline.cli._terminal import echo
from ingest_pipeline.errors import MissingExtraError


@command
@click.option("--http", "over_http", is_flag=True, help="Serve HTTP at /mcp instead of stdin and stdout.")
@click.option("--host", default="127.0.0.1", show_default=True, help="With --http: the address to listen on.")
@click.option("--port", default=8000, show_default=True, type=PORT, help="With --http: the port.")
@click.option(
    "--principal", "principals", multiple=True, metavar="NAME", help="A principal of every caller; repeatable."
)
@click.option(
    "--tokens",
    type=click.Path(path_type=Path),
    help="With --http: a file of the callers' tokens and principals. Callers without a token are refused.",
)
def mcp(*, over_http: bool, host: str, port: int, principals: Sequence[str], tokens: Path | None) -> None:
    """Serve the corpus to agents over the Model Context Protocol, read-only, until interrupted.

    The tools are search, get_document, neighbours, list_documents and history. docs/how-to/mcp.md shows how to add the
    server to an agent.
    """
    if tokens is not None and not over_http:
        raise click.UsageError("--tokens needs --http. Over stdin and stdout, name the principals with --principal.")
    if tokens is not None and principals:
        raise click.UsageError("--tokens and --principal exclude each other: each token has its own principals.")
    try:
        from ingest_pipeline.integrations.mcp.serve import serve_http, serve_stdio  # noqa: PLC0415  an extra
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"mcp", "mcp_types", "uvicorn"}:
            raise
        raise MissingExtraError(
            "The MCP library is not installed", "Run `pip install 'ingest-pipeline[mcp]'`."
        ) from None
    with open_corpus(_settings.settings()) as corpus:
        if not over_http:
            serve_stdio(corpus, principals)
            return
        echo(f"MCP server of corpus {corpus.config.corpus} at http://{host}:{port}/mcp; interrupt to stop.", err=True)
        serve_http(corpus, principals, tokens, host, port)
