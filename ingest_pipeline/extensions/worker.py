"""The child process that runs a parser, chunker or enricher of the user, so that it cannot harm the parent process.

It runs as a script and speaks the protocol of `children`. Its introduction names the user's class, which it imports and
creates first, because that code is trusted. Then it drops its rights, because documents are not. An enricher keeps
them: it may need the network and keys. Whatever the user's code does, the answer is a result or one problem.
"""

import json
import os
import pickle
import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.extensions.loader import Extension, described
from ingest_pipeline.extensions.protocol import MAX_DETAIL_CHARACTERS, Introduction, InvalidResultError
from ingest_pipeline.sandbox.confinement import drop_rights


class Role(Protocol):
    """A module that calls one kind of extension, in the child process."""

    def answer(self, extension: object, head: dict[str, object], data: bytes) -> bytes:
        """Call the extension, check its result and write it as bytes.

        Raises:
            InvalidResultError: The result is not what the protocol of the extension allows.
        """
        ...


def main() -> None:
    """Load the extension, then answer requests until the input ends."""
    # The user's code must not be able to read requests from standard input or to write into the answers.
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    introduction: Introduction = pickle.loads(requests.read(int(requests.readline())))  # noqa: S301  from the parent
    try:
        role, extension, kept = _prepared(introduction)
    except ConfigurationError as error:
        _answer(answers, "refused", str(error)[: 4 * MAX_DETAIL_CHARACTERS])
        return
    _answer(answers, "ready", ", ".join(kept))
    while line := requests.readline():
        head: dict[str, object] = json.loads(line)
        size = int(str(head["size"]))
        data = requests.read(size)
        if len(data) < size:
            return
        _serve(answers, role, extension, head, data)


def _prepared(introduction: Introduction) -> tuple[Role, object, list[str]]:
    role: Role = import_module(introduction.role)  # pyright: ignore[reportAssignmentType]
    try:
        extension: Extension = pickle.loads(introduction.extension)  # noqa: S301  from the parent
    except Exception as error:
        raise ConfigurationError(
            f"{introduction.name} was given as an object that a child process cannot load: {described(error)}",
            "Define its class in a module that can be imported, or name it by its dotted path.",
        ) from error
    loaded = extension.load()
    if not introduction.is_confined:
        return role, loaded, []
    if len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208  no need of paths
        raise ConfigurationError(
            f"{introduction.name} starts threads when it is imported or created, so its process cannot be confined",
            "Import the library that starts them inside the method that uses it.",
        )
    return role, loaded, drop_rights(_code_of(loaded))


def _code_of(extension: object) -> list[str]:
    """The file or folder of the top package of the user's class. The class may import more of it later."""
    top = sys.modules.get(type(extension).__module__.partition(".")[0])
    if top is None:
        return []
    if folders := getattr(top, "__path__", None):
        return [str(folder) for folder in folders]
    return [str(top.__file__)] if getattr(top, "__file__", None) else []


def _serve(answers: BinaryIO, role: Role, extension: object, head: dict[str, object], data: bytes) -> None:
    outcome, detail, result = "result", "", b""
    try:
        result = role.answer(extension, head, data)
    except InvalidResultError as error:
        outcome, detail = "invalid", str(error)
    except MemoryError:
        outcome = "too large"
    except BaseException as error:  # noqa: BLE001  `sys.exit` in the user's code fails its document alone
        outcome, detail = "raised", described(error)
    if len(result) > int(str(head["output_bytes"])):
        outcome, detail, result = "invalid", f"returned more than {head['output_bytes']} bytes", b""
    _answer(answers, outcome, detail[:MAX_DETAIL_CHARACTERS], result)


def _answer(answers: BinaryIO, outcome: str, detail: str = "", data: bytes = b"") -> None:
    answers.write(json.dumps({"outcome": outcome, "detail": detail, "size": len(data)}).encode() + b"\n")
    answers.write(data)
    answers.flush()


IS_SCRIPT: Final = __name__ == "__main__"
if IS_SCRIPT:
    main()
    if os.environ.get("TMPDIR") == os.environ.get("HOME"):
        # What the document left. The folder itself goes with the parent process, see `sandbox.folders`.
        shutil.rmtree(os.environ["HOME"], ignore_errors=True)
