"""Every document gives its text or an error of the right class; no file harms the next one or hangs the pipeline."""

# chance repeats itself here on purpose

import codecs
import hashlib
import io
import os
import random
import re
import signal
import subprocess
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain, repeat
from math import ceil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest_pipeline.cli.demo import sample_documents
from ingest_pipeline.cli.demo.sample_documents import (
    CHOCOLATE,
    COLUMN_FORMATS,
    METEORITES,
    OBJECT_STORES,
    ROW_LOCKS,
    SAGAS,
    TIDES,
    VECTOR_SEARCH,
    write_python_topics,
    write_samples,
)
from ingest_pipeline.errors import (
    BinaryDocumentError,
    ConfigurationError,
    CorruptDocumentError,
    DocumentEncodingError,
    DocumentError,
    DocumentTooLargeError,
    EmptyDocumentError,
    MissingExtraError,
    UnsupportedFormatError,
)
from ingest_pipeline.parsing.built_in_parsers import PARSER, ParserLimits, is_markdown, media_type, parse
from ingest_pipeline.parsing.worker_pool import ParserPool, _pieces  # pyright: ignore[reportPrivateUsage]
from ingest_pipeline.sandbox import children as children_module

LIMITS = ParserLimits()

SAMPLES: dict[str, list[str]] = {
    "chocolate.md": CHOCOLATE,
    "column-formats.epub": COLUMN_FORMATS,
    "meteorites.jsonl": [row["text"] for row in METEORITES],
    "object-stores.docx": OBJECT_STORES,
    "row-locks.html": ROW_LOCKS,
    "sagas.pdf": SAGAS,
    "tides.csv": [row["note"] for row in TIDES],
    "tides.xlsx": [row["note"] for row in TIDES],
    "vector-search.pptx": VECTOR_SEARCH,
}
PARSED = sorted(name for name in SAMPLES if Path(name).suffix in {".epub", ".docx", ".html", ".pdf", ".xlsx", ".pptx"})
ZIPPED = [name for name in PARSED if not name.endswith((".html", ".pdf"))]
MAIN_PART = {
    "column-formats.epub": "chapter.xhtml",
    "object-stores.docx": "word/document.xml",
    "tides.xlsx": "xl/worksheets/sheet1.xml",
    "vector-search.pptx": "ppt/slides/slide1.xml",
}

SLOW_PAGE = b'<meta "' * 200_000
"""Keeps the child busy for minutes: every tag without an end is looked for to the end of the page."""
PAGE = b"<h1>Head</h1><p>Body</p>"
PAGE_TEXT = "# Head\n\nBody\n"


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in write_samples(tmp_path_factory.mktemp("samples"))}


@pytest.fixture
def pool() -> Iterator[ParserPool]:
    pool = ParserPool()
    yield pool
    pool.close()


def text_of(document: str, *blocks: bytes, limits: ParserLimits = LIMITS) -> str:
    return "".join(piece.text for piece in parse(document, blocks, limits))


def extracted(pool: ParserPool, document: str, media_type: str, data: bytes, limits: ParserLimits) -> str:
    return "".join(piece.text for piece in pool.extract(document, media_type, data, limits))


def children() -> set[int]:
    found: set[int] = set()
    for thread in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # the thread ended just now
            found.update(map(int, (thread / "children").read_text().split()))
    return found


