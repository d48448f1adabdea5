"""The MCP server, called by the official client: in this process, over stdin and stdout, and over HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from click.testing import CliRunner
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from ingest_pipeline.api import OpenCorpus
from ingest_pipeline.cli.main import main
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.integrations.mcp.serve import serve_http
from ingest_pipeline.integrations.mcp.server import create_server
from ingest_pipeline.integrations.mcp.tokens import TokenFile
from tests.integration.integrations.conftest import DOCUMENTS, GUIDE
from tests.support.servers.ports import free_port
from tests.support.world import World

_PATIENCE_SECONDS = 300
TOOLS = ["get_document", "history", "list_documents", "neighbours", "search"]


def asked(
    corpus: OpenCorpus, *calls: tuple[str, dict[str, Any]], principals: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """The answers of a server in this process."""

    async def run() -> list[dict[str, Any]]:
        async with Client(create_server(corpus, principals=principals)) as client:
            return [await answer(client, *call) for call in calls]

    return asyncio.run(run())


async def answer(client: Client, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return result.structured_content


def refused(corpus: OpenCorpus, tool: str, arguments: dict[str, Any], principals: Sequence[str] = ()) -> str:
    async def run() -> str:
        async with Client(create_server(corpus, principals=principals)) as client:
            result = await client.call_tool(tool, arguments)
            assert result.is_error
            return str(getattr(result.content[0], "text", ""))

    return asyncio.run(run())


def found_by(corpus: OpenCorpus, *principals: str) -> set[str]:
    (answer,) = asked(corpus, ("search", {"question": "salaries"}), principals=principals)
    return {hit["citation"]["document"] for hit in answer["hits"]}


def test_a_hit_is_cited_with_its_place_version_and_saga(library: OpenCorpus) -> None:
    (answer,) = asked(library, ("search", {"question": "Receipts are kept", "limit": 1}))
    (hit,) = answer["hits"]
    head = library.at_head()
    change = library.document_history("guide.md")[0]
    assert answer["version"] == head.version
    assert hit["citation"] == {
        "document": "guide.md",
        "page": None,
        "last_page": None,
        "heading": "Expenses",
        "start_offset": hit["citation"]["start_offset"],
        "end_offset": hit["citation"]["end_offset"],
        "version": head.version,
        "published_version": change.published_version,
        "saga": str(change.saga),
    }
    part = head.read_document("guide.md", start_offset=hit["citation"]["start_offset"])
    assert part.passage.text.startswith(hit["text"][:20])


def test_a_document_is_read_part_by_part(library: OpenCorpus) -> None:
    texts: list[str] = []
    offset: int | None = 0
    while offset is not None:
        arguments = {"document": "guide.md", "start_offset": offset, "max_characters": 60}
        (part,) = asked(library, ("get_document", arguments))
        assert part["citation"]["start_offset"] >= offset
        texts.append(part["text"])
        offset = part["next_offset"]
    assert len(texts) > 1
    (whole,) = asked(library, ("get_document", {"document": "guide.md"}))
    assert (whole["next_offset"], whole["characters"]) == (None, len(GUIDE))
    assert " ".join(" ".join(texts).split()) == " ".join(whole["text"].split()) == " ".join(GUIDE.split())


def test_the_neighbours_of_a_hit_are_read_at_head(library: OpenCorpus) -> None:
    (found,) = asked(library, ("search", {"question": "Receipts are kept", "limit": 1}))
    chunk = found["hits"][0]["chunk"]
    alone, around = asked(
        library,
        ("neighbours", {"document": "guide.md", "chunk": chunk, "before": 0, "after": 0}),
        ("neighbours", {"document": "guide.md", "chunk": chunk, "before": 5}),
    )
    assert alone["text"] == found["hits"][0]["text"]
    assert around["text"].startswith("# Travel")
    assert around["text"].endswith("for a year.")
    message = refused(library, "neighbours", {"document": "guide.md", "chunk": "0" * 36})
    assert "Search again" in message


def test_documents_are_listed_page_by_page(library: OpenCorpus) -> None:
    first, rest, none = asked(
        library,
        ("list_documents", {"limit": 2}),
        ("list_documents", {"limit": 2, "after": "salaries.md"}),
        ("list_documents", {"prefix": "none/"}),
    )
    assert [one["document"] for one in first["documents"]] == ["guide.md", "salaries.md"]
    assert first["next_after"] == "salaries.md"
    assert [one["document"] for one in rest["documents"]] == ["unlisted.md"]
    assert (rest["next_after"], none["documents"]) == (None, [])


def test_history_is_of_the_corpus_or_of_a_document(library: OpenCorpus) -> None:
    whole, one = asked(library, ("history", {}), ("history", {"document": "guide.md"}))
    assert sum(row["documents"] for row in whole["publications"]) == len(DOCUMENTS)
    assert [(row["documents"], row["removed"], row["chunks"]) for row in one["publications"]] == [(1, 0, 2)]


def test_every_tool_is_marked_as_one_that_only_reads(library: OpenCorpus) -> None:
    async def run() -> None:
        async with Client(create_server(library)) as client:
            tools = (await client.list_tools()).tools
            assert sorted(tool.name for tool in tools) == TOOLS
            assert all(tool.annotations is not None and tool.annotations.read_only_hint for tool in tools)
            assert all(tool.description and tool.output_schema for tool in tools)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("search", {"question": " "}, "The question is empty"),
        ("search", {"question": "x", "limit": 0}, "Use a number from 1 to 100"),
        ("search", {"question": "x", "where": ["colour=red"]}, "colour"),
        ("get_document", {"document": "missing.md"}, "has no document 'missing.md'"),
        ("get_document", {"document": "guide.md", "start_offset": -1}, "start_offset is -1"),
        ("neighbours", {"document": "guide.md", "chunk": "x", "before": 21}, "from 0 to 20"),
        ("list_documents", {"limit": 1001}, "from 1 to 1000"),
        ("history", {"document": "missing.md"}, "has no document 'missing.md'"),
        ("history", {"limit": 0}, "from 1 to 1000"),
    ],
)
def test_bad_input_is_an_error_of_the_tool(
    library: OpenCorpus, tool: str, arguments: dict[str, Any], message: str
) -> None:
    assert message in refused(library, tool, arguments)


def test_a_caller_finds_what_its_principals_may_find(guarded: OpenCorpus) -> None:
    assert found_by(guarded, "board") == {"salaries.md"}
    assert found_by(guarded, "everyone") == {"guide.md"}
    assert found_by(guarded, "nobody") == found_by(guarded) == set()


@pytest.mark.parametrize("principals", [(), ("everyone",), ("nobody",)])
def test_a_forbidden_document_is_unknown_to_every_tool(guarded: OpenCorpus, principals: tuple[str, ...]) -> None:
    (hit,) = guarded.search("salaries", principals=["board"], limit=1)
    there = [
        refused(guarded, "get_document", {"document": "salaries.md"}, principals),
        refused(guarded, "neighbours", {"document": "salaries.md", "chunk": hit.id}, principals),
        refused(guarded, "history", {"document": "salaries.md"}, principals),
    ]
    absent = refused(guarded, "get_document", {"document": "absent.md"}, principals)
    for message in there:
        assert message.partition(": ")[2].replace("salaries.md", "absent.md") == absent.partition(": ")[2]
    (listed,) = asked(guarded, ("list_documents", {}), principals=principals)
    visible = {one["document"] for one in listed["documents"]}
    assert visible == ({"guide.md"} if principals == ("everyone",) else set())


def test_a_caller_without_principals_sees_no_publication(guarded: OpenCorpus) -> None:
    (nothing,) = asked(guarded, ("history", {}))
    (something,) = asked(guarded, ("history", {}), principals=["board"])
    assert nothing["publications"] == []
    assert something["publications"]


def command(world: World, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """A server in a process of its own, and its environment."""
    settings = world.settings
    environment = {
        "INGEST_DATABASE_URL": world.database.url,
        "INGEST_CORPUS": settings.corpus,
        "INGEST_SOURCE": settings.source,
        "INGEST_LANCEDB_URI": settings.lancedb_uri,
        "INGEST_EMBEDDING_MODEL": settings.embedding_model,
        "INGEST_EMBEDDING_DIMENSIONS": str(settings.embedding_dimensions),
        "INGEST_COLUMNS": '{"readers": "list<string>"}',
        "INGEST_ACCESS": "readers",
        "OPENAI_BASE_URL": world.embeddings.base_url,
        "OPENAI_API_KEY": "none",
    }
    return [sys.executable, "-m", "ingest_pipeline.cli.main", "mcp", *arguments], {**os.environ, **environment}


def test_over_stdio_with_principals_of_the_configuration(libraries: dict[str, World], tmp_path: Path) -> None:
    line, environment = command(libraries["guarded"], "--principal", "board")
    server = StdioServerParameters(command=line[0], args=line[1:], env=environment, cwd=tmp_path)

    async def run() -> None:
        async with Client(server) as client:
            answers = await answer(client, "search", {"question": "salaries"})
            assert {hit["citation"]["document"] for hit in answers["hits"]} == {"salaries.md"}
            result = await client.call_tool("get_document", {"document": "guide.md"})
            assert result.is_error

    asyncio.run(run())


def test_nothing_but_the_protocol_is_written_to_stdout(tmp_path: Path) -> None:
    """Not even an error: a client reads stdout line by line as JSON."""
    variables = {"INGEST_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "INGEST_SOURCE": str(tmp_path)}
    done = CliRunner(env=variables).invoke(main, ["mcp"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tokens", "x"], "--tokens needs --http"),
        (["--http", "--tokens", "x", "--principal", "y"], "exclude each other"),
    ],
)
def test_options_that_contradict_each_other_are_refused(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(main, ["mcp", *arguments])
    assert (done.exit_code, message in done.stderr) == (2, True)


@asynccontextmanager
async def over_http(port: int, token: str | None = None) -> AsyncGenerator[Client]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    url = f"http://127.0.0.1:{port}/mcp"
    async with (
        httpx2.AsyncClient(headers=headers) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        yield client


def token_file(path: Path, **clients: list[str]) -> Path:
    """A file of clients whose tokens are their names."""
    entries = [
        {"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest(), "principals": principals}
        for name, principals in clients.items()
    ]
    path.write_text(yaml.safe_dump(entries))
    return path


def test_over_http_each_token_has_its_principals(libraries: dict[str, World], tmp_path: Path) -> None:
    tokens = token_file(tmp_path / "tokens.yaml", boss=["board"], guest=[])
    port = free_port()
    line, environment = command(libraries["guarded"], "--http", "--port", str(port), "--tokens", str(tokens))

    async def found(token: str) -> set[str]:
        async with over_http(port, token) as client:
            hits = (await answer(client, "search", {"question": "salaries"}))["hits"]
            return {hit["citation"]["document"] for hit in hits}

    async def status(token: str | None) -> int:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        async with httpx2.AsyncClient() as http:
            return (await http.post(f"http://127.0.0.1:{port}/mcp", json={}, headers=headers)).status_code

    async def run() -> None:
        await _until_it_answers(lambda: status(None))
        assert await found("boss") == {"salaries.md"}
        assert await found("guest") == set()
        assert [await status("stranger"), await status(None)] == [401, 401]
        token_file(tokens, guest=["board"])
        assert await found("guest") == {"salaries.md"}
        assert await status("boss") == 401
        tokens.write_text("no list")
        assert await status("guest") == 401

    with subprocess.Popen(line, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        try:
            asyncio.run(run())
        finally:
            process.terminate()
            output, _ = process.communicate(timeout=_PATIENCE_SECONDS)
    assert output == ""


async def _until_it_answers(ask: Callable[[], Awaitable[int]]) -> None:
    ends = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            await ask()
        except httpx2.TransportError:
            assert time.monotonic() < ends
            await asyncio.sleep(0.1)
        else:
            return


def test_other_machines_need_tokens(library: OpenCorpus) -> None:
    with pytest.raises(ConfigurationError, match="answer everybody who reaches 0"):
        serve_http(library, [], None, "0.0.0.0", 0)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        ("name: x", "list"),
        ("- {name: x, sha256: short}", "0.sha256"),
        ("- {name: x, sha256: " + "a" * 64 + ", principal: [a]}", "0.principal"),
        ("[", "not YAML"),
    ],
)
def test_a_file_of_tokens_that_cannot_be_used_names_the_reason(
    tmp_path: Path, content: str | None, reason: str
) -> None:
    path = tmp_path / "tokens.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match=reason):
        TokenFile(path)
