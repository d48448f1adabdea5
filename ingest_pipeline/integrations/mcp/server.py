"""The tools of the MCP server of a corpus. Each call reads at one head, which its answer names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Annotated, Literal, ParamSpec, TypeVar

from mcp.server import MCPServer
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import TokenVerifier
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations
from pydantic import Field

from ingest_pipeline.api import OpenCorpus
from ingest_pipeline.errors import ConfigurationError, IngestError
from ingest_pipeline.integrations.mcp.answers import (
    DocumentsAnswer,
    FoundChunk,
    HistoryAnswer,
    ListedDocument,
    Publication,
    SearchAnswer,
    TextAnswer,
)
from ingest_pipeline.integrations.mcp.tokens import PRINCIPALS

_READS = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
_MAX_HITS = 100
_MAX_PUBLICATIONS = 1_000
P = ParamSpec("P")
R = TypeVar("R")


def create_server(
    corpus: OpenCorpus, *, principals: Sequence[str] = (), tokens: TokenVerifier | None = None, url: str = ""
) -> MCPServer:
    """Create the server of a corpus.

    Args:
        corpus: The corpus, which stays open while the server runs.
        principals: The principals of every caller. Not used if there are tokens.
        tokens: Verifies the callers' tokens, which have the principals. None: there are no tokens.
        url: The server's own url, which its OAuth metadata name. Only used with tokens.
    """
    auth = None if tokens is None else AuthSettings.model_validate({"issuer_url": url, "resource_server_url": None})
    name = corpus.config.corpus
    server = MCPServer(
        f"ingest-pipeline {name}",
        instructions=f"The documents of the corpus {name!r}. Search first, then read around the hits. Cite the "
        "document with its page or heading. Each answer names the version of the corpus that it was read from.",
        token_verifier=tokens,
        auth=auth,
        log_level="WARNING",
    )
    tools = _Tools(corpus, principals, has_tokens=tokens is not None)
    for tool in tools.all():
        server.tool(annotations=_READS)(_with_our_errors(tool))
    return server


class _Tools:
    """The tools. Their docstrings and annotations are what agents read."""

    def __init__(self, corpus: OpenCorpus, principals: Sequence[str], *, has_tokens: bool) -> None:
        self._corpus = corpus
        self._configured = list(principals)
        self._has_tokens = has_tokens

    def all(self) -> Sequence[Callable[..., object]]:
        """Every tool."""
        return self.search, self.get_document, self.neighbours, self.list_documents, self.history

    def search(
        self,
        question: Annotated[str, Field(description="The question in words.")],
        mode: Annotated[
            Literal["hybrid", "vector", "text"], Field(description="By meaning (vector), by words (text), or by both.")
        ] = "hybrid",
        where: Annotated[
            list[str],
            Field(
                description="Conditions on the documents, all of which must be met, such as `key=policies/*`, "
                "`size>1000`, `year>=2020`, `tags has travel`."
            ),
        ] = [],  # noqa: B006  never changed; pydantic copies it into the schema
        limit: Annotated[int, Field(description="Maximum number of chunks, from 1 to 100.")] = 10,
        expand: Annotated[
            Literal["neighbours", "section"] | None,
            Field(description="The text that each chunk brings with it: the chunks beside it, or the whole section."),
        ] = None,
    ) -> SearchAnswer:
        """Find the chunks of documents that answer a question best, best first, with citations."""
        _check_limit(limit, _MAX_HITS)
        if not question.strip():
            raise ConfigurationError("The question is empty", "Ask for something.")
        head = self._corpus.at_head()
        hits = head.search(question, mode=mode, where=where, principals=self._principals(), limit=limit, expand=expand)
        return SearchAnswer(version=head.version, hits=[FoundChunk.of(hit) for hit in hits])

    def get_document(
        self,
        document: Annotated[str, Field(description="Key of the document, as hits and lists have it.")],
        start_offset: Annotated[int, Field(description="Where to begin: 0, or `next_offset` of the part before.")] = 0,
        max_characters: Annotated[int, Field(description="Maximum length, from 1 to 100000.")] = 20_000,
    ) -> TextAnswer:
        """Read the text of a document, a part at a time."""
        head = self._corpus.at_head()
        part = head.read_document(
            document, principals=self._principals(), start_offset=start_offset, max_characters=max_characters
        )
        return TextAnswer.of(part)

    def neighbours(
        self,
        document: Annotated[str, Field(description="Key of the document of the chunk.")],
        chunk: Annotated[str, Field(description="Id of the chunk, as a hit has it.")],
        before: Annotated[int, Field(description="Number of chunks before it, from 0 to 20.")] = 1,
        after: Annotated[int, Field(description="Number of chunks after it, from 0 to 20.")] = 1,
    ) -> TextAnswer:
        """Read a chunk together with the chunks before and after it."""
        head = self._corpus.at_head()
        return TextAnswer.of(
            head.neighbours(document, chunk, before=before, after=after, principals=self._principals())
        )

    def list_documents(
        self,
        prefix: Annotated[str, Field(description="List only documents whose keys begin with it.")] = "",
        after: Annotated[str, Field(description="`next_after` of the page before.")] = "",
        limit: Annotated[int, Field(description="Maximum number of documents, from 1 to 1000.")] = 100,
    ) -> DocumentsAnswer:
        """List the documents of the corpus by key, a page at a time."""
        head = self._corpus.at_head()
        rows = head.list_documents(prefix=prefix, after=after, principals=self._principals(), limit=limit)
        return DocumentsAnswer(
            version=head.version,
            documents=[ListedDocument.of(row) for row in rows],
            next_after=rows[-1].key if len(rows) == limit else None,
        )

    def history(
        self,
        document: Annotated[str | None, Field(description="Key of a document. Null: the whole corpus.")] = None,
        limit: Annotated[int, Field(description="Maximum number of publications, from 1 to 1000.")] = 20,
    ) -> HistoryAnswer:
        """List the publications that changed the corpus, or one document, newest first."""
        _check_limit(limit, _MAX_PUBLICATIONS)
        head, principals = self._corpus.at_head(), self._principals()
        if document is None:
            rows = head.publications(principals=principals, limit=limit)
            return HistoryAnswer(version=head.version, publications=[Publication.of_corpus(row) for row in rows])
        changes = head.changes(document, principals=principals, limit=limit)
        return HistoryAnswer(version=head.version, publications=[Publication.of_document(row) for row in changes])

    def _principals(self) -> list[str] | None:
        """The principals of the caller. None: there are none, so a corpus with restricted access shows nothing."""
        if not self._has_tokens:
            return self._configured or None
        caller = get_access_token()
        claims = (caller.claims or {}) if caller is not None else {}
        return list(claims.get(PRINCIPALS, ())) or None


def _with_our_errors(tool: Callable[P, R]) -> Callable[P, R]:
    """The tool with errors of this package as errors of the tool, which agents read."""

    @wraps(tool)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return tool(*args, **kwargs)
        except IngestError as error:
            raise ToolError(str(error)) from error

    return call


def _check_limit(limit: int, greatest: int) -> None:
    if not 1 <= limit <= greatest:
        raise ConfigurationError(f"limit is {limit}", f"Use a number from 1 to {greatest}.")
