"""The few rules that most configs share; each failure names the field, the value and the rule."""

from collections.abc import Sequence


def positive(owner: str, **fields: float) -> None:
    """Raises ValueError unless each field is finite and above zero."""
    for name, value in fields.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{owner}.{name} must be positive, got {value}.")


def not_negative(owner: str, **fields: float) -> None:
    """Raises ValueError unless each field is finite and zero or above."""
    for name, value in fields.items():
        if not 0 <= value < float("inf"):
            raise ValueError(f"{owner}.{name} must be zero or more, got {value}.")


def fraction(owner: str, **fields: float) -> None:
    """Raises ValueError unless each field is in [0, 1]."""
    for name, value in fields.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{owner}.{name} must be in [0, 1], got {value}.")


def one_of(owner: str, choices: Sequence[str], **fields: str) -> None:
    """Raises ValueError unless each field is one of `choices`."""
    for name, value in fields.items():
        if value not in choices:
            raise ValueError(f"{owner}.{name}={value!r} must be one of {', '.join(choices)}.")
