"""The sources of a document's values besides its parser: key, object metadata, front matter and sidecar."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import yaml

from ingest_pipeline.errors import ColumnValueError, ConfigurationError

SIDECAR_SUFFIX = ".metadata.json"
"""The sidecar of `report.pdf` is `report.pdf.metadata.json`. It is no document itself."""
MAX_SIDECAR_BYTES = 1 << 20
MAX_FRONT_MATTER = 1 << 16
"""Number of characters within which front matter must end."""
_PLACEHOLDER = re.compile(r"\{(\w+)\}|\*\*/?|\*|[^{*]+|\{")
_FRONT_MATTER = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)^(?:---|\.\.\.)[ \t]*\r?$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class KeyPattern:
    """A pattern that reads values from keys: `{department}/{year}/*`, or a regular expression with named groups.

    A placeholder and `*` match a part of the path without a slash; `**` matches anything. A key that does not match the
    pattern has no values.
    """

    text: str
    expression: re.Pattern[str]

    @classmethod
    def parse(cls, text: str, columns: Sequence[str]) -> KeyPattern:
        """Read a pattern. One that begins with `^` is a regular expression.

        Raises:
            ConfigurationError: It is malformed, or names no column or an undeclared one.
        """
        try:
            expression = re.compile(text if text.startswith("^") else _expression(text), re.DOTALL)
        except re.error as error:
            raise ConfigurationError(
                f"INGEST_COLUMNS_FROM_KEY is {text!r}, which is malformed: {error}", "Correct the pattern."
            ) from error
        unknown = sorted(set(expression.groupindex) - set(columns))
        if unknown or not expression.groupindex:
            named = f"the undeclared column {unknown[0]!r}" if unknown else "no column"
            raise ConfigurationError(
                f"INGEST_COLUMNS_FROM_KEY is {text!r}, which names {named}",
                "Write the names of declared columns in braces, such as {department}/{year}/**.",
            )
        return cls(text, expression)

    def values(self, key: str) -> dict[str, str]:
        """The values in a key, by column."""
        found = self.expression.fullmatch(key)
        return {} if found is None else {name: text for name, text in found.groupdict().items() if text}


def sidecar_of(key: str) -> str:
    """The key of a document's sidecar."""
    return key + SIDECAR_SUFFIX


def is_sidecar(key: str) -> bool:
    """Whether an object is a sidecar by its name."""
    return key.endswith(SIDECAR_SUFFIX) and key.rpartition("/")[2] != SIDECAR_SUFFIX


def read_sidecar(document: str, body: bytes) -> dict[str, object]:
    """The values of a sidecar: an object of JSON.

    Raises:
        ColumnValueError: It is malformed.
    """
    try:
        found: object = json.loads(body.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise _malformed(document, "sidecar", f"is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise _malformed(document, "sidecar", "is not an object of JSON")
    return cast("dict[str, object]", found)


def front_matter(document: str, head: str) -> dict[str, object]:
    """The values of the YAML front matter of a Markdown document; empty if there is none.

    Args:
        document: Key of the document, for the error.
        head: The beginning of its text.

    Raises:
        ColumnValueError: The front matter is malformed.
    """
    found = _FRONT_MATTER.match(head[:MAX_FRONT_MATTER])
    if found is None:
        return {}
    try:
        values: object = yaml.safe_load(found[1])
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise _malformed(document, "front matter", f"is not YAML: {reason}") from error
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        return {}  # ordinary text between two horizontal rules
    return {str(name): value for name, value in cast("Mapping[object, object]", values).items()}


def _expression(text: str) -> str:
    parts = [_part(found) for found in _PLACEHOLDER.finditer(text)]
    return "".join(parts)


def _part(found: re.Match[str]) -> str:
    if found[1]:
        return f"(?P<{found[1]}>[^/]+)"
    return {"*": "[^/]*", "**": ".*", "**/": "(?:.*/)?"}.get(found[0], re.escape(found[0]))


def _malformed(document: str, source: str, problem: str) -> ColumnValueError:
    return ColumnValueError(document, f"has a malformed {source}: it {problem}")
