"""Checks made when a model is built; each message prints the values and the fix."""

from __future__ import annotations

from collections.abc import Iterable


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raise ``ValueError`` listing the choices unless ``value`` is one of them."""
    choices = tuple(choices)
    if value not in choices:
        raise ValueError(
            f'unknown {name} {value!r}; choose one of {", ".join(map(repr, choices))}'
        )


def check_divisible(name: str, value: int, divisor_name: str, divisor: int) -> None:
    """Raise ``ValueError`` with both values unless ``divisor`` divides ``value``."""
    if divisor < 1 or value < 1 or value % divisor:
        raise ValueError(
            f'{name} {value} is not divisible by {divisor_name} {divisor}; '
            f'change one of the two'
        )
