"""Variables that the definition of a corpus names, `{{ env.NAME }}` as in the YAML of a component, and `.env` files."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from dotenv import dotenv_values

from ingest_pipeline.errors import ConfigurationError

_TEMPLATE = re.compile(r"\{\{(.*?)\}\}")
_QUOTED = r"""(?P<quote{0}>['"])(?P<{1}>[^'"]*)(?P=quote{0})"""
_CALL = rf"\(\s*{_QUOTED.format(1, 'name')}(?:\s*,\s*{_QUOTED.format(2, 'default')})?\s*\)"
_ENV = re.compile(rf"\s*env(?:\.(?P<attribute>\w+)|{_CALL})\s*")


def load_dotenv(folder: Path) -> None:
    """Put the variables of the folder's `.env` into the environment. Variables that are set already stay."""
    for name, value in dotenv_values(folder / ".env").items():
        if value is not None:
            os.environ.setdefault(name, value)


def referenced(value: object) -> str | None:
    """The variable whose value a text is. None: the value is anything else."""
    found = _TEMPLATE.fullmatch(value.strip()) if isinstance(value, str) else None
    inner = _ENV.fullmatch(found[1]) if found else None
    return (inner["attribute"] or inner["name"]) if inner else None


def substituted(value: object, option: str, file: Path) -> object:
    """The value of an option with the values of the variables that it names.

    Args:
        value: A value as YAML or TOML has it.
        option: Name of the option, for the errors.
        file: The file that contains it, for the errors.

    Raises:
        ConfigurationError: A variable is not set, or a template is not one of a variable.
    """
    if isinstance(value, str):
        return _TEMPLATE.sub(lambda found: _value_of(found[1], option, file), value)
    if isinstance(value, Mapping):
        return {name: substituted(one, option, file) for name, one in value.items()}
    if isinstance(value, Sequence):
        return [substituted(one, option, file) for one in value]
    return value


def _value_of(template: str, option: str, file: Path) -> str:
    found = _ENV.fullmatch(template)
    if found is None:
        raise ConfigurationError(
            f"{file}: {option} contains the template {template.strip()!r}, which only Dagster can resolve",
            f"Set INGEST_{option.upper()} for the command line, or use a template such as {{{{ env.NAME }}}}.",
        )
    name = found["attribute"] or found["name"]
    default: str | None = found["default"]
    value = os.environ.get(name, default)
    if value is None:
        raise ConfigurationError(
            f"{file}: {option} names the variable {name}, which is not set", f"Set {name}, for example in a .env file."
        )
    return value
