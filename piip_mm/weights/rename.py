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
    state_dict: Mapping[str, ValueT], rules: Sequence[Rule], family: str | None = None
) -> tuple[dict[str, ValueT], list[str]]:
    """Rename every entry.

    Args:
        state_dict: Names to values.
        rules: See :func:`rename`.
        family: What the rules are for, if a name that fits none is an error; None leaves
            such a name as it is: a comparison with the model then reports it.

    Returns:
        New names to the same values, and the old names that were dropped.

    Raises:
        ValueError: If two names become one, or one fits no rule.
    """
    renamed: dict[str, ValueT] = {}
    dropped: list[str] = []
    origins: dict[str, str] = {}
    for name, value in state_dict.items():
        try:
            new_name = rename(name, rules)
        except UnknownNameError as error:
            if family is not None:
                raise ValueError(
                    f'the file has {name}, which does not occur in any file of {family}; '
                    'use weights of the same family as the branch'
                ) from error
            new_name = name
        if new_name is None:
            dropped.append(name)
            continue
        if new_name in renamed:
            raise ValueError(
                f'{origins[new_name]!r} and {name!r} are both {new_name!r} here; keep '
                'the right one of them'
            )
        renamed[new_name], origins[new_name] = value, name
    return renamed, dropped
