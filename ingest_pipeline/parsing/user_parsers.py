"""Loads the parsers of the user, chooses the parser of a document and calls it, from the parent process.

A parser that belongs to the package is added in `built_in_parsers`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import cast

from ingest_pipeline.errors import ConfigurationError, ExtensionError
from ingest_pipeline.extensions.loader import Extension
from ingest_pipeline.extensions.pool import Hook
from ingest_pipeline.parsing.base import TextPiece
from ingest_pipeline.parsing.user_parser_role import read_answer

_ROLE = "ingest_pipeline.parsing.user_parser_role"
TEXT_BYTES = 100_000_000
"""Maximum size of a document, and of the text that a parser returns."""
# Maximum size of what a result has besides its text: the division into pieces, and the columns.
_ENVELOPE_BYTES = 16 << 20
_SUFFIX = re.compile(r"\.[\w+~-]{1,30}", re.ASCII)


@dataclass(frozen=True)
class UserParser:
    """A parser of the user."""

    hook: Hook
    suffixes: tuple[str, ...]
    """In lower case."""

    @classmethod
    def load(cls, extension: Extension) -> UserParser:
        """Load a parser.

        Raises:
            ConfigurationError: It cannot be loaded or does not fit the protocol.
        """
        hook = Hook.load(extension, _ROLE, ["parse"], ExtensionError)
        declared: object = getattr(extension.load(), "suffixes", None)
        given = cast("Collection[object]", declared) if isinstance(declared, list | tuple | set | frozenset) else ()
        suffixes = sorted({one.lower() for one in given if isinstance(one, str) and _SUFFIX.fullmatch(one)})
        if not suffixes or len(suffixes) < len({str(one).lower() for one in given}):
            raise ConfigurationError(
                f"{hook.name} has the suffixes {declared!r:.100}, which are not the ends of file names",
                'Set them like suffixes = (".eml",).',
            )
        return cls(hook, tuple(suffixes))

    def parse(self, document: str, content: bytes) -> bytes:
        """Run the parser on a document. `read` reads the result.

        Raises:
            DocumentError: The parser failed with this document.
            ConfigurationError: Its child process does not start.
        """
        return self.hook.run(
            document,
            {"key": "" if self.hook.is_durable else document, "max_text_bytes": TEXT_BYTES},
            content,
            TEXT_BYTES + _ENVELOPE_BYTES,
        )

    def read(self, document: str, result: bytes) -> tuple[list[TextPiece], dict[str, object]]:
        """The pieces and columns of a result.

        Raises:
            DocumentError: The result has another form.
        """
        return self.hook.checked(document, result, read_answer)


def load_parsers(extensions: Sequence[Extension]) -> tuple[UserParser, ...]:
    """Load the parsers of the user.

    Raises:
        ConfigurationError: One cannot be loaded, or two parse the same suffix.
    """
    parsers = tuple(map(UserParser.load, extensions))
    seen: dict[str, UserParser] = {}
    for parser in parsers:
        for suffix in parser.suffixes:
            other = seen.setdefault(suffix, parser)
            if other is not parser:
                raise ConfigurationError(
                    f"INGEST_PARSER names two parsers of {suffix}: {other.hook.extension.path} and "
                    f"{parser.hook.extension.path}",
                    "Keep one of them.",
                )
    return parsers


def parser_of(parsers: Sequence[UserParser], document: str) -> UserParser | None:
    """The parser of the user that parses a document, None if there is none."""
    suffix = PurePosixPath(document).suffix.lower()
    return next((parser for parser in parsers if suffix in parser.suffixes), None)
