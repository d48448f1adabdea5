"""Calls a gate of the user, in its child process, and reads the answer, in the parent."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast

from ingest_pipeline.extensions.coroutines import result_of
from ingest_pipeline.extensions.protocol import InvalidResultError
from ingest_pipeline.gates.base import Gate, PreparedVersion
from ingest_pipeline.lance.candidate import Location, open_dataset

MAX_PROBLEMS: Final = 50
_MAX_CHARACTERS: Final = 500
ANSWER_BYTES: Final = 1 << 20


def request(table: Location, head: Location, documents: Sequence[str], removed: Sequence[str]) -> bytes:
    """The message to the child process."""
    return json.dumps((table, head, list(documents), list(removed))).encode()


def answer(extension: object, head: Mapping[str, object], data: bytes) -> bytes:  # noqa: ARG001  other roles need it
    """Call the gate, and return the number of problems with the first of them.

    Args:
        extension: The gate.
        head: Not used.
        data: What `request` wrote.

    Raises:
        InvalidResultError: The gate returned something else.
    """
    table, base, documents, removed = cast("list[Any]", json.loads(data))
    version = PreparedVersion(open_dataset(table), open_dataset(base), documents, removed)
    problems = _problems(result_of(cast("Gate", extension).judge(version)))
    return json.dumps((len(problems), [one[:_MAX_CHARACTERS] for one in problems[:MAX_PROBLEMS]])).encode()


def read_answer(data: bytes) -> tuple[int, tuple[str, ...]]:
    """Read the number of problems, and the first of them.

    Raises:
        ValueError, TypeError: The bytes were not made by `answer`.
    """
    count, problems = cast("list[Any]", json.loads(data))
    return int(count), tuple(map(str, problems))


def _problems(found: object) -> list[str]:
    if isinstance(found, str | bytes) or not isinstance(found, Iterable):
        raise InvalidResultError(f"returned a {type(found).__name__}, not a list of texts")
    problems = list(cast("Iterable[object]", found))
    if wrong := [one for one in problems if not isinstance(one, str)]:
        raise InvalidResultError(f"returned a {type(wrong[0]).__name__} in its list, not a text")
    return cast("list[str]", problems)
