"""The base class of every error of this package."""

from typing import ClassVar


class IngestError(Exception):
    """An error whose text is one line: what happened, then what to do about it.

    Args:
        message: What happened, to which document or partition, and in which state things are.
        remedy: What to do next; absent, the class's own remedy is used.
    """

    remedy: ClassVar[str] = ""

    def __init__(self, message: str, remedy: str | None = None) -> None:
        self.message = message
        self.advice = self.remedy if remedy is None else remedy
        super().__init__(message)

    def __str__(self) -> str:
        line = " ".join(self.message.split()).rstrip(".") + "."
        return f"{line} {self.advice}".rstrip()

    def __reduce__(self) -> tuple[object, ...]:
        """Between processes, errors travel without another call of the constructor, whose arguments differ."""
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[IngestError], args: tuple[object, ...], attributes: dict[str, object]) -> IngestError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error
