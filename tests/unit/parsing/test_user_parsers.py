"""Parsers of the user: what they get and give, and that whatever they do concerns their document alone."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from ingest_pipeline.errors import ConfigurationError, ExtensionError
from ingest_pipeline.extensions.loader import Extension, read_extensions
from ingest_pipeline.parsing.user_parsers import UserParser, load_parsers, parser_of
from ingest_pipeline.sandbox import confinement
from ingest_pipeline.types import TextPiece
from tests.support import user_code

LINES = "tests.support.user_code.Lines"
OBEDIENT = "tests.support.user_code.Obedient"
landlock = pytest.mark.skipif(not confinement.landlock_version(), reason="this kernel has no Landlock")
seccomp = pytest.mark.skipif("seccomp" in confinement.unavailable(), reason="this kernel has no seccomp")


def parser(value: object) -> UserParser:
    (found,) = load_parsers(read_extensions("parser", value))
    return found


def text_of(found: UserParser, content: str) -> str:
    pieces, _ = found.read("a.do", found.parse("a.do", content.encode()))
    return "".join(piece.text for piece in pieces)


@pytest.mark.parametrize("value", [LINES, {"class": LINES}, user_code.Lines(), user_code.Lines])
def test_a_parser_gives_pieces_with_pages_headings_and_columns(value: object) -> None:
    found = parser(value)
    pieces, columns = found.read("b.lines", found.parse("b.lines", b"eins\nzwei\n"))
    assert pieces == [TextPiece("eins\n", 1, ("Lines", "Line 1")), TextPiece("zwei\n", 2, ("Lines", "Line 2"))]
    assert columns == {"lines": 2, "key": "b.lines"}


@pytest.mark.parametrize("value", [{"class": LINES, "arguments": {"upper": True}}, user_code.Lines(upper=True)])
def test_arguments_reach_the_parser(value: object) -> None:
    found = parser(value)
    pieces, _ = found.read("b.lines", found.parse("b.lines", b"eins"))
    assert [piece.text for piece in pieces] == ["EINS"]


def test_the_parser_of_a_document_is_that_of_its_suffix() -> None:
    found = load_parsers(read_extensions("parser", [LINES, OBEDIENT]))
    assert [parser_of(found, key) for key in ("x/A.LINES", "b.do", "c.txt", "lines")] == [*found, None, None]


@pytest.mark.parametrize(
    ("what", "problem"),
    [
        ("raise", "which raised ValueError: no such thing"),
        ("exit", "which raised SystemExit: 3"),
        ("die", r"which ended its process \(exit status 4\)"),
        ("hang", "which took more than 1 seconds"),
        ("spin", "which took more than 1 seconds"),
        ("recurse", "which raised RecursionError"),
        ("many", "which returned more than 100000 pieces"),
        ("huge", "which returned more than 100000000 bytes of text"),
        ("endless", "which returned more than 100000000 bytes of text"),
        ("greedy", "which needed more than 2147483648 bytes of memory"),
        ("surrogate", "which returned text that is not valid Unicode"),
        ("columns", "which returned the column 'when' with"),
        ("infinite", "which returned the column 'value' with nan"),
        ("name", "which returned a column that is named 1"),
        ("page", "which returned a piece with the page 0"),
        ("heading", "which returned a piece with the heading 'heading'"),
        ("bytes", "which returned a piece whose text is a bytes"),
        ("strings", "which returned a piece that is a str, not a TextPiece"),
        ("none", "which returned a NoneType, not a ParsedDocument"),
    ],
)
def test_nonsense_fails_its_document_alone(what: str, problem: str) -> None:
    found = parser({"class": OBEDIENT, "arguments": {"seconds": 1 if "seconds" in problem else 30}})
    with pytest.raises(ExtensionError, match=problem) as failure:
        text_of(found, what)
    assert failure.value.document == "a.do"
    assert failure.value.reason == "refused by an extension"
    assert not failure.value.may_pass
    assert "\n" not in str(failure.value)
    assert text_of(found, "fine") == "fine"


def test_what_a_parser_prints_and_reads_does_not_disturb_the_protocol() -> None:
    assert text_of(parser(OBEDIENT), "print") == "printed"


def test_nul_is_dropped_because_no_database_stores_it() -> None:
    assert text_of(parser(OBEDIENT), "nul") == "ab"


@pytest.mark.promise("user-code")
@landlock
@pytest.mark.parametrize(
    "attack", ["open('{secret}').read()", "os.listdir('/')", "open('/proc/' + str(os.getppid()) + '/environ').read()"]
)
def test_a_parser_of_the_user_reads_no_files_of_others(attack: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    assert text_of(parser(OBEDIENT), f"eval {attack.replace('{secret}', str(secret))}") == "PermissionError"


@landlock
def test_a_parser_of_the_user_may_read_its_own_package_for_what_it_imports_later() -> None:
    assert text_of(parser(OBEDIENT), f"eval len(open({user_code.__file__!r}).read()) > 0") == "True"


@pytest.mark.promise("user-code")
@seccomp
@pytest.mark.parametrize("attack", ["socket.create_connection(('127.0.0.1', {port}))", "os.fork()"])
def test_a_parser_of_the_user_has_no_network_and_starts_no_process(attack: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = text_of(parser(OBEDIENT), f"eval {attack.replace('{port}', str(server.getsockname()[1]))}")
    assert found == "PermissionError"


def test_a_parser_of_the_user_knows_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-secret")
    assert text_of(parser(OBEDIENT), "eval os.environ.get('OPENAI_API_KEY')") == "None"


class Unsendable(user_code.Lines):
    """Cannot be pickled."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


def test_an_object_that_cannot_be_sent_to_a_child_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"cannot be sent to its child process: TypeError.*dotted path"):
        parser(Unsendable())


def test_an_object_of_the_running_script_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Unsendable, "__module__", "__main__")
    with pytest.raises(ConfigurationError, match="is defined in the script that runs"):
        parser(Unsendable())


@pytest.mark.parametrize("suffixes", [None, (), "eml", ("eml",), (".a/b",), (".ok", 3)])
def test_suffixes_that_are_none_are_refused(suffixes: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_code.Lines, "suffixes", suffixes)
    with pytest.raises(ConfigurationError, match="which are not the ends of file names"):
        parser(LINES)


def test_two_parsers_of_a_suffix_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"INGEST_PARSER names two parsers of \.lines"):
        load_parsers(read_extensions("parser", [LINES, user_code.Lines()]))


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), "60", True])
def test_seconds_that_are_no_time_are_refused(seconds: object) -> None:
    with pytest.raises(ConfigurationError, match="as its `seconds`"):
        parser({"class": OBEDIENT, "arguments": {"seconds": seconds}})


def test_a_class_that_only_the_parent_finds_is_an_error_of_the_configuration() -> None:
    found = parser(OBEDIENT)
    lost = Extension("parser", "nowhere.at_all.Parser", given=None)
    hook = type(found.hook)(lost, "x", found.hook.role, found.hook.error)
    with pytest.raises(ConfigurationError, match=r"there is no module 'nowhere'"):
        hook.run("a.do", {"key": "a.do"}, b"", 1000)
