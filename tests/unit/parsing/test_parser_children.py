"""The processes that parse: limits of a document, and children that die, hang or are replaced."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, repeat
from math import ceil
from pathlib import Path

import pytest

from ingest_pipeline.errors import (
    ConfigurationError,
    CorruptDocumentError,
    DocumentError,
    DocumentTooLargeError,
    MissingExtraError,
)
from ingest_pipeline.parsing.built_in_parsers import ParserLimits, parse
from ingest_pipeline.parsing.worker_pool import ParserPool
from ingest_pipeline.sandbox import children as children_module
from tests.support.children import children, cpu_seconds
from tests.support.parsing import LIMITS, text_of

SLOW_PAGE = b'<meta "' * 200_000
"""Keeps the child busy for minutes: every tag without an end is looked for to the end of the page."""
PAGE = b"<h1>Head</h1><p>Body</p>"
PAGE_TEXT = "# Head\n\nBody\n"


@pytest.fixture
def pool() -> Iterator[ParserPool]:
    pool = ParserPool()
    yield pool
    pool.close()


def extracted(pool: ParserPool, document: str, media_type: str, data: bytes, limits: ParserLimits) -> str:
    return "".join(piece.text for piece in pool.extract(document, media_type, data, limits))


def idle_child(pool: ParserPool) -> int:
    """The pid of the child that has parsed a page and waits for the next document."""
    before = children()
    extracted(pool, "a.html", "text/html", PAGE, LIMITS)
    (child,) = children() - before
    return child


def appearing(before: set[int]) -> int:
    """The pid of a child that was not there before, as soon as it parses."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        for pid in children() - before:
            if b"parsing/worker.py" in Path(f"/proc/{pid}/cmdline").read_bytes() and cpu_seconds(pid) > 0.5:
                return pid
        time.sleep(0.02)
    raise AssertionError("no child appeared")


def test_input_is_limited_before_all_of_it_is_read() -> None:
    def endless() -> Iterator[bytes]:
        return chain([b"<p>"], repeat(b"x" * 1_000))

    with pytest.raises(DocumentTooLargeError, match="more than 5000 bytes"):
        list(parse("a.html", endless(), ParserLimits(input_bytes=5_000)))


def test_output_is_limited() -> None:
    with pytest.raises(DocumentTooLargeError, match="more than 10 bytes of text"):
        text_of("a.html", PAGE, limits=ParserLimits(output_bytes=10))
    assert text_of("a.html", PAGE, limits=ParserLimits(output_bytes=len(PAGE_TEXT))) == PAGE_TEXT


@pytest.mark.parametrize(
    ("page", "limits", "message"),
    [
        (SLOW_PAGE, ParserLimits(cpu_seconds=1), "more than 1 seconds of CPU"),
        (SLOW_PAGE, ParserLimits(wall_seconds=0.5), r"more than 0\.5 seconds to parse"),
        (b"<p>some words</p>" * 500_000, ParserLimits(memory_bytes=600 << 20), "bytes of memory"),
    ],
    ids=["cpu", "wall", "memory"],
)
def test_a_document_over_a_limit_is_too_large_and_the_next_one_is_parsed(
    page: bytes, limits: ParserLimits, message: str
) -> None:
    with pytest.raises(DocumentTooLargeError, match=message):
        text_of("a.html", page, limits=limits)
    assert text_of("b.html", PAGE) == PAGE_TEXT


def test_a_limit_counts_for_one_document_and_not_for_all_that_its_child_parsed(
    pool: ParserPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children_module, "MAX_REQUESTS_PER_CHILD", 10_000)

    def parse_busily(limits: ParserLimits) -> None:
        extracted(pool, "a.html", "text/html", PAGE + b'<meta "' * 2_000, limits)

    before = children()
    parse_busily(LIMITS)
    (child,) = children() - before
    started = cpu_seconds(child)
    parse_busily(LIMITS)
    # The limit follows what this machine takes for one document, so that a slow one does not exceed it.
    limit = ceil(8 * (cpu_seconds(child) - started) + 0.1)
    end = cpu_seconds(child) + 1.5 * limit
    while cpu_seconds(child) < end:
        parse_busily(ParserLimits(cpu_seconds=limit))
    assert children() - before == {child}


# Children


def test_a_child_parses_many_files_before_it_is_replaced(pool: ParserPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children_module, "MAX_REQUESTS_PER_CHILD", 3)
    before, seen = children(), list[frozenset[int]]()
    for _ in range(5):
        assert extracted(pool, "a.html", "text/html", PAGE, LIMITS) == PAGE_TEXT
        seen.append(frozenset(children() - before))
    assert seen[0] == seen[1]
    assert seen[2] == frozenset()
    assert len(seen[3]) == 1
    assert seen[3] == seen[4] != seen[0]


def test_a_refused_document_does_not_cost_the_child(pool: ParserPool) -> None:
    before = children()
    with pytest.raises(CorruptDocumentError):
        extracted(pool, "a.pdf", "application/pdf", b"%PDF-1.4 rubbish", LIMITS)
    kept = children() - before
    assert extracted(pool, "a.html", "text/html", PAGE, LIMITS) == PAGE_TEXT
    assert children() - before == kept != set()


