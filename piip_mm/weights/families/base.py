"""What is known about the weights of a branch family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

from torch import Tensor

from piip_mm.models.branches import Branch

from ..rename import Rule


def _as_they_are(weights: Mapping[str, Any], branch: Any) -> Mapping[str, Any]:
    return weights


def _as_it_is(name: str, tensor: Tensor, branch: Any) -> Tensor:
    return tensor


@dataclass(frozen=True, kw_only=True)
class Family:
    """How weights of a family come into a branch.

    Attributes:
        title: What to call the family in messages.
        rules: Names in pretrained files and in published PIIP checkpoints to ours.
        fit: Called with our name, a tensor of a pretrained file and the branch; returns a
            tensor of the branch's size, or the tensor itself.
        optional: Pattern of our names that a file may lack, or may have in vain.
        prepare: Called first with the tensors of a pretrained file and the branch, for
            what is more than renaming; returns names and tensors.
    """

    title: str
    rules: list[Rule]
    optional: str
    fit: Callable[[str, Tensor, Any], Tensor] = _as_it_is
    prepare: Callable[[Mapping[str, Any], Any], Mapping[str, Any]] = _as_they_are


@singledispatch
def family_of(branch: Branch) -> Family:
    """The family of a branch; one is added by a function registered here.

    Raises:
        ValueError: If no weights are known for the class of the branch.
    """
    known = sorted(c.__name__ for c in family_of.registry if c is not object)
    raise ValueError(
        f'no weights are known for a branch of type {type(branch).__name__!r}; known are '
        f'{", ".join(known)}'
    )
