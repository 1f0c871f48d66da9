"""Taking the arguments of a published constructor apart, so that none is forgotten.

Every function removes the arguments it deals with; what remains at the end is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def pop_required(kwargs: dict[str, Any], name: str) -> Any:
    """Value of an argument that has to be there."""
    if name not in kwargs:
        raise ValueError(
            f'the published arguments have no {name!r}, only {sorted(kwargs)}'
        )
    return kwargs.pop(name)


def discard(kwargs: dict[str, Any], *names: str) -> None:
    """Remove arguments that do not change what the network computes."""
    for name in names:
        kwargs.pop(name, None)


def require_values(kwargs: dict[str, Any], **values: Any) -> None:
    """Remove arguments that are supported at one value only."""
    for name, value in values.items():
        given = kwargs.pop(name, value)
        if given != value:
            raise ValueError(
                f'{name}={given!r} cannot be migrated, only {name}={value!r}'
            )


def refuse_rest(kwargs: dict[str, Any], where: str) -> None:
    """Raise ``ValueError`` if arguments are left."""
    if kwargs:
        raise ValueError(f'arguments of {where} that cannot be migrated: {kwargs}')


def pop_per_block(
    kwargs: dict[str, Any], name: str, num_blocks: int, default: Any
) -> list[Any]:
    """One value per block of an argument that may be given once for all blocks."""
    values = kwargs.pop(name, default)
    if values is None:
        values = default
    if not isinstance(values, Sequence):
        return [values] * num_blocks
    if len(values) != num_blocks:
        raise ValueError(f'{name}={values}: expected {num_blocks} values, one per block')
    return list(values)
