"""What every command has in common: the group, how it fails, and its exit status."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from functools import update_wrapper
from typing import ParamSpec, TypeVar

import click

from ingest_pipeline.cli._output import echo
from ingest_pipeline.errors import ConfigurationError, IngestError, InterruptedRunError

FAILED, BAD_USAGE, VIOLATIONS, INTERRUPTED = 1, 2, 3, 130
P = ParamSpec("P")
R = TypeVar("R")

VERSION = click.IntRange(1, 2**63 - 1)


class _Key(click.ParamType[str]):
    """The key of a document, as listings and messages show it: of a name that is no text, what can be shown of it."""

    name = "key"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ARG002  click's
        return os.fsencode(value).decode(errors="backslashreplace")


KEY = _Key()

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON value instead of a table.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ingest-pipeline")
def main() -> None:
    """Files in object storage become a searchable LanceDB table and a Postgres catalog that never disagree.

    Settings come from INGEST_SOURCE, INGEST_LANCEDB_URI, INGEST_DATABASE_URL, INGEST_CORPUS and others:
    docs/reference/configuration.md lists them.
    """


def command(function: Callable[P, R]) -> click.Command:
    """A subcommand whose errors are one line and an honest exit status."""

    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except IngestError as error:
            echo(f"Error: {error}", err=True)
            sys.exit(_status(error))
        except KeyboardInterrupt:
            echo(f"Error: {_interrupted(function.__name__)}", err=True)
            sys.exit(INTERRUPTED)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # whoever read the output has enough of it, which click knows how to end
            echo(f"Error: {_system_error(error)}", err=True)
            sys.exit(FAILED)

    return main.command()(update_wrapper(run, function))


def _status(error: IngestError) -> int:
    if isinstance(error, InterruptedRunError):
        return INTERRUPTED
    return BAD_USAGE if isinstance(error, ConfigurationError) else FAILED


def _interrupted(name: str) -> InterruptedRunError:
    return InterruptedRunError(
        f"`{name}` was interrupted; what was published stays, and nothing is half published",
        "Run the command again to go on.",
    )


def _system_error(error: OSError) -> IngestError:
    """What the operating system refused that no module expected."""
    place = f"{error.filename!r} cannot be used" if error.filename else "The operating system refused a call"
    remedy = "Make room there" if error.errno in {errno.ENOSPC, errno.EDQUOT} else "Check its owner and permissions"
    return IngestError(f"{place}: {error.strerror or error}", f"{remedy}, then run again.")
