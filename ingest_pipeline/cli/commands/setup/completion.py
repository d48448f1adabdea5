"""The command `completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from ingest_pipeline.cli._group import plain_command
from ingest_pipeline.cli._terminal import echo

_PROGRAM = "ingest-pipeline"
_VARIABLE = "_INGEST_PIPELINE_COMPLETE"


@plain_command
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script by which a shell completes commands and options.

    For bash or zsh, add `source <(ingest-pipeline completion SHELL)` to ~/.bashrc or ~/.zshrc. For fish, write the
    output to ~/.config/fish/completions/ingest-pipeline.fish.
    """
    found = get_completion_class(shell)
    assert found is not None  # noqa: S101  click has all three
    script = found(click.get_current_context().find_root().command, {}, _PROGRAM, _VARIABLE)
    # Not `source()`, which first runs bash to ask its version.
    echo(script.source_template % script.source_vars())
