"""Taking the arguments of a published constructor apart, so that none is forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def take(kwargs: dict[str, Any], name: str) -> Any:
    """Take out an argument that has to be there."""
    if name not in kwargs:
        raise ValueError(
            f'the published arguments have no {name!r}, only {sorted(kwargs)}'
        )
    return kwargs.pop(name)


def drop(kwargs: dict[str, Any], *names: str) -> None:
    """Forget arguments that do not change what the network computes."""
    for name in names:
        kwargs.pop(name, None)


def expect(kwargs: dict[str, Any], **values: Any) -> None:
    """Take arguments out that are supported at one value only."""
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


def per_block(kwargs: dict[str, Any], name: str, depth: int, default: Any) -> list[Any]:
    """One value a block of an argument that may be given once for all."""
    values = kwargs.pop(name, default)
    if values is None:
        values = default
    if not isinstance(values, Sequence):
        return [values] * depth
    if len(values) != depth:
        raise ValueError(f'{name}={values}: expected {depth} values, one a block')
    return list(values)


def run_rate(rate: float, depth: int | None, num_layers: int) -> float:
    """Drop path rate of the last block that is run, where the rates grow linearly from 0
    to ``rate`` over all blocks."""
    run = depth or num_layers
    return rate * (run - 1) / max(num_layers - 1, 1) if run < num_layers else rate


def run_depth(depth: int | None, num_layers: int) -> int:
    """Number of blocks that are run, by default all.

    Raises:
        ValueError: If there are fewer.
    """
    if depth is not None and depth > num_layers:
        raise ValueError(
            f'there is no block {depth - 1} in a branch of depth {num_layers}'
        )
    return depth or num_layers
