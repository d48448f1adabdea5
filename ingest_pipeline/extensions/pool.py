"""Runs extensions of the user in child processes: the parent's side of `worker`."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, TypeVar

from ingest_pipeline.errors import ConfigurationError, DocumentError
from ingest_pipeline.extensions.loader import Extension, check, described
from ingest_pipeline.extensions.protocol import Introduction
from ingest_pipeline.sandbox.children import ChildPool, DeadChildError, Program, RequestLimits

SECONDS: Final = 120.0
"""Time limit for one document, unless the extension declares another."""
MEMORY_BYTES: Final = 2 << 30
_NEEDED_MEMORY: Final = f"needed more than {MEMORY_BYTES} bytes of memory"
_MUCH_MEMORY: Final = 1 << 60
_MUCH_CPU: Final = 1 << 30
"""Seconds. The kernel counts nanoseconds in 64 bits."""
_SCRIPT: Final = Path(__file__).with_name("worker.py")
_OUTCOMES: Final = frozenset({"result", "invalid", "too large", "raised"})

_children: Final = ChildPool()
Result = TypeVar("Result")


class HookFailedError(Exception):
    """An extension failed with a request. The message says what it did, as in "raised ValueError"."""


@dataclass(frozen=True)
class Hook:
    """An extension that is called in child processes."""

    extension: Extension
    fingerprint: str
    role: str
    """The module that calls it in the child process."""
    error: type[DocumentError]
    """The error that is raised for a document with which it fails."""
    is_durable: bool = False
    """Whether results are kept in Postgres, because they cost money or minutes."""
    seconds: float = SECONDS
    """Time limit for one document."""
    is_confined: bool = True
    """Whether its child process gets neither the network nor the environment, which may contain secrets."""
    is_limited: bool = True
    """Whether memory and CPU are limited. A model in the process may need any amount of both."""

    @classmethod
    def load(
        cls,
        extension: Extension,
        role: str,
        methods: Sequence[str],
        error: type[DocumentError],
        *,
        is_confined: bool = True,
        is_limited: bool = True,
        has_fingerprint: bool = True,
    ) -> Hook:
        """Load an extension and check what it declares.

        Args:
            extension: The extension.
            role: Module that calls it in the child.
            methods: Names of the methods that it must have.
            error: Raised for a document with which it fails.
            is_confined: Whether it has neither the network nor secrets.
            is_limited: Whether memory and CPU are limited.
            has_fingerprint: Whether results are kept, and so depend on a fingerprint.

        Raises:
            ConfigurationError: It cannot be loaded or run in a child process, or does not fit the protocol.
        """
        fingerprint = check(extension, methods, has_fingerprint=has_fingerprint)
        loaded = extension.load()
        seconds: object = getattr(loaded, "seconds", SECONDS)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
            raise ConfigurationError(f"{extension.path} has {seconds!r:.60} as its `seconds`", "Set a number above 0.")
        durable = getattr(loaded, "durable", False) is True
        hook = cls(extension, fingerprint, role, error, durable, float(seconds), is_confined, is_limited)
        _ = hook.program
        return hook

    @classmethod
    def load_unconfined(cls, extension: Extension, role: str, method: str) -> Hook:
        """Load an extension that works on what is published or prepared, and whose results are not kept.

        Args:
            extension: The extension.
            role: Module that calls it in the child.
            method: Name of the method that it must have.

        Raises:
            ConfigurationError: It cannot be loaded or run in a child process, or does not fit the protocol.
        """
        return cls.load(
            extension, role, [method], DocumentError, is_confined=False, is_limited=False, has_fingerprint=False
        )

    @property
    def name(self) -> str:
        """Option and class, for messages."""
        return f"{self.extension.option} {self.extension.path}"

    @cached_property
    def program(self) -> Program:
        """The program of its child processes.

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
        described_to_child = pickle.dumps(Introduction(self.name, self.role, pickled, self.is_confined))
        return Program(
            self.name,
            _SCRIPT,
            _OUTCOMES,
            MEMORY_BYTES if self.is_limited else _MUCH_MEMORY,
            f"{len(described_to_child)}\n".encode() + described_to_child,
            is_trusted=not self.is_confined,
            is_replaced=self.is_limited,
        )

    def run(self, document: str, head: Mapping[str, object], data: bytes, output_bytes: int) -> bytes:
        """Call the extension for a document, and return what its role made of the result.

        Args:
            document: Key of the document, for the messages.
            head: Values that the role needs besides the data.
            data: The data of the document that the extension gets.
            output_bytes: Maximum size of the result.

        Raises:
            DocumentError: The extension failed with this document or exceeded a limit. The class is `error`.
            ConfigurationError: The child process does not start.
        """
        try:
            return self.call(head, data, output_bytes)
        except HookFailedError as failure:
            raise self.failed(document, failure) from None

    def failed(self, document: str, failure: Exception) -> DocumentError:
        """The error of a document with which the extension failed.

        Args:
            document: Key of the document.
            failure: Its message says what the extension did.
        """
        return self.error(document, f"failed in the {self.name}, which {failure}")

    def call(self, head: Mapping[str, object], data: bytes, output_bytes: int) -> bytes:
        """Call the extension, and return what its role made of the result.

        Args:
            head: Values that the role needs besides the data.
            data: The data that the extension gets.
            output_bytes: Maximum size of the result.

        Raises:
            HookFailedError: The extension raised an exception, exceeded a limit, ended its process or returned
                something invalid.
            ConfigurationError: The child does not start.
        """
        cpu_seconds = math.ceil(self.seconds) if self.is_limited else _MUCH_CPU
        try:
            answer = _children.ask(self.program, head, data, RequestLimits(cpu_seconds, self.seconds, output_bytes))
        except DeadChildError as death:
            raise HookFailedError(self._describe(death)) from None
        if answer.outcome == "result":
            return answer.data
        if answer.outcome == "too large":
            raise HookFailedError(_NEEDED_MEMORY)
        raise HookFailedError(answer.detail if answer.outcome == "invalid" else f"{answer.outcome} {answer.detail}")

    def checked(self, document: str, result: bytes, read: Callable[[bytes], Result]) -> Result:
        """Read a result and check it again, because a hostile document may control the child process.

        Args:
            document: Key of the document, for the message.
            result: What `run` returned.
            read: Reads it. Raises ValueError or TypeError if it has not the form that the role writes.

        Raises:
            DocumentError: The result is invalid.
        """
        try:
            return read(result)
        except (ValueError, TypeError):
            problem = f"made the child process of the {self.name} return something invalid"
            raise self.error(document, problem) from None

    def _describe(self, death: DeadChildError) -> str:
        if death.expired or death.out_of_cpu:
            return f"took more than {self.seconds:g} seconds"
        if death.out_of_memory:
            return _NEEDED_MEMORY if self.is_limited else "was killed, or found no memory"
        return f"ended its process ({death.how})"
