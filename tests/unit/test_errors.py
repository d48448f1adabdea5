"""Errors are one line that says what happened and what to do."""

from __future__ import annotations

import re
from pathlib import Path

from ingest_pipeline import errors
from ingest_pipeline.errors import DatabaseUnavailableError, DocumentError, EmptyDocumentError, IngestError


def test_an_error_is_one_line() -> None:
    assert str(DatabaseUnavailableError("The server\nis gone.")).count("\n") == 0
    assert str(DatabaseUnavailableError("The server is gone")).startswith("The server is gone. Check")


def test_a_document_error_names_the_document() -> None:
    error = EmptyDocumentError("a'b", "has no bytes")
    assert '"a\'b"' in str(error)
    assert isinstance(error, DocumentError)


def test_every_error_is_in_the_drawn_tree() -> None:
    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, IngestError)]
    assert errors.__doc__ is not None
    for error in classes:
        assert error.__name__ in errors.__doc__
        assert error.__doc__


def test_every_error_is_raised_or_is_a_base_class() -> None:
    root = Path(__file__).parents[2]
    sources = [
        *(root / "ingest_pipeline").rglob("*.py"),
        *(root / "assets").rglob("*.py"),
        *(root / "resources").rglob("*.py"),
    ]
    assert len(sources) > 140
    text = "\n".join(path.read_text() for path in sources if path.parent != root / "ingest_pipeline" / "errors")
    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, IngestError)]
    # A hook raises the class that it is loaded with.
    raised = {*re.findall(r"\b(\w+Error)\(", text), *re.findall(r"\bHook\.load\([^)]*\b(\w+Error)\b", text)}
    assert [one.__name__ for one in classes if not one.__subclasses__() and one.__name__ not in raised] == []
