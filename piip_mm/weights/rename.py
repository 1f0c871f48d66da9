"""Renaming parameters by tables of rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, TypeVar

#: New name: a template, a function of the match, or None to drop the parameter.
Target: TypeAlias = str | Callable[[re.Match[str]], str | None] | None
#: A regular expression for the whole name, and the target.
Rule: TypeAlias = tuple[str, Target]

ValueT = TypeVar('ValueT')


class UnknownNameError(ValueError):
    """A name that fits no rule."""


def rename(name: str, rules: Sequence[Rule]) -> str | None:
    """Apply the first rule that fits the whole name.

    Returns:
        The new name, or None if the parameter is to be dropped.

    Raises:
        UnknownNameError: If no rule fits.
        ValueError: If a target refuses the name.
    """
    for pattern, target in rules:
        match = re.fullmatch(pattern, name)
        if match is None:
            continue
        if isinstance(target, str):
            return match.expand(target)
        return None if target is None else target(match)
    raise UnknownNameError(f'{name!r} is not a known parameter name')


def rename_state_dict(
    state_dict: Mapping[str, ValueT], rules: Sequence[Rule]
) -> tuple[dict[str, ValueT], list[str]]:
    """Rename every entry, leaving names that fit no rule as they are: a comparison with
    the model then reports them.

    Returns:
        New names to the same values, and the old names that were dropped.
    """
    renamed, dropped = {}, []
    for name, value in state_dict.items():
        try:
            new_name = rename(name, rules)
        except UnknownNameError:
            new_name = name
        if new_name is None:
            dropped.append(name)
        else:
            renamed[new_name] = value
    return renamed, dropped
