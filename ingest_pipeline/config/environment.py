"""Reads the options from environment variables, and makes errors that name what the user wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from difflib import get_close_matches
from typing import cast

from pydantic import ValidationError

from ingest_pipeline.config.options.checks import RefusedError
from ingest_pipeline.config.options.corpus_options import CorpusOptions
from ingest_pipeline.config.origin import Origin
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.extensions.loader import parse_extensions
from ingest_pipeline.postgres.durability import REQUIRE_FSYNC

_PREFIX = "INGEST_"
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
# Variables with the prefix that other modules read.
_READ_ELSEWHERE = {"INGEST_FAILPOINTS", REQUIRE_FSYNC}
_EXTENSIONS = {"parser", "chunker", "enricher", "embedder", "reranker", "gate"}
_FIELDS_EXAMPLE = '{"input_type": "search_document"}'
# Numbers that may be unset, with the least that is allowed.
_NUMBERS = {"max_bytes": 0, "embedding_max_tokens": 1, "embedding_batch_tokens": 1}
_JSON_EXAMPLES = {
    "query_fields": _FIELDS_EXAMPLE,
    "document_fields": _FIELDS_EXAMPLE,
    "columns": '{"department": "string", "tags": "list<string>"}',
    "chunk_columns": '{"topic": "string"}',
}
# The environment has OPENAI_BASE_URL and OPENAI_API_KEY for the first two, and nothing for the third.
_NOT_IN_ENVIRONMENT = {"embedding_base_url", "embedding_api_key", "embedding_concurrency"}


def environment_options() -> list[str]:
    """Names of the options that the environment can set."""
    return [name for name in CorpusOptions.model_fields if name not in _NOT_IN_ENVIRONMENT]


def environment_values(environment: Mapping[str, str]) -> dict[str, object]:
    """The options that variables `INGEST_*` set. An empty variable counts as unset.

    Raises:
        ConfigurationError: A value is malformed.
    """
    found = {name: environment.get(variable_of(name)) for name in environment_options()}
    return {name: parsed(name, text) for name, text in found.items() if text}


def variable_of(option: str) -> str:
    """The variable of the environment that sets an option."""
    return f"{_PREFIX}{option.upper()}"


def parsed(name: str, text: str) -> object:
    """The value of an option from its variable."""
    if name in {"include", "exclude", "columns_from_tags"}:
        return [part for part in text.split(":") if part]  # as in PATH
    if name in _NUMBERS:
        return _number(name, text, _NUMBERS[name]) or None
    if name in _EXTENSIONS:
        return parse_extensions(name, text)
    if name in _JSON_EXAMPLES:
        return _mapping(name, text)
    field = CorpusOptions.model_fields[name]
    if field.annotation is not int:
        return _bool(name, text) if field.annotation is bool else text
    return _number(name, text, max((getattr(bound, "ge", 0) for bound in field.metadata), default=0))


def _mapping(name: str, text: str) -> dict[str, object]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        variable = variable_of(name)
        raise ConfigurationError(
            f"{variable} is {text!r}, which is not an object in JSON", f"Write it like {_JSON_EXAMPLES[name]}."
        )
    return cast("dict[str, object]", value)


def _number(name: str, text: str, least: int) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) < least:
        variable = variable_of(name)
        raise ConfigurationError(
            f"{variable} is {text!r}, which is not a whole number of {least} or more", f"Correct {variable}."
        )
    return int(text)


def _bool(name: str, text: str) -> bool:
    if text.lower() not in _BOOLEANS:
        variable = variable_of(name)
        raise ConfigurationError(f"{variable} is {text!r}, which is neither true nor false", f"Correct {variable}.")
    return _BOOLEANS[text.lower()]


def check_names(environment: Mapping[str, str]) -> None:
    """Refuse a variable that looks like an option and is none: a misspelt option would be ignored silently."""
    known = set(map(variable_of, environment_options()))
    for name in sorted(environment):
        if name.startswith(_PREFIX) and name not in known | _READ_ELSEWHERE:
            remedy = _suggestion(name, known)
            raise ConfigurationError(f"There is no setting {name}", f"{remedy} Nothing was changed.")


def _suggestion(name: str, known: set[str]) -> str:
    close = get_close_matches(name, known, n=1, cutoff=0.8)
    return f"Did you mean {close[0]}?" if close else f"The known ones are {', '.join(sorted(known))}."


def configuration_error(error: ValidationError, known: set[str], origin: Origin) -> ConfigurationError:
    """The first of pydantic's errors, with names of variables or of attributes, as the user wrote them."""
    first = error.errors(include_url=False)[0]
    place = "" if origin.file is None else f"{origin.file}: "
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, RefusedError):
        refused = cause.error
        return ConfigurationError(place + origin.renamed(refused.message), origin.renamed(refused.advice))
    option = str(first["loc"][0]) if first["loc"] else "The configuration"
    if first["type"] == "extra_forbidden":
        return ConfigurationError(f"{place}There is no option {option!r}", _suggestion(option, known))
    name = origin.setting(option)
    if first["type"] == "missing":
        return ConfigurationError(f"{place}{name} is missing", f"Set {name}.")
    shown = f" is {first['input']!r}" if first["type"] == "literal_error" else ""
    return ConfigurationError(f"{place}{name}{shown}: {first['msg']}", f"Correct {name}.")
