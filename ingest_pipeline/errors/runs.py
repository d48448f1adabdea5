"""Errors that end a run or a part of it. The user confirms or corrects something, then runs it again."""

from datetime import datetime

from ingest_pipeline.errors.base import IngestError


class SpendingLimitError(IngestError):
    """A run or a day would use more tokens than the settings allow. The texts were not embedded.

    Args:
        message: Which limit was reached, and how much was billed.
        remedy: What to do next.
        until: When the limit allows more tokens again. None: in another run, or after the limit is raised.
    """

    def __init__(self, message: str, remedy: str, *, until: datetime | None = None) -> None:
        super().__init__(message, remedy)
        self.until = until


class ReembeddingIncompleteError(IngestError):
    """Documents at head cannot be ingested with the new model, so readers were not switched to the new table."""

    remedy = (
        "Readers still see the current table. Fix or remove these documents, then run `ingest-pipeline reembed` again."
    )


class InterruptedRunError(IngestError):
    """A run was interrupted from the keyboard or by a signal."""


class WorkersDiedError(IngestError):
    """The worker processes of a run died before its documents were ingested, for example for lack of memory."""

    remedy = "Run again to continue, with fewer workers if the machine had no memory left."


class RemovalsWithheldError(IngestError):
    """The source suddenly lacks most documents, perhaps because of a wrong prefix or a failing store."""

    remedy = (
        "To remove them, run `ingest-pipeline ingest --confirm-removals`, or set confirm_removals to true in "
        "the Launchpad. If they should not be removed, check INGEST_SOURCE, INGEST_INCLUDE and INGEST_EXCLUDE."
    )


class RecipeWithheldError(IngestError):
    """Many documents differ from the source by recipe alone, perhaps because of a wrong or forgotten setting."""

    remedy = (
        "To ingest them again, run `ingest-pipeline ingest --confirm-recipe`, or set confirm_recipe to "
        "true in the Launchpad. Otherwise restore the settings, here or on the machine where they "
        "differ. New, changed and removed documents are still ingested."
    )


class PublicationBlockedError(IngestError):
    """A prepared publication did not pass its gates. No reader sees it, and it is kept as it was prepared."""

    remedy = (
        "`ingest-pipeline gate status` shows what did not pass. Correct the files, or publish what was prepared with "
        "`ingest-pipeline gate release`, or end the publication with `ingest-pipeline gate drop`."
    )
