"""Checks made when a model is built; each message prints the values and the fix."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf, isfinite
from numbers import Real
from typing import Any


def check_choice(name: str, value: object, choices: Iterable[object]) -> None:
    """Raise ``ValueError`` listing the choices unless ``value`` is one of them."""
    choices = tuple(choices)
    if value not in choices:
        raise ValueError(
            f'unknown {name} {value!r}; choose one of {", ".join(map(repr, choices))}'
        )


def check_keys(name: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise ``ValueError`` listing the known keys if ``given`` has others."""
    known = tuple(known)
    unknown = [key for key in given if key not in known]
    if unknown:
        raise ValueError(
            f'unknown keys {unknown} of {name}; choose from {", ".join(known)}'
        )


def check_bool(name: str, value: object) -> None:
    """Raise ``ValueError`` unless ``value`` is a bool: 'False' would mean True."""
    if not isinstance(value, bool):
        raise ValueError(f'{name}={value!r}: expected True or False')


def check_mapping(name: str, value: object) -> None:
    """Raise ``ValueError`` unless ``value`` is a dict of options."""
    if not isinstance(value, Mapping):
        raise ValueError(f'{name}={value!r}: expected a dict of options')


def check_int(name: str, value: object, minimum: int = 1) -> None:
    """Raise ``ValueError`` unless ``value`` is an integer of at least ``minimum``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise ValueError(f'{name}={value!r}: expected an integer of at least {minimum}')


def check_number(
    name: str, value: Any, *, above: float, below: float | None = None
) -> None:
    """Raise ``ValueError`` unless ``above < value < below``."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    # Written so that NaN fails.
    if not is_number or not above < value < (inf if below is None else below):
        limits = f'above {above}' + ('' if below is None else f' and below {below}')
        raise ValueError(f'{name}={value!r}: expected a number {limits}')


def check_finite(name: str, value: Any) -> None:
    """Raise ``ValueError`` unless ``value`` is a finite number."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not isfinite(value):
        raise ValueError(f'{name}={value!r}: expected a finite number')


def check_rate(name: str, value: Any) -> None:
    """Raise ``ValueError`` unless ``value`` is a probability below 1."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not 0 <= value < 1:
        raise ValueError(f'{name}={value!r}: expected a probability from 0 to below 1')


def check_divisible(name: str, value: int, divisor_name: str, divisor: int) -> None:
    """Raise ``ValueError`` with both values unless ``divisor`` divides ``value``."""
    check_int(divisor_name, divisor)
    if value < 1 or value % divisor:
        raise ValueError(
            f'{name} {value} is not divisible by {divisor_name} {divisor}; '
            f'change one of the two'
        )


def check_sequence(name: str, value: object) -> None:
    """Raise ``ValueError`` unless ``value`` is a list or a tuple."""
    if not isinstance(value, (list, tuple)):
        raise ValueError(f'{name}={value!r}: expected a list')
