"""Folders in which this package keeps its state, of any project: no document is in them, and a password is in one."""

from __future__ import annotations

from collections.abc import Callable, Collection

_POSTGRES = ("users.lock", "start.lock")
"""The embedded Postgres creates these before it writes its password, and never removes them."""
_LANCE = ("_versions/", "_transactions/")
_DAGSTER = ("dagster.yaml", "storage/")
_DAGSTER_CREATES = {*_DAGSTER, "defs_state/", "history/", "logs/", "schedules/", ".logs_queue/", ".nux/", ".telemetry/"}
"""All that Dagster creates in its home. A home with anything else may be a project, which may have documents."""


def state_folder_reason(names: Collection[str]) -> str | None:
    """Why a folder is excluded as one in which this package keeps its state; None if it is another folder.

    Only names decide, because a listing of millions of files has no time for more.

    Args:
        names: Names of everything in the folder, with a slash after those of folders.
    """
    if reason := stores_reason(names.__contains__):
        return reason
    is_home = all(map(names.__contains__, _DAGSTER)) and _DAGSTER_CREATES.issuperset(names)
    return "home of Dagster" if is_home else None


def stores_reason(has: Callable[[str], bool]) -> str | None:
    """As `state_folder_reason`, without the home of Dagster, for a folder that is not listed.

    Args:
        has: Whether the folder has an entry of a name, which ends in a slash if the entry must be a folder.
    """
    if all(map(has, _POSTGRES)):
        return "folder of an embedded Postgres"
    return "LanceDB table" if all(map(has, _LANCE)) else None
