"""Errors of Lance are classified by their remedy, and name no paths of the machine that built it."""

from __future__ import annotations

import pytest

from ingest_pipeline.errors import TableAccessError, TableFullError, TableIncompleteError, TableUnavailableError
from ingest_pipeline.lance.errors import error_of

pytestmark = pytest.mark.promise("error-lines")

_PLACE = ", /home/runner/work/lance/lance/rust/lance-io/src/object_store.rs:1576:42"
# As pylance 14.0.2 raised them.
_SAID: list[tuple[str, type[TableUnavailableError]]] = [
    ("LanceError(IO): Generic LocalFileSystem error: No space left on device (os error 28)", TableFullError),
    ("LanceError(IO): Permission denied (os error 13)", TableAccessError),
    (
        "LanceError(IO): Generic N/A error: LanceError(IO): Failed to get AWS credentials: CredentialsNotLoaded",
        TableAccessError,
    ),
    ("Generic S3 error: Server returned non-2xx status code: 403 Forbidden: <?xml version='1.0'?>", TableAccessError),
    ("External error: Not found: tmp/docs.lance/data/d1d6cc2a-0.lance", TableIncompleteError),
    (
        (
            "External error: LanceError(IO): Generic memory error: Invalid range 0..411 for object of size 100 bytes"
            ", /rustc/48a229ceaefd4985c50990b14116b6d856af0985/library/core/src/ops/function.rs:250:5"
        ),
        TableIncompleteError,
    ),
    ("LanceError(IO): file size is too small", TableIncompleteError),
    ("Dataset at path x.lance was not found: Not found: x.lance/_versions", TableIncompleteError),
    (
        (
            "Generic S3 error: Error performing list request: Error performing GET http://127.0.0.1:1/b?list-type=2"
            " - Server returned non-2xx status code: 404 Not Found: <?xml version='1.0'?>\n<Code>NoSuchBucket</Code>"
        ),
        TableUnavailableError,
    ),
    (
        (
            "Generic S3 error: Error performing list request: Error performing GET http://127.0.0.1:1/b?list-type=2"
            ", after 3 retries, max_retries: 3, retry_timeout: 2s  - HTTP error: error sending request"
        ),
        TableUnavailableError,
    ),
    ("Invalid user input: No object store provider found for scheme: 'ftp'", TableUnavailableError),
]


@pytest.mark.parametrize(("said", "kind"), _SAID)
def test_each_fault_has_its_error(said: str, kind: type[TableUnavailableError]) -> None:
    first, *more = said.split("\n")
    error = error_of("/lake/docs.lance", OSError("\n".join([first + _PLACE, *more])))
    assert type(error) is kind
    shown = str(error)
    assert "/lake/docs.lance" in shown
    assert not any(sign in shown for sign in (".rs", "runner", "rustc", "LanceError", "Generic", "\n", "<", "?"))
    assert ("credentials" in error.advice) == (kind is TableAccessError)
    assert ("space" in error.advice) == (kind is TableFullError)


def test_neither_login_nor_signature_is_shown() -> None:
    said = "Error performing GET https://user:secret@store.example/b/k?X-Amz-Signature=abc"
    shown = str(error_of("s3://b/docs.lance", OSError(said)))
    assert "secret" not in shown
    assert "abc" not in shown
