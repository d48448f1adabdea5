"""Errors about single options, in the form in which pydantic collects them."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from ingest_pipeline.config.origin import ATTRIBUTES
from ingest_pipeline.errors import ConfigurationError


class RefusedError(ValueError):
    """A `ConfigurationError` about one option, in the form in which pydantic collects errors. Names attributes."""

    def __init__(self, error: ConfigurationError) -> None:
        super().__init__(ATTRIBUTES.renamed(str(error)))
        self.error = error


@contextmanager
def refusals() -> Generator[None]:
    """Raise the `ConfigurationError` of the block as a `RefusedError`, so that pydantic adds the option's name."""
    try:
        yield
    except ConfigurationError as error:
        raise RefusedError(error) from None
