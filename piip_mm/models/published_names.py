"""Names of the backbones' parts in checkpoints of the published PIIP code.

The published code numbers branches from the largest model on the smallest image
(``branch1``) to the full image; here they are listed in the opposite order. Published
branch k of N is branch N - k.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction

from piip_mm.weights.rename import Rule, rename

from .branches import Branch

#: Prefixes that only published backbones have: those of several branches, of a single
#: ViT and of a single ConvNeXt.
PUBLISHED_PREFIXES = ('branch1.', 'up1.', 'convnext_model.')

#: Names inside an injector.
INJECTOR_RULES: list[Rule] = [
    (r'ca_gamma', 'gamma_attn'),
    (r'cffn_gamma', 'gamma_ffn'),
    (r'attn\.w([qkv])\.(.+)', r'attn.\1.\2'),
    (r'ffn\.dwconv\.dwconv\.(.+)', r'ffn.dwconv.\1'),
    (r'((?:query|feat|ffn)_norm\..+|attn\..+|ffn\.fc[12]\..+)', r'\1'),
]


def is_published_backbone(names: Iterable[str]) -> bool:
    """Whether parameter names, without prefix, are those of a published backbone."""
    return any(name.startswith(PUBLISHED_PREFIXES) for name in names)


def piip_rules(
    branches: Sequence[Branch], merge_stages: Sequence[int], ratios: Sequence[Fraction]
) -> list[Rule]:
    """Rules for a published network with several branches.

    Args:
        branches: The branches, from high to low resolution.
        merge_stages: Stages after which maps are merged.
        ratios: Stride of each pyramid level divided by that of its map.
    """
    rules = [branch.without_removed_blocks(branch.weight_rules()) for branch in branches]

    def own_index(published: str) -> int:
        return _own_index(published, len(branches))

    def branch(match: re.Match[str]) -> str | None:
        index = own_index(match[1])
        return rename_under(f'branches.{index}.', match[2], rules[index])

    def early_merge(match: re.Match[str]) -> str:
        stage, scale, number, name = match.groups()
        if int(stage) not in merge_stages[:-1]:
            raise ValueError(
                f'the weights merge maps after interaction {stage}, but the config only '
                f'after {tuple(merge_stages)}; adapt out_interactions'
            )
        merge = f'merges.{merge_stages.index(int(stage))}'
        if scale:
            return f'{merge}.scales.{own_index(scale)}'
        return f'{merge}.branches.{own_index(number)}.{name}'

    last = f'merges.{len(merge_stages) - 1}'
    return [
        (r'branch(\d)\.(.+)', branch),
        interaction_rule(len(branches)),
        (r'intermediate_merging_(\d+)_(?:w(\d)|branch(\d)\.(.+))', early_merge),
        (
            r'merge_branch(\d)\.(.+)',
            lambda m: f'{last}.branches.{own_index(m[1])}.{m[2]}',
        ),
        (r'w(\d)', lambda m: f'{last}.scales.{own_index(m[1])}'),
        (r'fpn([12])\.(\d)\.(.+)', _upsampler(ratios)),
    ]


def single_branch_rules(branch: Branch, ratios: Sequence[Fraction]) -> list[Rule]:
    """Rules for a published network with one branch; see :func:`piip_rules`."""
    rules = branch.without_removed_blocks(branch.weight_rules())
    return [
        (r'up([12])\.(\d)\.(.+)', _upsampler(ratios)),
        (r'.+', lambda m: rename_under('branch.', m[0], rules)),
    ]


def rename_under(prefix: str, name: str, rules: Sequence[Rule]) -> str | None:
    """Rename a part of a model and put a prefix before its new name, if it has one."""
    new_name = rename(name, rules)
    return new_name and prefix + new_name


def interaction_rule(num_branches: int) -> Rule:
    """Rule for the interactions of a published network."""

    def injector(match: re.Match[str]) -> str:
        stage, first, second, source, part, name = match.groups()
        # Inside a unit 'branch1' is the larger model, regardless of its number.
        pair = [_own_index(number, num_branches) for number in (first, second)]
        edge = f'{pair[int(source) - 1]}_to_{pair[2 - int(source)]}'
        new = f'proj.{name}' if part == 'proj' else rename(name, INJECTOR_RULES)
        return f'interactions.{stage}.injectors.{edge}.{new}'

    unit = r'interactions\.(\d+)\.interaction_units_(\d)(\d)'
    return unit + r'\.branch([12])to[12]_(injector|proj)\.(.+)', injector


def _own_index(published: str, num_branches: int) -> int:
    """Index here of a published branch; those count from 1 in the opposite order."""
    if not 1 <= int(published) <= num_branches:
        raise ValueError(
            f'published branch {published} does not exist in a network with '
            f'{num_branches} branches'
        )
    return num_branches - int(published)


def _upsampler(ratios: Sequence[Fraction]) -> Callable[[re.Match[str]], str | None]:
    """New names of upsamplers; published number 1 scales by 4, number 2 by 2."""

    def level(match: re.Match[str]) -> str | None:
        number, layer, name = match.groups()
        ratio = {'1': Fraction(1, 4), '2': Fraction(1, 2)}[number]
        if ratio not in ratios:
            return None
        # Only the x4 level has more than one layer.
        layer = f'{layer}.' if number == '1' else ''
        return f'pyramid.levels.{ratios.index(ratio)}.{layer}{name}'

    return level
