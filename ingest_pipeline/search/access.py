"""Who may find which document: the restriction of a search to the principals that it names.

The restriction is a filter of the table, so that no forbidden row takes the place of another in a ranking. Every hit is
then compared with the catalog at the same head. If the two disagree, the document is not found.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ingest_pipeline.columns.declaration import Columns, Values
from ingest_pipeline.columns.values import LIST
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.lance.filters import quoted
from ingest_pipeline.postgres.catalog.corpora import Access


@dataclass(frozen=True, slots=True)
class Restriction:
    """The documents that some principals may find."""

    column: str | None
    """The column with the principals of a document. None: all documents."""
    principals: frozenset[str]

    @property
    def finds_nothing(self) -> bool:
        """Whether no document can be found, because the search names no principals."""
        return self.column is not None and not self.principals

    @property
    def predicate(self) -> str | None:
        """The filter of the table. None: there is no restriction."""
        if self.column is None:
            return None
        return f"array_has_any({self.column}, [{', '.join(map(quoted, sorted(self.principals)))}])"

    def allows(self, columns: Values) -> bool:
        """Whether a document with these values in the catalog may be found."""
        if self.column is None:
            return True
        listed = columns.get(self.column)
        return isinstance(listed, list) and not self.principals.isdisjoint(listed)


def restriction(corpus: str, access: Access, columns: Columns, principals: Sequence[str] | None) -> Restriction:
    """The restriction of a search.

    Args:
        corpus: Name of the corpus, for the errors.
        access: What the catalog records for the corpus.
        columns: The columns of the table at head.
        principals: The principals that the search names. None: it names none.

    Raises:
        ConfigurationError: The corpus demands principals, or has no restriction that they could pass.
    """
    named = None if principals is None else frozenset(_checked(principals))
    if access.column is None:
        if named is not None:
            raise ConfigurationError(
                f"The search names principals, and corpus {corpus!r} does not restrict who may find its documents",
                "Set INGEST_ACCESS and run `ingest-pipeline ingest`, or search without principals.",
            )
        return Restriction(None, frozenset())
    if access.required and not named:
        raise ConfigurationError(
            f"Corpus {corpus!r} is searched by principals only, and the search names none", "Name the principals."
        )
    if columns.of_documents.types.get(access.column) != LIST:
        named = None  # the column is not filled yet
    return Restriction(access.column, named or frozenset())


def _checked(principals: Iterable[str]) -> Iterable[str]:
    if isinstance(principals, str):
        raise ConfigurationError(f"The principals are the string {principals!r}", "Pass a list of strings.")
    return principals
