"""Renaming by tables of rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

#: What to make of a name: a template, a function of the match, or None to drop it.
Target: TypeAlias = str | Callable[[re.Match[str]], str | None] | None
#: A pattern for the whole name, and its target.
Rule: TypeAlias = tuple[str, Target]


def rename(name: str, rules: Sequence[Rule]) -> str | None:
    """Apply the first rule that fits the whole name.

    Returns:
        The new name, or None if the parameter is to be dropped.

    Raises:
        ValueError: If no rule fits.
    """
    for pattern, target in rules:
        match = re.fullmatch(pattern, name)
        if match is None:
            continue
        if isinstance(target, str):
            return match.expand(target)
        return None if target is None else target(match)
    raise ValueError(f'{name!r} is no parameter that is known here')
