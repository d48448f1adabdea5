"""A gate of the user, and how it is called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from ingest_pipeline.extensions.loader import Extension
from ingest_pipeline.extensions.pool import Hook, HookFailedError
from ingest_pipeline.gates.user_gate_role import ANSWER_BYTES, read_answer, request
from ingest_pipeline.lance.candidate import Location
from ingest_pipeline.types import Finding

_ROLE = "ingest_pipeline.gates.user_gate_role"


@dataclass(frozen=True)
class UserGate:
    """A gate of the user, in a child process."""

    hook: Hook

    @classmethod
    def load(cls, extension: Extension) -> UserGate:
        """Load a gate.

        Raises:
            ConfigurationError: It cannot be loaded or does not fit the protocol.
        """
        return cls(Hook.load_unconfined(extension, _ROLE, "judge"))

    def judge(self, table: Location, head: Location, documents: Sequence[str], removed: Sequence[str]) -> Finding:
        """Judge a version. A gate that fails does not let it pass.

        Raises:
            ConfigurationError: Its child process does not start.
        """
        try:
            data = self.hook.call({}, request(table, head, documents, removed), ANSWER_BYTES)
            count, problems = read_answer(data)
        except HookFailedError as failure:
            count, problems = 1, (f"the {self.hook.name} {failure}",)
        except (ValueError, TypeError):
            count, problems = 1, (f"the child process of the {self.hook.name} returned something invalid",)
        return Finding(self.hook.extension.path, count, 0, count == 0, problems)


@lru_cache(64)
def load_gates(extensions: tuple[Extension, ...]) -> tuple[UserGate, ...]:
    """Load the gates that an option names, once in a process.

    Raises:
        ConfigurationError: One cannot be loaded or does not fit the protocol.
    """
    return tuple(UserGate.load(extension) for extension in extensions)
