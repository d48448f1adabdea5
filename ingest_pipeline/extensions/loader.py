"""Extensions: classes of the user, named by a dotted path with arguments, or given as objects in Python.

An option such as `parser` takes one extension or a list of them, in one of three forms: the dotted path of a class, a
mapping with the path as `class` and the `arguments` of its constructor, or, in Python alone, an object. Every extension
has a `fingerprint`, a string that changes whenever its results may change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, cast

from ingest_pipeline.errors import ConfigurationError

MAX_FINGERPRINT_CHARACTERS = 200
FORM = (
    "Write it as the dotted path of a class, such as my_package.my_module.MyClass, or as a mapping of class and "
    "arguments."
)
_NAMED: dict[str, Any] = {
    "type": "object",
    "properties": {"class": {"type": "string"}, "arguments": {"type": "object"}},
    "required": ["class"],
    "additionalProperties": False,
}
SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "string"},
        _NAMED,
        {"type": "array", "items": {"anyOf": [{"type": "string"}, _NAMED]}},
        {"type": "null"},
    ]
}
"""JSON schema of an option that takes extensions."""


@dataclass(slots=True)
class Extension:
    """One extension of the user."""

    option: str
    """The option that it was given in, such as `parser`."""
    path: str
    """Dotted path of its class."""
    arguments: Mapping[str, object] = field(default_factory=dict[str, object])
    """Arguments of the constructor."""
    given: object = None
    """The object itself, if it was given in Python."""
    _loaded: object = field(default=None, compare=False, repr=False)

    def load(self) -> object:
        """Its object. The first call creates it.

        Raises:
            ConfigurationError: There is no such class, or its constructor refuses the arguments.
        """
        if self._loaded is None:
            self._loaded = create(self.option, self.path, self.arguments) if self.given is None else self.given
        return self._loaded

    def __hash__(self) -> int:
        return hash((self.option, self.path))


def only(extensions: Sequence[Extension]) -> Extension | None:
    """The extension of an option that names one at most. None: the option names none.

    Raises:
        ConfigurationError: It names several.
    """
    if len(extensions) > 1:
        option = extensions[0].option
        raise ConfigurationError(f"INGEST_{option.upper()} names more than one {option}", "Name one.")
    return extensions[0] if extensions else None


def read_extensions(option: str, value: object) -> tuple[Extension, ...]:
    """The extensions that an option names. Imports none of them.

    Args:
        option: Name of the option.
        value: The value of the option.

    Raises:
        ConfigurationError: The value has none of the forms.
    """
    if value is None or value == "":
        return ()
    if isinstance(value, list | tuple):
        return tuple(_read(option, one) for one in cast("Sequence[object]", value))
    return (_read(option, value),)


def parse_extensions(option: str, text: str) -> object:
    """The value of an option from a variable of the environment: a dotted path, or JSON.

    Raises:
        ConfigurationError: The text begins like JSON and is malformed.
    """
    if not text.lstrip().startswith(("{", "[", '"')):
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"{_variable(option)} is not valid JSON: {error}", FORM) from None


def create(option: str, path: str, arguments: Mapping[str, object]) -> object:
    """Create an object of a class that is named by its dotted path.

    Raises:
        ConfigurationError: There is no such class, or its constructor refuses the arguments.
    """
    name = _variable(option)
    found = _find(name, path)
    if not callable(found):
        raise ConfigurationError(f"{name} names {path!r}, which is not a class", FORM)
    try:
        return found(**arguments)
    except (Exception, SystemExit) as error:
        shown = ", ".join(arguments) or "none"
        raise ConfigurationError(
            f"{name}: {path} cannot be created with its arguments ({shown}): {described(error)}",
            "Correct the arguments.",
        ) from error


def check(extension: Extension, members: Sequence[str], *, has_fingerprint: bool = True) -> str:
    """Check that an extension has all members of its protocol, and return its fingerprint.

    Args:
        extension: The extension.
        members: Names that its object must have.
        has_fingerprint: Whether it must have a fingerprint. Otherwise the result is empty.

    Raises:
        ConfigurationError: It cannot be loaded, lacks a member, or its fingerprint is not a short text.
    """
    loaded, name = extension.load(), _variable(extension.option)
    for member in members:
        if getattr(loaded, member, None) is None:
            raise ConfigurationError(
                f"{name}: {extension.path} has no {member!r}, which every {extension.option} must have",
                f"Add it; docs/how-to/user_{extension.option}.md shows the whole protocol.",
            )
    if not has_fingerprint:
        return ""
    fingerprint: object = getattr(loaded, "fingerprint", None)
    if not isinstance(fingerprint, str) or not 0 < len(fingerprint) <= MAX_FINGERPRINT_CHARACTERS:
        raise ConfigurationError(
            f"{name}: {extension.path} has the fingerprint {fingerprint!r:.60}, which is not a text of 1 to "
            f"{MAX_FINGERPRINT_CHARACTERS} characters",
            "Set `fingerprint` to a string that changes whenever the results may change.",
        )
    return fingerprint


def described(error: BaseException) -> str:
    """An error of the user's code, for messages."""
    return f"{type(error).__name__}: {error}"[:500]


