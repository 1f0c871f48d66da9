"""Checks made when a model is built; each message prints the values and the fix."""

from __future__ import annotations

import re
from abc import ABCMeta
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from inspect import Parameter, signature
from itertools import islice
from math import inf
from numbers import Integral, Real
from typing import Any

# PyTorch's operators take no larger numbers.
_LARGEST = 2**31 - 1


class OptionErrors(ABCMeta):
    """Metaclass of the classes that are built from configs: turns Python's error about
    the arguments of a constructor, which may be that of a base class, into a
    ``ValueError`` with the name in the config, the option, and similar options."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().__call__(*args, **kwargs)
        except TypeError as error:
            # From Python 3.13 on it may end in a suggestion.
            match = re.search(
                r"(\w+)\.__init__\(\) (.+?'(\w+)')(?:\. Did you mean .+)?$", str(error)
            )
            if not match or match[1] not in (base.__name__ for base in cls.__mro__):
                raise
            options = _option_names(cls)
            close = get_close_matches(match[3], options) or options
            raise ValueError(
                f'{cls.__name__} {match[2]}; similar options: {", ".join(close)}'
            ) from error


def _option_names(kind: type) -> list[str]:
    """Parameters of the constructor of a class, and of those of its base classes as long
    as they pass options on."""
    names: list[str] = []
    for base in kind.__mro__:
        if '__init__' not in vars(base):
            continue
        parameters = list(signature(vars(base)['__init__']).parameters.values())[1:]
        variable = (Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL)
        names += [param.name for param in parameters if param.kind not in variable]
        if all(param.kind is not Parameter.VAR_KEYWORD for param in parameters):
            break
    return list(dict.fromkeys(names))


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


def check_int(name: str, value: Any, minimum: int = 1) -> None:
    """Raise ``ValueError`` unless ``value`` is an integer of at least ``minimum``."""
    if not isinstance(value, Integral) or not _is_number(value) or value < minimum:
        raise ValueError(
            f'{name}={value!r}: expected an integer of at least {minimum}{_limit(value)}'
        )


def check_ints(name: str, values: Any, minimum: int = 1) -> None:
    """Raise ``ValueError`` unless ``values`` is a list or a tuple of such integers."""
    check_sequence(name, values)
    for index, value in enumerate(values):
        check_int(f'{name}[{index}]', value, minimum)


def check_number(
    name: str, value: Any, *, above: float, below: float | None = None
) -> None:
    """Raise ``ValueError`` unless ``above < value < below``."""
    if not _is_number(value) or not above < value < (inf if below is None else below):
        limits = f'above {above}' + ('' if below is None else f' and below {below}')
        raise ValueError(f'{name}={value!r}: expected a number {limits}{_limit(value)}')


def check_finite(name: str, value: Any, minimum: float = -inf) -> None:
    """Raise ``ValueError`` unless ``value`` is finite and at least ``minimum``."""
    if not _is_number(value) or value < minimum:
        limits = '' if minimum == -inf else f' of at least {minimum}'
        raise ValueError(
            f'{name}={value!r}: expected a finite number{limits}{_limit(value)}'
        )


def check_rate(name: str, value: Any) -> None:
    """Raise ``ValueError`` unless ``value`` is a probability below 1."""
    if not _is_number(value) or not 0 <= value < 1:
        raise ValueError(f'{name}={value!r}: expected a probability from 0 to below 1')


def _is_number(value: Any) -> bool:
    """Whether a value is a number that PyTorch can take; True and NaN are none."""
    is_real = isinstance(value, Real) and not isinstance(value, bool)
    return is_real and abs(value) <= _LARGEST


def _limit(value: Any) -> str:
    too_large = isinstance(value, Real) and abs(value) > _LARGEST  # type: ignore[operator]
    return f' and at most {_LARGEST} in size' if too_large else ''


def check_divisible(name: str, value: int, divisor_name: str, divisor: int) -> None:
    """Raise ``ValueError`` with both values unless ``divisor`` divides ``value``."""
    check_int(divisor_name, divisor)
    check_int(name, value)
    if value % divisor:
        raise ValueError(
            f'{name} {value} is not divisible by {divisor_name} {divisor}; '
            f'change one of the two'
        )


def check_sequence(name: str, value: object) -> None:
    """Raise ``ValueError`` unless ``value`` is a list or a tuple."""
    if not isinstance(value, (list, tuple)):
        raise ValueError(f'{name}={value!r}: expected a list')


def shown(values: Iterable[object], limit: int) -> str:
    """The first values as text for a message, and '...' if there are more."""
    first = [str(value) for value in islice(values, limit + 1)]
    return ', '.join([*first[:limit], *['...'] * (len(first) > limit)])
