"""The recipe guard: withholds documents that differ by recipe alone, if they are many, until that is confirmed.

A recipe changes with a setting, with a release of this package, or because another machine ingests the same corpus with
other settings. Then every document differs at once, although no file changed. The guard does not affect documents that
are new, changed or deleted.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from ingest_pipeline.errors import RecipeWithheldError
from ingest_pipeline.ingestion.touched_objects import TouchedObjects
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.postgres.catalog.recipes import (
    DocumentsByRecipe,
    RecordedRecipe,
    difference,
    documents_by_recipe,
    put_in_force,
)
from ingest_pipeline.postgres.catalog.recipes import read_recipes as read
from ingest_pipeline.postgres.ledger import embedding_cache
from ingest_pipeline.preparation.spending_guard import CHARACTERS_PER_TOKEN
from ingest_pipeline.types import counted

_MAX_UNCONFIRMED = 10
_UNCONFIRMED_SHARE = 10


def is_suspicious(of_other_recipes: int, latest: int) -> bool:
    """Whether the change needs a confirmation: it affects more than a tenth of all documents, and more than ten.

    Args:
        of_other_recipes: Documents at head that another recipe made.
        latest: Documents at head.
    """
    return of_other_recipes > _MAX_UNCONFIRMED and _UNCONFIRMED_SHARE * of_other_recipes > latest


def differs_by_recipe_alone(plan: DocumentPlan, recipe: str) -> bool:
    """Whether the document has the bytes that are at head or on hold, and only the recipe differs."""
    source, latest, hold = plan.source, plan.latest, plan.hold
    if source is None:
        return False
    if hold is not None and hold.etag == source.document_etag:
        return hold.recipe != recipe
    if latest is None or latest.removed:
        return False
    return latest.etag == source.document_etag and latest.recipe != recipe


class RecipeGuard:
    """Compares the recipe of the settings with the recipes of the documents at head.

    Args:
        context: The ingest context of the corpus.
        confirmed: Whether the user confirmed that the documents are ingested again.
    """

    def __init__(self, context: IngestContext, *, confirmed: bool = False) -> None:
        self._context = context
        self._recipe = context.recipe.fingerprint
        with context.corpus.database.transaction() as connection:
            known = read(connection, context.corpus.generation)
            found = documents_by_recipe(connection, context.corpus.generation, context.recipe)
            self._per_token = _characters_per_token(*embedding_cache.token_ratio(connection, context.corpus.generation))
        self._is_in_force = bool(known) and known[-1].fingerprint == self._recipe
        self._latest = found.latest
        self.error: RecipeWithheldError | None = None
        """The error that names what needs a confirmation. None: nothing does."""
        if not confirmed and not self._is_in_force and _is_withheld(known, self._recipe, found):
            self.error = self._withheld(known, found)

    def accept(self) -> None:
        """Put the recipe in force, unless it needs a confirmation first."""
        if self.error is None and not self._is_in_force:
            with self._context.corpus.database.transaction() as connection:
                put_in_force(connection, self._context.corpus.generation, self._context.recipe)
            self._is_in_force = True

    def split(
        self, plans: Sequence[DocumentPlan], *, are_named: bool = False, reads: bool = False
    ) -> tuple[list[DocumentPlan], list[DocumentPlan]]:
        """Separate the documents that differ by recipe alone, if that has to be confirmed.

        Args:
            plans: The plans of the documents that differ.
            are_named: Whether the user named these documents. A few of them need no confirmation.
            reads: Whether to read files that were touched, to compare their bytes.

        Returns:
            The documents to ingest, and those that are withheld.
        """
        if self.error is None:
            return list(plans), []
        alone = {
            plan.key
            for plan in plans
            if differs_by_recipe_alone(plan, self._recipe_of(plan)) or (reads and self._was_only_touched(plan))
        }
        if are_named and not is_suspicious(len(alone), self._latest):
            return list(plans), []
        return [plan for plan in plans if plan.key not in alone], [plan for plan in plans if plan.key in alone]

    def _recipe_of(self, plan: DocumentPlan) -> str:
        return self._context.recipe.fingerprint_of(plan.key)

    def _was_only_touched(self, plan: DocumentPlan) -> bool:
        """Whether the file has the bytes that are at head, under another ETag, which is then recorded."""
        if plan.latest is None or plan.latest.recipe == self._recipe_of(plan):
            return False
        return TouchedObjects(self._context).has_latest_bytes(plan)

    def _withheld(self, known: Sequence[RecordedRecipe], found: DocumentsByRecipe) -> RecipeWithheldError:
        corpus, recipe = self._context.corpus.name, self._context.recipe
        changes = f" ({difference(known[-1], recipe)})" if known else ""
        earlier = next((one for one in known[:-1] if one.fingerprint == self._recipe), None)
        what = f"The settings have another recipe than the documents of corpus {corpus!r}{changes}"
        if earlier is not None:
            what = (
                f"The settings go back to an earlier recipe of corpus {corpus!r}{changes}, which was replaced on "
                f"{known[-1].since:%Y-%m-%d %H:%M %Z}"
            )
        return RecipeWithheldError(
            f"{what}; {found.of_other_recipes} of {counted(found.latest, 'document')} would be ingested again, for "
            f"up to about {self._cost(found)}. Those that differ by recipe alone were skipped"
        )

    def _cost(self, found: DocumentsByRecipe) -> str:
        recipe, price = self._context.recipe, self._context.price
        embedded = found.characters * recipe.chunk_size / (recipe.chunk_size - recipe.chunk_overlap)
        tokens = ceil(embedded / self._per_token)
        return f"{tokens} tokens" + ("" if price is None else f" ({price.cost(tokens):.4f} {price.currency})")


def _is_withheld(known: Sequence[RecordedRecipe], recipe: str, found: DocumentsByRecipe) -> bool:
    """Whether a recipe that is not in force needs a confirmation: it is an earlier one, or affects many documents."""
    is_earlier = any(one.fingerprint == recipe for one in known)
    return found.of_other_recipes > 0 and (is_earlier or is_suspicious(found.of_other_recipes, found.latest))


def _characters_per_token(tokens: int, characters: int) -> float:
    return characters / tokens if tokens and characters else CHARACTERS_PER_TOKEN