def appearing(before: set[int]) -> int:
    """The pid of a child that was not there before, as soon as it parses."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        for pid in children() - before:
            if b"parsing/worker.py" in Path(f"/proc/{pid}/cmdline").read_bytes() and cpu_seconds(pid) > 0.5:
                return pid
        time.sleep(0.02)
    raise AssertionError("no child appeared")


def cpu_seconds(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


# Samples


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_of_every_format_gives_its_text(name: str, samples: dict[str, bytes]) -> None:
    text = " ".join(text_of(name, samples[name]).split())
    for line in SAMPLES[name]:
        assert line in text


def test_samples_are_the_same_bytes_every_time(samples: dict[str, bytes], tmp_path: Path) -> None:
    assert {path.name: path.read_bytes() for path in write_samples(tmp_path / "again")} == samples
    for name in ZIPPED:
        with zipfile.ZipFile(io.BytesIO(samples[name])) as archive:
            assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_the_parser_version_names_the_text_that_it_gives(samples: dict[str, bytes]) -> None:
    """If the text of a sample changed, change PARSER and this together: every corpus has to be made again."""
    texts = hashlib.sha256("\0".join(text_of(name, samples[name]) for name in PARSED).encode()).hexdigest()
    assert (PARSER, texts[:16]) == ("text-2/kreuzberg-4.10", "6b6e5bd826e8ca50")


def test_python_topics_are_documents(tmp_path: Path) -> None:
    paths = write_python_topics(tmp_path / "topics")
    assert len(paths) > 60
    assert "context manager" in text_of("with.txt", (tmp_path / "topics" / "with.txt").read_bytes())


# Text


@settings(max_examples=100, derandomize=True, deadline=None)
@given(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-be", "utf-32-be"]),
    st.lists(st.integers(0, 9)),
)
def test_text_survives_every_encoding_and_division_into_blocks(text: str, encoding: str, lengths: list[int]) -> None:
    text = "x" + text
    mark = {"utf-16-be": codecs.BOM_UTF16_BE, "utf-32-be": codecs.BOM_UTF32_BE}.get(encoding, b"")
    data, blocks, at = mark + text.encode(encoding), list[bytes](), 0
    for length in lengths:
        blocks.append(data[at : at + length])
        at += length
    assert text_of("a.txt", *blocks, data[at:]) == text


def test_newlines_stay_as_they_are() -> None:
    assert text_of("a.txt", b"a\r\nb\rc\n\n") == "a\r\nb\rc\n\n"


@pytest.mark.parametrize("block", [1, 3, 5_000])
def test_a_wrong_encoding_is_named_with_its_offset(block: int) -> None:
    data = "\u00e9".encode() * 1_000 + "caf\u00e9".encode("latin-1") + b" au lait"
    with pytest.raises(DocumentEncodingError, match=r"not UTF-8 at byte 2003\. Its published version"):
        text_of("a.txt", *(data[at : at + block] for at in range(0, len(data), block)))


def test_an_offset_counts_the_byte_order_mark() -> None:
    with pytest.raises(DocumentEncodingError, match="at byte 5"):
        text_of("a.txt", codecs.BOM_UTF8 + b"ab\xff")
    with pytest.raises(DocumentEncodingError, match="UTF-16-LE at byte 4"):
        text_of("a.txt", codecs.BOM_UTF16_LE, "a".encode("utf-16-le"), b"\x00\xdc")


def test_a_character_cut_off_at_the_end_is_a_wrong_encoding() -> None:
    with pytest.raises(DocumentEncodingError, match="at byte 2"):
        text_of("a.txt", b"ab\xc3")


@pytest.mark.parametrize("name", ["a.txt", "a.bin", "no-extension", "a.csv", "a.html", "a.pdf"])
@pytest.mark.parametrize(
    "data", [b"PK\x03\x04rest", b"\x89PNG\r\n\x1a\n", b"\x1f\x8b\x08", b"\x7fELF\x02", b"PAR1\x15", b"\xff\xd8\xff\xe0"]
)
def test_a_known_binary_format_is_not_text_whatever_its_name(name: str, data: bytes) -> None:
    with pytest.raises(BinaryDocumentError, match="and not text"):
        text_of(name, data)


@pytest.mark.parametrize("prefix", [b"", b"text " * 1_000], ids=["in the head", "later"])
@pytest.mark.parametrize("name", ["a.log", "a.html"])
def test_nul_is_no_text(name: str, prefix: bytes) -> None:
    with pytest.raises(BinaryDocumentError, match="contains NUL"):
        text_of(name, prefix, b"a\0b\xff" if name == "a.log" and not prefix else b"a\0b")


@pytest.mark.parametrize("name", ["a.txt", *PARSED])
@pytest.mark.parametrize("data", [b"", b" \n"])
def test_a_file_without_bytes_or_of_white_space_holds_the_empty_text(name: str, data: bytes) -> None:
    assert text_of(name, data, b"") == ""


@pytest.mark.parametrize("data", [b" \r\n\t" * 1_000, codecs.BOM_UTF8, codecs.BOM_UTF8 + b" \n"])
@pytest.mark.parametrize("name", ["a.txt", "a.html"])
def test_much_white_space_and_a_mark_alone_are_no_error(name: str, data: bytes) -> None:
    assert text_of(name, data).strip() == ""


def test_text_is_streamed_in_the_memory_of_one_block() -> None:
    block = b"Some line of text.\n" * 1_000
    tracemalloc.start()
    try:
        length = sum(len(piece.text) for piece in parse("a.log", repeat(block, 1_000)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert length == 1_000 * len(block)
    assert peak < 10 * len(block)


# Formats


@pytest.mark.parametrize(
    ("document", "expected", "markdown"),
    [
        ("a/b.MD", "text/markdown", True),
        ("a.PDF", "application/pdf", True),
        ("a.html", "text/html", True),
        ("a.csv", "text/csv", False),
        ("a.jsonl", "application/jsonl", False),
        ("a.py", "text/plain", False),
        ("folder.md/README", "text/plain", False),
        (".html", "text/plain", False),
    ],
)
def test_the_extension_names_the_media_type(document: str, expected: str, markdown: bool) -> None:
    assert (media_type(document), is_markdown(document)) == (expected, markdown)


@pytest.mark.parametrize("name", ["report", "report.txt", "report.docx", "report.html"])
def test_a_pdf_is_a_pdf_whatever_its_name(name: str, samples: dict[str, bytes]) -> None:
    assert SAGAS[1] in text_of(name, samples["sagas.pdf"])


def test_a_pdf_may_have_something_before_its_header(samples: dict[str, bytes]) -> None:
    assert SAGAS[1] in text_of("a.pdf", b"\r\n\r\n" + samples["sagas.pdf"])


def test_blocks_of_one_byte_make_the_same_document(samples: dict[str, bytes]) -> None:
    data = samples["object-stores.docx"]
    blocks = (data[at : at + 1] for at in range(len(data)))
    assert "".join(piece.text for piece in parse("a.docx", blocks)) == text_of("a.docx", data)


def test_an_old_or_encrypted_office_file_is_unsupported() -> None:
    with pytest.raises(UnsupportedFormatError, match="before 2007"):
        text_of("a.docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(2_000))


def test_an_encrypted_pdf_is_unsupported(samples: dict[str, bytes]) -> None:
    keys = b"/ID [<00><00>] /Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O <%s> /U <%s> >>" % (b"41" * 32, b"42" * 32)
    with pytest.raises(UnsupportedFormatError, match="password"):
        text_of("a.pdf", samples["sagas.pdf"].replace(b"/Root 1 0 R", b"/Root 1 0 R " + keys))


@pytest.mark.parametrize("name", [name for name in PARSED if name != "row-locks.html"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.9])
def test_a_truncated_document_is_corrupt(name: str, kept: float, samples: dict[str, bytes]) -> None:
    with pytest.raises(CorruptDocumentError, match=name):
        text_of(name, samples[name][: int(kept * len(samples[name]))])


@pytest.mark.parametrize(
    ("name", "message"),
    [(f"a.{kind}", f"is not the ZIP archive that a .{kind} file is") for kind in ("docx", "epub", "pptx", "xlsx")]
    + [("a.pdf", "has no PDF header")],
)
def test_text_under_the_name_of_another_format_is_corrupt(name: str, message: str) -> None:
    with pytest.raises(CorruptDocumentError, match=message):
        text_of(name, b"Just text.")


def test_pages_without_text_are_an_empty_document(samples: dict[str, bytes]) -> None:
    with pytest.raises(EmptyDocumentError, match="has no text; scanned pages are not read"):
        text_of("a.pdf", samples["sagas.pdf"].replace(b" Tj", b" %%"))


# HTML


@pytest.mark.parametrize(
    "page",
    [
        "<p>caf\u00e9</p>".encode(),
        codecs.BOM_UTF8 + "<p>caf\u00e9</p>".encode(),
        "<p>caf\u00e9</p>".encode("utf-16"),
        '<meta charset="iso-8859-1"><p>caf\u00e9</p>'.encode("latin-1"),
        "<meta charset=windows-1252><p>caf\u00e9</p>".encode("cp1252"),
        '<?xml version="1.0" encoding="koi8-r"?><p>caf\u00e9</p>'.replace("\u00e9", "e").encode("koi8-r"),
        '<meta charset="utf-16"><p>caf\u00e9</p>'.encode(),
    ],
)
def test_a_page_is_decoded_as_it_declares(page: bytes) -> None:
    assert text_of("a.html", page).replace("\u00e9", "e") == "cafe\n"
    assert "\ufffd" not in text_of("a.html", page)


def test_a_page_that_is_not_what_it_declares_is_refused() -> None:
    with pytest.raises(DocumentEncodingError, match="not UTF-8 at byte 6"):
        text_of("a.html", "<p>caf\u00e9</p>".encode("latin-1"))
    with pytest.raises(DocumentEncodingError, match="'klingon'"):
        text_of("a.html", b"<meta charset=klingon><p>x</p>")


def test_a_page_gives_its_title_and_body_and_nothing_that_readers_do_not_see() -> None:
    page = (
        b'<html><head><title>A &amp; B</title><meta name="description" content="hidden > hidden"">'
        b'<link rel="canonical" href="hidden"><script>hidden</script></head><body><header>Top</header>'
        b'<h1>Head</h1><img src="data:image/png;base64,hidden"><svg><path d="hidden"/></svg>'
    )
    assert text_of("a.html", page).split() == ["A", "&", "B", "Top", "#", "Head"]


# Limits


def bomb(sample: bytes, part: str, megabytes: int) -> bytes:
    """The document with one part swollen by a text that compresses a thousandfold."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(sample)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = old.read(name)
            at = content.rindex(b"</") if name == part else len(content)
            with new.open(name, "w", force_zip64=True) as member:
                member.write(content[:at])
                for _ in range(megabytes if name == part else 0):
                    member.write(b" " * (1 << 20))
                member.write(content[at:])
    return out.getvalue()


