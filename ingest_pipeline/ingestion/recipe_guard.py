"""When so many documents differ by recipe alone that it has to be confirmed before they are made and bought again.

A recipe changes with a setting, with a release of this package, or because another machine ingests the same corpus with
other settings. Then every document differs at once, though no file did. Documents that are new or changed, and those
that are gone, are not the guard's business: they go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from ingest_pipeline.errors import RecipeWithheldError
from ingest_pipeline.ingestion.touched import TouchedObjects
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.postgres import embedding_cache
from ingest_pipeline.postgres.recipes import (
    DocumentsByRecipe,
    RecordedRecipe,
    difference,
    documents_by_recipe,
    put_in_force,
)
from ingest_pipeline.postgres.recipes import read_recipes as read
from ingest_pipeline.preparation.spending_guard import CHARACTERS_PER_TOKEN

_HANDFUL = 10
_ONE_IN = 10


def is_suspicious(others: int, latest: int) -> bool:
    """Whether it has to be confirmed: more than a tenth of all documents, and more than ten.

    Args:
        others: Documents at head that another recipe made.
        latest: Documents at head.
    """
    return others > _HANDFUL and _ONE_IN * others > latest


def differs_by_recipe_alone(plan: DocumentPlan, recipe: str) -> bool:
    """Whether the document would be left alone under the recipe that made it, or under which a rollback holds it."""
    source, latest, hold = plan.source, plan.latest, plan.hold
    if source is None:
        return False
    if hold is not None and hold.etag == source.etag:
        return hold.recipe != recipe
    if latest is None or latest.removed:
        return False
    return latest.etag == source.etag and latest.recipe != recipe


class RecipeGuard:
    """Judges the recipe of the settings by what made the documents at head.

    Args:
        context: Of the corpus.
        confirmed: Somebody confirmed that the documents are to be made again.
    """

    def __init__(self, context: IngestContext, *, confirmed: bool = False) -> None:
        self._context = context
        self._recipe = context.recipe.fingerprint
        with context.corpus.database.transaction() as connection:
            known = read(connection, context.corpus.generation)
            found = documents_by_recipe(connection, context.corpus.generation, context.recipe)
            self._per_token = _characters_per_token(*embedding_cache.token_ratio(connection, context.corpus.generation))
        self._is_in_force = bool(known) and known[-1].fingerprint == self._recipe
        self._standing = found.latest
        self.error: RecipeWithheldError | None = None
        """What has to be confirmed; None: nothing."""
        if not confirmed and not self._is_in_force and _is_withheld(known, self._recipe, found):
            self.error = self._withheld(known, found)

    def accept(self) -> None:
        """Put the recipe in force, unless it has to be confirmed first."""
        if self.error is None and not self._is_in_force:
            with self._context.corpus.database.transaction() as connection:
                put_in_force(connection, self._context.corpus.generation, self._context.recipe)
            self._is_in_force = True

    def split(
        self, plans: Sequence[DocumentPlan], *, are_named: bool = False, reads: bool = False
    ) -> tuple[list[DocumentPlan], list[DocumentPlan]]:
        """Set apart the documents that differ by recipe alone, if that has to be confirmed.

        Args:
            plans: What differs.
            are_named: Somebody named these documents. A few of them need no confirmation.
            reads: Read files that were touched, to see whether their bytes are the same.

        Returns:
            What is to be done, and what is withheld.
        """
        if self.error is None:
            return list(plans), []
        alone = {
            plan.key
            for plan in plans
            if differs_by_recipe_alone(plan, self._recipe) or (reads and self._was_only_touched(plan))
        }
        if are_named and not is_suspicious(len(alone), self._standing):
            return list(plans), []
        return [plan for plan in plans if plan.key not in alone], [plan for plan in plans if plan.key in alone]

    def _was_only_touched(self, plan: DocumentPlan) -> bool:
        """Whether the file has the bytes that stand at head, under another ETag, which is then noted."""
        if plan.latest is None or plan.latest.recipe == self._recipe:
            return False
        return TouchedObjects(self._context).has_latest_bytes(plan)

    def _withheld(self, known: Sequence[RecordedRecipe], found: DocumentsByRecipe) -> RecipeWithheldError:
        corpus, recipe = self._context.corpus.name, self._context.recipe
        changes = f" ({difference(known[-1], recipe)})" if known else ""
        earlier = next((one for one in known[:-1] if one.fingerprint == self._recipe), None)
        what = f"The recipe of corpus {corpus!r} is another one than its documents were made by{changes}"
        if earlier is not None:
            what = (
                f"The settings go back to an earlier recipe of corpus {corpus!r}{changes}, which was replaced on "
                f"{known[-1].since:%Y-%m-%d %H:%M %Z}"
            )
        return RecipeWithheldError(
            f"{what}; {found.others} of {found.latest} documents would be made again, for up to about "
            f"{self._cost(found)}. Those that differ by recipe alone were left as they are"
        )

    def _cost(self, found: DocumentsByRecipe) -> str:
        recipe, price = self._context.recipe, self._context.price
        embedded = found.characters * recipe.chunk_size / (recipe.chunk_size - recipe.chunk_overlap)
        tokens = ceil(embedded / self._per_token)
        return f"{tokens} tokens" + ("" if price is None else f" ({price.cost(tokens):.4f} {price.currency})")


def _is_withheld(known: Sequence[RecordedRecipe], recipe: str, found: DocumentsByRecipe) -> bool:
    """Whether a recipe that is not in force has to be confirmed: it is an earlier one, or changes much."""
    is_earlier = any(one.fingerprint == recipe for one in known)
    return found.others > 0 and (is_earlier or is_suspicious(found.others, found.latest))


def _characters_per_token(tokens: int, characters: int) -> float:
    return characters / tokens if tokens and characters else CHARACTERS_PER_TOKEN