def test_threads_parse_concurrently(pool: ParserPool) -> None:
    def one(number: int) -> str:
        return extracted(pool, f"{number}.html", "text/html", f"<p>Page {number}</p>".encode(), LIMITS)

    before = children()
    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(one, range(60))) == [f"Page {number}\n" for number in range(60)]
    assert len(children() - before) <= children_module.MAX_IDLE_CHILDREN
    pool.close()
    assert children() == before


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGSEGV, CorruptDocumentError), (signal.SIGKILL, DocumentTooLargeError)]
)
def test_a_child_that_dies_over_a_document_is_an_error_of_that_document(
    pool: ParserPool, number: signal.Signals, error: type[DocumentError]
) -> None:
    with ThreadPoolExecutor(1) as thread:
        before = children()
        parsing = thread.submit(extracted, pool, "slow.html", "text/html", SLOW_PAGE, LIMITS)
        os.kill(appearing(before), number)
        with pytest.raises(error, match=r"slow\.html"):
            parsing.result()
    assert extracted(pool, "a.html", "text/html", PAGE, LIMITS) == PAGE_TEXT


def test_a_document_is_not_affected_by_earlier_ones_of_its_child(pool: ParserPool) -> None:
    idle = idle_child(pool)
    os.kill(idle, signal.SIGKILL)
    assert extracted(pool, "b.html", "text/html", PAGE, LIMITS) == PAGE_TEXT


def test_a_child_that_does_not_answer_times_out(pool: ParserPool) -> None:
    idle = idle_child(pool)
    os.kill(idle, signal.SIGSTOP)
    with pytest.raises(DocumentTooLargeError, match="more than 1 seconds to parse"):
        extracted(pool, "b.html", "text/html", PAGE * 100_000, ParserLimits(wall_seconds=1))
    assert idle not in children()


def test_an_interrupt_from_the_terminal_does_not_reach_a_child(pool: ParserPool) -> None:
    child = idle_child(pool)
    assert os.getpgid(child) != os.getpgid(0)


def test_a_child_has_no_secrets(pool: ParserPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-secret")
    child = idle_child(pool)
    assert b"a-secret" not in Path(f"/proc/{child}/environ").read_bytes()


def test_a_missing_parser_names_the_extra(pool: ParserPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kreuzberg", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ingest-pipeline\[documents\]'"):
        extracted(pool, "a.html", "text/html", PAGE, LIMITS)


@pytest.mark.parametrize("program", ["/bin/false", "/bin/echo", "/no/such/program"])
def test_a_parser_that_does_not_start_is_not_the_documents_fault(
    pool: ParserPool, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    before = children()
    monkeypatch.setattr(sys, "executable", program)
    with pytest.raises(ConfigurationError, match="does not start"):
        extracted(pool, "a.html", "text/html", PAGE, LIMITS)
    assert children() == before


@pytest.mark.parametrize(
    "answer",
    [
        '{"outcome": "nonsense", "detail": "", "size": 0, "division": 0}',
        '{"outcome": "ready", "detail": "", "size": -1, "division": 0}',
        '{"outcome": "text"}',
        "[]",
    ],
)
def test_a_malformed_answer_of_a_child_is_an_error(
    pool: ParserPool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: str
) -> None:
    babbler = tmp_path / "babbler"
    babbler.write_text(f"#!/bin/sh\necho '{answer}'\n")
    babbler.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(babbler))
    with pytest.raises(ConfigurationError, match="does not start"):
        extracted(pool, "a.html", "text/html", PAGE, LIMITS)


def run(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stderr == ""
    return done.stdout


def test_a_forked_process_parses_with_children_of_its_own() -> None:
    out = run(
        "import os, sys\n"
        "from pathlib import Path\n"
        "from ingest_pipeline.parsing.built_in_parsers import parse\n"
        "first = ''.join(piece.text for piece in parse('a.html', [b'<p>parent']))\n"
        "if os.fork() == 0:\n"
        "    sys.stdout.write(''.join(piece.text for piece in parse('b.html', [b'<p>child'])))\n"
        "    own = Path(f'/proc/self/task/{os.getpid()}/children').read_text().split()\n"
        "    assert len(own) == 1, own\n"
        "    sys.stdout.flush()\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "sys.stdout.write(first + ''.join(piece.text for piece in parse('c.html', [b'<p>parent again'])))\n"
    )
    assert out.split("\n") == ["child", "parent", "parent again", ""]


def test_children_end_with_their_parent() -> None:
    pid = run(
        "import os\n"
        "from pathlib import Path\n"
        "from ingest_pipeline.parsing.built_in_parsers import parse\n"
        "list(parse('a.html', [b'<p>x']))\n"
        "print(Path(f'/proc/self/task/{os.getpid()}/children').read_text())\n"
    )
    assert not Path(f"/proc/{pid.strip()}").exists()


def test_plain_text_needs_no_child() -> None:
    before = children()
    assert text_of("a.txt", b"text") == "text"
    assert children() == before