@pytest.mark.parametrize(("name", "most"), [*((name, 20_000_000) for name in ZIPPED), ("tides.xlsx", 250_000_000)])
def test_a_zip_bomb_is_too_large(name: str, most: int, samples: dict[str, bytes]) -> None:
    limits = LIMITS if most == LIMITS.unpacked_bytes else ParserLimits(unpacked_bytes=most)
    with pytest.raises(DocumentTooLargeError, match=f"unpacks to more than {most} bytes"):
        text_of(name, bomb(samples[name], MAIN_PART[name], most // 900_000), limits=limits)


@pytest.mark.parametrize("name", ZIPPED)
def test_a_damaged_member_is_not_skipped(name: str, samples: dict[str, bytes]) -> None:
    data = bytearray(samples[name])
    data[data.index(MAIN_PART[name].encode()) + len(MAIN_PART[name]) + 20] ^= 0xFF
    with pytest.raises(CorruptDocumentError, match="damaged"):
        text_of(name, bytes(data))


def test_an_encrypted_archive_is_unsupported(samples: dict[str, bytes]) -> None:
    data = bytearray(samples["column-formats.epub"])
    data[data.index(b"PK\x01\x02") + 8] |= 1
    data[6] |= 1
    with pytest.raises(UnsupportedFormatError, match="encrypted"):
        text_of("a.epub", bytes(data))


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
    before = children()
    extracted(pool, "a.html", "text/html", PAGE, LIMITS)
    (idle,) = children() - before
    os.kill(idle, signal.SIGKILL)
    assert extracted(pool, "b.html", "text/html", PAGE, LIMITS) == PAGE_TEXT


def test_a_child_that_does_not_answer_times_out(pool: ParserPool) -> None:
    before = children()
    extracted(pool, "a.html", "text/html", PAGE, LIMITS)
    (idle,) = children() - before
    os.kill(idle, signal.SIGSTOP)
    with pytest.raises(DocumentTooLargeError, match="more than 1 seconds to parse"):
        extracted(pool, "b.html", "text/html", PAGE * 100_000, ParserLimits(wall_seconds=1))
    assert idle not in children()


def test_an_interrupt_from_the_terminal_does_not_reach_a_child(pool: ParserPool) -> None:
    before = children()
    extracted(pool, "a.html", "text/html", PAGE, LIMITS)
    (child,) = children() - before
    assert os.getpgid(child) != os.getpgid(0)


def test_a_child_has_no_secrets(pool: ParserPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-secret")
    before = children()
    extracted(pool, "a.html", "text/html", PAGE, LIMITS)
    (child,) = children() - before
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


def shuffled(data: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(data)
    for _ in range(chance.randrange(1, 30)):
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
    return bytes(damaged)


@pytest.mark.parametrize("name", PARSED)
def test_a_damaged_document_gives_text_or_an_error_of_the_document(name: str, samples: dict[str, bytes]) -> None:
    chance = random.Random(name)
    for _ in range(40):
        try:
            text_of(name, shuffled(samples[name], chance))
        except DocumentError as error:
            assert error.document == name  # noqa: PT017  # either outcome is right, and the loop goes on
    assert text_of(name, samples[name])


# Pages


def test_a_piece_is_a_page_and_the_pieces_are_the_text(samples: dict[str, bytes]) -> None:
    pieces = list(parse("vector-search.pptx", [samples["vector-search.pptx"]]))
    assert [piece.page for piece in pieces] == [1, 2, 3, 4]
    for piece, line in zip(pieces, VECTOR_SEARCH, strict=True):
        assert line in " ".join(piece.text.split())


@pytest.mark.parametrize("name", [name for name in SAMPLES if not name.endswith((".pdf", ".pptx"))])
def test_a_format_without_pages_has_none(name: str, samples: dict[str, bytes]) -> None:
    assert {piece.page for piece in parse(name, [samples[name]])} == {None}


def pdf(pages: list[list[str]]) -> bytes:
    """A PDF with a page for each list of lines."""
    kids = " ".join(f"{3 + 2 * number} 0 R" for number in range(len(pages)))
    font = 3 + 2 * len(pages)
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>"]
    for number, lines in enumerate(pages):
        shown = "".join(f"({line}) Tj 0 -40 Td\n" for line in lines)
        stream = f"BT /F1 10 Tf 50 780 Td\n{shown}ET"
        objects += [
            (
                f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {4 + 2 * number} 0 R "
                f"/Resources << /Font << /F1 {font} 0 R >> >> >>"
            ),
            f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream",
        ]
    objects.append("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>")
    out, offsets = "%PDF-1.4\n", list[int]()
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n"
    table = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n" + "".join(f"{at:010} 00000 n \n" for at in offsets)
    trailer = f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(out)}\n%%EOF\n"
    return (out + table + trailer).encode("latin-1")


def test_each_page_of_a_pdf_has_its_own_words() -> None:
    pages = [
        [f"Page {page} says na\u00efve things * {line} * of its own." for line in range(page, page + 4)]
        for page in range(1, 8)
    ]
    pieces = list(parse("a.pdf", [pdf(pages)]))
    assert [piece.page for piece in pieces] == list(range(1, 8))
    for piece in pieces:
        assert set(re.findall(r"Page (\d+)", piece.text)) == {str(piece.page)}


def test_a_page_is_found_by_characters_although_the_parser_counts_bytes() -> None:
    lines = [f"Page {number} says na\u00efve caf\u00e9 \u2014 twice." for number in range(1, 6)]
    deck = sample_documents._pptx(lines)  # pyright: ignore[reportPrivateUsage]
    pieces = list(parse("a.pptx", [deck]))
    assert [(piece.page, piece.text.strip("# \n")) for piece in pieces] == list(enumerate(lines, 1))


@pytest.mark.parametrize(
    "division", ["[[3, null]]", "[[5, null]]", "[[-1, null], [5, null]]", "[[4, 0]]", '[[4, "1"]]', "[[4]]", "4", "{"]
)
def test_pieces_that_are_not_those_of_the_text_are_refused(division: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        _pieces(f"{division}\ntext".encode())
