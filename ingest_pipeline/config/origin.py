"""Where the values of a configuration come from, so that errors name the setting that the user wrote."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ingest_pipeline.errors import IngestError

_VARIABLE = re.compile(r"INGEST_([A-Z_]*[A-Z])")
# Texts that name a variable may add the attribute of a component, which is superfluous once the variable is replaced.
_REPEATED = re.compile(r"((`?)\b([a-z_]+)\2) \(\3(?: of a component)?\)|((`?)\b([a-z_]+)\5) \(of a component: \6\)")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where options come from: variables `INGEST_*`, a file, or Python."""

    file: Path | None = None
    """The file that defines the corpus. None: no file does."""
    variables: frozenset[str] = frozenset()
    """Names of the options that variables `INGEST_*` set."""
    references: Mapping[str, str] = field(default_factory=dict[str, str])
    """Other variables that the definition names, by option."""
    is_environment: bool = False
    """Whether every option is set by its variable `INGEST_*`, or by nothing."""

    def setting(self, option: str) -> str:
        """What the user calls an option: the variable that sets it, or the attribute of the definition."""
        if self.is_environment or option in self.variables:
            return f"INGEST_{option.upper()}"
        return self.references.get(option, option)

    def renamed(self, text: str) -> str:
        """The text of an error, in which each variable `INGEST_*` is replaced by the setting that was used."""
        return _REPEATED.sub(r"\1\4", _VARIABLE.sub(lambda found: self._name(found[1].lower()), text))

    def _name(self, option: str) -> str:
        """The setting of an option as a sentence has it: an option would read as a word of the sentence."""
        setting = self.setting(option)
        return f"`{setting}`" if setting == option else setting

    @contextmanager
    def errors(self) -> Generator[None]:
        """Rename the settings in the errors of the block."""
        try:
            yield
        except IngestError as error:
            if not self.is_environment:
                error.message, error.advice = self.renamed(error.message), self.renamed(error.advice)
                error.args = (error.message,)
            raise


ENVIRONMENT = Origin(is_environment=True)
"""The variables `INGEST_*` alone."""
ATTRIBUTES = Origin()
"""The attributes of a component or of a `CorpusConfig`."""
