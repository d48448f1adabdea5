"""What all commands share: how a command fails, its exit status, and common parameters.

Every command imports this module, also `--help`, so it imports nothing but click and the errors.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterable
from functools import update_wrapper
from typing import ParamSpec, TypeVar

import click

from ingest_pipeline.cli._terminal import echo
from ingest_pipeline.errors import ConfigurationError, IngestError, InterruptedRunError

FAILED, BAD_USAGE, VIOLATIONS, INTERRUPTED = 1, 2, 3, 130
P = ParamSpec("P")
R = TypeVar("R")

CORPUS = f"{__name__}.corpus"
"""Where click's context has the name of the corpus that `--corpus` names."""
RENAME = f"{__name__}.rename"
"""Where click's context has the function that gives settings the names which the user knows, in an error."""


class _Key(click.ParamType[str]):
    """The key of a document as listings and messages show it. Bytes that are not text are written as escapes."""

    name = "key"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ARG002  click's
        return os.fsencode(value).decode(errors="backslashreplace")


KEY = _Key()


def _remember_corpus(context: click.Context, _: click.Parameter, name: str | None) -> None:
    context.meta[CORPUS] = name


_corpus = click.option(
    "--corpus",
    metavar="NAME",
    expose_value=False,
    callback=_remember_corpus,
    help="The corpus of the project. Needed if the project defines several.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON value instead of a table.")


def command(function: Callable[P, R]) -> click.Command:
    """Make a command of one corpus, which `--corpus` chooses; see `plain_command`."""
    return _corpus(plain_command(function))


def plain_command(function: Callable[P, R]) -> click.Command:
    """Make a command whose errors are one line and whose exit status says what kind of error it was."""

    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except IngestError as error:
            echo(f"Error: {renamed(str(error))}", err=True)
            sys.exit(_status(error))
        except KeyboardInterrupt:
            echo(f"Error: {_interrupted(function.__name__)}", err=True)
            sys.exit(INTERRUPTED)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # the program that reads the output has exited, which click handles
            echo(f"Error: {_system_error(error)}", err=True)
            sys.exit(FAILED)

    return click.command()(update_wrapper(run, function))


def exit_with(problems: Iterable[str], *, misconfigured: bool) -> None:
    """Print the problems of a run and exit with their status. Without problems, return.

    Args:
        problems: What failed, one line each.
        misconfigured: A setting has to be changed before the run can succeed.
    """
    problems = list(problems)
    for problem in problems:
        echo(f"Error: {renamed(problem)}", err=True)
    if problems:
        sys.exit(BAD_USAGE if misconfigured else FAILED)


def renamed(message: str) -> str:
    """The message with the names that the user gave to the settings."""
    context = click.get_current_context(silent=True)
    rename: Callable[[str], str] = context.meta.get(RENAME, str) if context else str
    return rename(message)


def _status(error: IngestError) -> int:
    if isinstance(error, InterruptedRunError):
        return INTERRUPTED
    return BAD_USAGE if isinstance(error, ConfigurationError) else FAILED


def _interrupted(name: str) -> InterruptedRunError:
    return InterruptedRunError(
        f"`{name}` was interrupted. Published documents stay published, and no document is half published",
        "Run the command again to continue.",
    )


def _system_error(error: OSError) -> IngestError:
    """An error of the operating system that no module expected."""
    place = f"{error.filename!r} cannot be used" if error.filename else "The operating system refused a call"
    remedy = (
        "Free disk space there" if error.errno in {errno.ENOSPC, errno.EDQUOT} else "Check its owner and permissions"
    )
    return IngestError(f"{place}: {error.strerror or error}", f"{remedy}, then run the command again.")
