"""The child process that runs a parser, chunker or enricher of the user, so that it cannot harm the parent process.

It runs as a script and speaks the protocol of `children`. Its introduction names the user's class, which it imports and
creates first, because that code is trusted. Then it drops its rights, because documents are not. An enricher keeps
them: it may need the network and keys. Whatever the user's code does, the answer is a result or one problem.
"""

import os
import pickle
import sys
from importlib import import_module
from typing import Any, Final, Protocol

from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.extensions.loader import Extension, described
from ingest_pipeline.extensions.protocol import MAX_DETAIL_CHARACTERS, Introduction, InvalidResultError
from ingest_pipeline.sandbox.confinement import drop_rights
from ingest_pipeline.sandbox.exchange import Exchange, remove_files


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
    exchange = Exchange()
    introduction: Introduction = pickle.loads(exchange.introduction())  # noqa: S301  from the parent
    try:
        role, extension, kept = _prepared(introduction)
    except ConfigurationError as error:
        exchange.answer("refused", str(error)[: 4 * MAX_DETAIL_CHARACTERS])
        return
    exchange.answer("ready", ", ".join(kept))
    for head, data in exchange.requests():
        exchange.answer(*_result(role, extension, head, data))


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


def _result(role: Role, extension: object, head: dict[str, Any], data: bytes) -> tuple[str, str, bytes]:
    outcome, detail, result = "result", "", b""
    try:
        result = role.answer(extension, head, data)
    except InvalidResultError as error:
        outcome, detail = "invalid", str(error)
    except MemoryError:
        outcome = "too large"
    except BaseException as error:  # noqa: BLE001  `sys.exit` in the user's code fails its document alone
        outcome, detail = "raised", described(error)
    if len(result) > head["output_bytes"]:
        outcome, detail, result = "invalid", f"returned more than {head['output_bytes']} bytes", b""
    return outcome, detail[:MAX_DETAIL_CHARACTERS], result


IS_SCRIPT: Final = __name__ == "__main__"
if IS_SCRIPT:
    main()
    remove_files()
