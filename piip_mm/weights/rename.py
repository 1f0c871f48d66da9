"""Names of the published PIIP code to ours, as tables of rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TypeAlias

#: What to make of a name: a template, a function of the match, or None to drop it.
Target: TypeAlias = str | Callable[[re.Match[str]], str | None] | None
#: A pattern for the whole name, and its target.
Rule: TypeAlias = tuple[str, Target]

#: Inside a branch of the DeiT family: the published code, DeiT's own files, timm.
VIT_RULES: list[Rule] = [
    (r'patch_embed\.proj\.(.+)', r'patch_embed.\1'),
    (r'pos_embed', 'pos_embed'),
    (r'(blocks\.\d+)\.gamma_([12])', r'\1.ls\2.gamma'),
    (r'(blocks\.\d+\.(?:norm[12]|attn\.(?:qkv|proj)|mlp\.fc[12]|ls[12])\..+)', r'\1'),
    (r'cls_token|dist_token|norm\..+|head\..+|head_dist\..+', None),
]

#: Inside an injector.
INJECTOR_RULES: list[Rule] = [
    (r'ca_gamma', 'gamma_attn'),
    (r'cffn_gamma', 'gamma_ffn'),
    (r'attn\.w([qkv])\.(.+)', r'attn.\1.\2'),
    (r'ffn\.dwconv\.dwconv\.(.+)', r'ffn.dwconv.\1'),
    (r'((?:query|feat|ffn)_norm\..+|attn\..+|ffn\.fc[12]\..+)', r'\1'),
]


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
    raise ValueError(f'{name!r} is not a parameter of the published network')


def piip_rules(depths: Sequence[int], ratios: Sequence[Fraction]) -> list[Rule]:
    """Rules for a published multi-branch backbone.

    Args:
        depths: Blocks of each of our branches; further ones are dropped.
        ratios: Strides of our output maps over that of the merged map.
    """

    def ours(published: str) -> int:
        if not 1 <= int(published) <= len(depths):
            raise ValueError(
                f'published branch {published} of a network with {len(depths)} branches'
            )
        return len(depths) - int(published)

    def branch(match: re.Match[str]) -> str | None:
        index = ours(match[1])
        name = rename(match[2], _branch_rules(depths[index]))
        return name and f'branches.{index}.{name}'

    def injector(match: re.Match[str]) -> str:
        stage, first, second, source, part, name = match.groups()
        # Inside a unit 'branch1' is the larger model, whatever its number.
        pair = [ours(first), ours(second)]
        edge = f'{pair[int(source) - 1]}_to_{pair[2 - int(source)]}'
        new = f'proj.{name}' if part == 'proj' else rename(name, INJECTOR_RULES)
        return f'interactions.{stage}.injectors.{edge}.{new}'

    return [
        (r'branch(\d)\.(.+)', branch),
        (
            r'interactions\.(\d+)\.interaction_units_(\d)(\d)'
            r'\.branch([12])to[12]_(injector|proj)\.(.+)',
            injector,
        ),
        (r'merge_branch(\d)\.(.+)', lambda m: f'merge.branches.{ours(m[1])}.{m[2]}'),
        (r'w(\d)', lambda m: f'merge.scales.{ours(m[1])}'),
        (r'fpn([12])\.(\d)\.(.+)', _level(ratios)),
    ]


def single_branch_rules(depth: int, ratios: Sequence[Fraction]) -> list[Rule]:
    """Rules for a published single-branch baseline.

    Args:
        depth: Number of blocks; further ones are dropped.
        ratios: Strides of our output maps over that of the branch.
    """

    def branch(match: re.Match[str]) -> str | None:
        name = rename(match[0], _branch_rules(depth))
        return name and f'branch.{name}'

    return [(r'up([12])\.(\d)\.(.+)', _level(ratios)), (r'.+', branch)]


def _branch_rules(depth: int) -> list[Rule]:
    """Rules inside a branch, without the blocks that are never run."""

    def block(match: re.Match[str]) -> str | None:
        return rename(match[0], VIT_RULES) if int(match[1]) < depth else None

    # The published branches of a network may have an upsampler that nothing reads.
    return [(r'blocks\.(\d+)\..+', block), (r'up[12]\..+', None), *VIT_RULES]


def _level(ratios: Sequence[Fraction]) -> Callable[[re.Match[str]], str | None]:
    """Published upsampler 1 scales by 4, number 2 by 2."""

    def level(match: re.Match[str]) -> str | None:
        number, layer, name = match.groups()
        ratio = {'1': Fraction(1, 4), '2': Fraction(1, 2)}[number]
        if ratio not in ratios:
            return None
        # Only the x4 level has more than one layer.
        layer = f'{layer}.' if number == '1' else ''
        return f'pyramid.levels.{list(ratios).index(ratio)}.{layer}{name}'

    return level
