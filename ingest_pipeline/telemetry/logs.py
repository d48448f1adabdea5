"""Loggers whose records name the corpus, the saga and the run, for structured logs.

The names are attributes of each record, as those that `extra` adds: a JSON formatter writes them by itself, and
``%(corpus)s`` shows one in a format. Records may name keys of documents, and never quote their text.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from ingest_pipeline.telemetry.scope import current

if TYPE_CHECKING:
    Adapter = logging.LoggerAdapter[logging.Logger]
else:
    Adapter = logging.LoggerAdapter


class ScopeLogger(Adapter):
    """Adds the names of the current scope to each record. A name that is unknown is empty."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:  # noqa: ANN401  of the base class
        """Add the names to what the call itself adds."""
        scope = current()
        names = {"corpus": scope.corpus, "saga": scope.saga, "run": scope.run}
        return msg, {**kwargs, "extra": {**names, **(kwargs.get("extra") or {})}}


def get_logger(name: str) -> ScopeLogger:
    """The logger of a module.

    Args:
        name: Name of the module.
    """
    return ScopeLogger(logging.getLogger(name))
