"""Arguments of published constructors, described by tables.

Whatever a table does not contain is handed back, so that no argument is ignored by
accident.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from piip_mm.checks import check_choice

#: In place of the default of an argument that has none.
REQUIRED = object()


@dataclass(frozen=True)
class Argument:
    """What becomes of a published argument.

    Args:
        key: Its name here, possibly within a section ('arch.num_heads'); None if only the
            default can be migrated.
        default: The published default.
        values: Our values by the published ones, or a function that returns ours.
    """

    key: str | None
    default: Any = REQUIRED
    values: Mapping[Any, Any] | Callable[[Any], Any] = lambda value: value


#: By published name; None: it does not change what the network computes.
Table: TypeAlias = dict[str, Argument | None]


def only(**values: Any) -> Table:
    """Table of arguments of which only these values can be migrated."""
    return {name: Argument(None, value) for name, value in values.items()}


def ignored(*names: str) -> Table:
    """Table of arguments that do not change what the network computes."""
    return dict.fromkeys(names)


def translate(
    kwargs: Mapping[str, Any], table: Table
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Our values by our names, and the arguments that the table does not contain.

    Raises:
        ValueError: If an argument is missing or has a value that cannot be migrated.
    """
    config: dict[str, Any] = {}
    for name, argument in table.items():
        if argument is None:
            continue
        value = kwargs.get(name, argument.default)
        if value is REQUIRED:
            raise ValueError(
                f'the published arguments lack {name!r}; given are {sorted(kwargs)}'
            )
        if argument.key is None:
            if value != argument.default:
                raise ValueError(
                    f'{name}={value!r} cannot be migrated, only {name}='
                    f'{argument.default!r}'
                )
            continue
        if callable(argument.values):
            value = argument.values(value)
        else:
            check_choice(name, value, argument.values)
            value = argument.values[value]
        *section, key = argument.key.split('.')
        (config.setdefault(section[0], {}) if section else config)[key] = value
    return config, {name: kwargs[name] for name in kwargs if name not in table}


def refuse(rest: Mapping[str, Any], where: str) -> None:
    """Raise ``ValueError`` if any arguments are left."""
    if rest:
        raise ValueError(f'arguments of {where} that cannot be migrated: {rest}')
