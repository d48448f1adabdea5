"""Runs extensions of the user in child processes: the parent's side of `worker`."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, TypeVar

from ingest_pipeline.errors import ConfigurationError, DocumentError
from ingest_pipeline.extensions.loader import Extension, check, described
from ingest_pipeline.extensions.protocol import Introduction
from ingest_pipeline.sandbox.children import ChildPool, DeadChildError, Program, RequestLimits

SECONDS: Final = 120.0
"""For one document, unless the extension declares others."""
MEMORY_BYTES: Final = 2 << 30
_SCRIPT: Final = Path(__file__).with_name("worker.py")
_OUTCOMES: Final = frozenset({"result", "invalid", "too large", "raised"})

_children: Final = ChildPool()
Result = TypeVar("Result")


@dataclass(frozen=True)
class Hook:
    """An extension that is called for documents, in child processes."""

    extension: Extension
    fingerprint: str
    role: str
    """Module that calls it."""
    error: type[DocumentError]
    """Raised for a document with which it fails."""
    is_durable: bool = False
    """Whether results are kept in Postgres, because they cost money or minutes."""
    seconds: float = SECONDS
    """For one document."""
    is_confined: bool = True
    """Whether it has neither the network nor secrets."""

    @classmethod
    def load(
        cls, extension: Extension, role: str, method: str, error: type[DocumentError], *, is_confined: bool = True
    ) -> Hook:
        """Load an extension and check what it declares.

        Raises:
            ConfigurationError: It cannot be loaded or run in a child process, or does not fit the protocol.
        """
        fingerprint = check(extension, [method])
        loaded = extension.load()
        seconds: object = getattr(loaded, "seconds", SECONDS)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
            raise ConfigurationError(f"{extension.path} has {seconds!r:.60} as its `seconds`", "Set a number above 0.")
        durable = getattr(loaded, "durable", False) is True
        hook = cls(extension, fingerprint, role, error, durable, float(seconds), is_confined)
        _ = hook.program
        return hook

    @property
    def name(self) -> str:
        """Option and class, for messages."""
        return f"{self.extension.option} {self.extension.path}"

    @cached_property
    def program(self) -> Program:
        """What its children run.

        Raises:
            ConfigurationError: The object cannot be sent to a child process.
        """
        given = self.extension.given
        if given is not None and type(given).__module__ == "__main__":
            raise ConfigurationError(
                f"{self.name} is defined in the script that runs, which its child process cannot import",
                "Move the class to a module of its own.",
            )
        extension = Extension(self.extension.option, self.extension.path, self.extension.arguments, given)
        try:
            pickled = pickle.dumps(extension)
        except Exception as error:
            raise ConfigurationError(
                f"{self.name} cannot be sent to its child process: {described(error)}",
                "Name the class by its dotted path, with arguments that are texts and numbers.",
            ) from error
        told = pickle.dumps(Introduction(self.name, self.role, pickled, self.is_confined))
        introduction = f"{len(told)}\n".encode() + told
        return Program(self.name, _SCRIPT, _OUTCOMES, MEMORY_BYTES, introduction, is_trusted=not self.is_confined)

    def run(self, document: str, head: Mapping[str, object], data: bytes, output_bytes: int) -> bytes:
        """Call the extension for a document, and return what its role made of the result.

        Args:
            document: Key of the document, for the messages.
            head: What the role needs besides the data.
            data: Of the document.
            output_bytes: Of the result, at most.

        Raises:
            DocumentError: The extension failed with this document: the `error` of this hook, or that a limit was
                exceeded.
            ConfigurationError: The child does not start.
        """
        limits = RequestLimits(math.ceil(self.seconds), self.seconds, output_bytes)
        try:
            answer = _children.ask(self.program, head, data, limits)
        except DeadChildError as death:
            raise self._blame(death, document) from None
        if answer.outcome == "result":
            return answer.data
        if answer.outcome == "too large":
            raise self._out_of_memory(document)
        problem = f"failed in the {self.name}, which {answer.outcome} {answer.detail}"
        if answer.outcome == "invalid":
            problem = f"failed in the {self.name}, which {answer.detail}"
        raise self.error(document, problem)

    def checked(self, document: str, result: bytes, read: Callable[[bytes], Result]) -> Result:
        """Read a result. The child checked it already, but the document may have taken the child over.

        Args:
            document: Key of the document, for the message.
            result: What `run` returned.
            read: Reads it, and raises ValueError or TypeError if the role cannot have written it.

        Raises:
            DocumentError: The result is invalid.
        """
        try:
            return read(result)
        except (ValueError, TypeError):
            problem = f"made the child process of the {self.name} return something invalid"
            raise self.error(document, problem) from None

    def _blame(self, death: DeadChildError, document: str) -> DocumentError:
        if death.expired or death.out_of_cpu:
            return self.error(document, f"took more than {self.seconds:g} seconds in the {self.name}")
        if death.out_of_memory:
            return self._out_of_memory(document)
        return self.error(document, f"failed in the {self.name}, whose process ended ({death.how})")

    def _out_of_memory(self, document: str) -> DocumentError:
        return self.error(document, f"needs more than {MEMORY_BYTES} bytes of memory in the {self.name}")
