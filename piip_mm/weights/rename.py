"""Names of the published PIIP code to ours, as tables of rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
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


def piip_rules(num_branches: int, out_strides: tuple[int, ...]) -> list[Rule]:
    """Rules for a published multi-branch backbone.

    Args:
        num_branches: Number of branches.
        out_strides: Strides of our output maps; upsamplers for others are dropped.
    """

    def ours(published: str) -> int:
        return num_branches - int(published)

    def branch(match: re.Match[str]) -> str | None:
        name = rename(match[2], VIT_RULES)
        return name and f'branches.{ours(match[1])}.{name}'

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
        (r'fpn([12])\.(\d)\.(.+)', _level(out_strides)),
    ]


def single_branch_rules(depth: int, out_strides: tuple[int, ...]) -> list[Rule]:
    """Rules for a published single-branch baseline.

    Args:
        depth: Number of blocks; further ones are dropped.
        out_strides: Strides of our output maps; upsamplers for others are dropped.
    """

    def branch(match: re.Match[str]) -> str | None:
        name = rename(match[0], VIT_RULES)
        return name and f'branch.{name}'

    def block(match: re.Match[str]) -> str | None:
        return branch(match) if int(match[1]) < depth else None

    return [
        (r'up([12])\.(\d)\.(.+)', _level(out_strides)),
        (r'blocks\.(\d+)\..+', block),
        (r'.+', branch),
    ]


def _level(out_strides: tuple[int, ...]) -> Callable[[re.Match[str]], str | None]:
    """Published upsampler 1 makes the map of stride 4, number 2 that of stride 8."""

    def level(match: re.Match[str]) -> str | None:
        number, layer, name = match.groups()
        stride = {'1': 4, '2': 8}[number]
        if stride not in out_strides:
            return None
        # Only the x4 level has more than one layer.
        layer = f'{layer}.' if stride == 4 else ''
        return f'pyramid.levels.{out_strides.index(stride)}.{layer}{name}'

    return level
