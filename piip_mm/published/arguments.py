"""Helpers to read all arguments of a published constructor, ignoring none by accident.

Every function removes the arguments it handles; any that remain at the end are an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def pop_required(kwargs: dict[str, Any], name: str) -> Any:
    """Remove a required argument and return its value."""
    if name not in kwargs:
        raise ValueError(
            f'the published arguments lack {name!r}; given are {sorted(kwargs)}'
        )
    return kwargs.pop(name)


def discard(kwargs: dict[str, Any], *names: str) -> None:
    """Remove arguments that do not change what the network computes."""
    for name in names:
        kwargs.pop(name, None)


def require_values(kwargs: dict[str, Any], **values: Any) -> None:
    """Remove arguments for which only one value is supported."""
    for name, value in values.items():
        given = kwargs.pop(name, value)
        if given != value:
            raise ValueError(
                f'{name}={given!r} cannot be migrated, only {name}={value!r}'
            )


def refuse_rest(kwargs: dict[str, Any], where: str) -> None:
    """Raise ``ValueError`` if any arguments are left."""
    if kwargs:
        raise ValueError(f'arguments of {where} that cannot be migrated: {kwargs}')


def pop_per_block(
    kwargs: dict[str, Any], name: str, num_blocks: int, default: Any
) -> list[Any]:
    """Remove an argument given once or per block, and return one value per block."""
    values = kwargs.pop(name, default)
    if values is None:
        values = default
    if not isinstance(values, Sequence):
        return [values] * num_blocks
    if len(values) != num_blocks:
        raise ValueError(f'{name}={values}: expected {num_blocks} values, one per block')
    return list(values)