def _read(option: str, value: object) -> Extension:
    name = _variable(option)
    if isinstance(value, Extension):
        return value
    if isinstance(value, str):
        return Extension(option, _checked_path(name, value))
    if isinstance(value, Mapping):
        parts = cast("Mapping[object, object]", value)
        path, arguments = parts.get("class"), parts.get("arguments") or {}
        if parts.keys() - {"class", "arguments"} or not isinstance(path, str) or not isinstance(arguments, Mapping):
            raise ConfigurationError(f"{name} has an entry with {sorted(map(str, parts))}", FORM)
        named = cast("Mapping[object, object]", arguments)
        return Extension(option, _checked_path(name, path), {str(key): one for key, one in named.items()})
    if isinstance(value, type):
        made = cast("type[object]", value)
        return Extension(option, f"{made.__module__}.{made.__qualname__}", given=create_from(option, made))
    if value is None or isinstance(value, bool | int | float | list | tuple):
        raise ConfigurationError(f"{name} is {value!r:.60}", FORM)
    kind = type(value)
    return Extension(option, f"{kind.__module__}.{kind.__qualname__}", given=value)


def create_from(option: str, made: type[object]) -> object:
    """An object of a class that was given in Python instead of an object.

    Raises:
        ConfigurationError: The constructor needs arguments or raises an error.
    """
    try:
        return made()
    except (Exception, SystemExit) as error:
        raise ConfigurationError(
            f"{_variable(option)}: {made.__qualname__} cannot be created without arguments: {described(error)}",
            "Pass an object instead of the class.",
        ) from error


def _checked_path(name: str, path: str) -> str:
    parts = path.strip().split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):  # noqa: PLR2004  a module and a class
        raise ConfigurationError(f"{name} is {path!r}, which is not the dotted path of a class", FORM)
    return path.strip()


def _find(name: str, path: str) -> object:
    module_name, _, attribute = path.rpartition(".")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise ConfigurationError(
                f"{name} names {path!r}, but there is no module {error.name!r}",
                "Correct the name, install its package, or put its folder on PYTHONPATH.",
            ) from None
        raise ConfigurationError(
            f"{name} names {path!r}, whose module cannot be imported: {described(error)}", "Install what is missing."
        ) from error
    except (Exception, SystemExit) as error:
        raise ConfigurationError(
            f"{name} names {path!r}, whose module cannot be imported: {described(error)}", "Correct that module."
        ) from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise ConfigurationError(
            f"{name} names {path!r}, but module {module_name!r} has no {attribute!r}", "Correct the name."
        ) from None


def _variable(option: str) -> str:
    return f"INGEST_{option.upper()}"
