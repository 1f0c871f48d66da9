"""Names in checkpoints of the published PIIP code to ours."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction

from torch import nn

from piip_mm.models import PIIP, ViTPyramid
from piip_mm.models.branches import Branch

from ..families import family_of
from ..rename import Rule, rename

#: Inside an injector.
INJECTOR_RULES: list[Rule] = [
    (r'ca_gamma', 'gamma_attn'),
    (r'cffn_gamma', 'gamma_ffn'),
    (r'attn\.w([qkv])\.(.+)', r'attn.\1.\2'),
    (r'ffn\.dwconv\.dwconv\.(.+)', r'ffn.dwconv.\1'),
    (r'((?:query|feat|ffn)_norm\..+|attn\..+|ffn\.fc[12]\..+)', r'\1'),
]


def backbone_rules(backbone: nn.Module) -> list[Rule]:
    """Rules from the names of a published backbone to those of ours.

    Args:
        backbone: A :class:`PIIP` or :class:`ViTPyramid`, perhaps on the meta device.

    Raises:
        ValueError: If it is another module, or no weights are known for a branch.
    """
    if isinstance(backbone, PIIP):
        return _piip_rules(backbone)
    if isinstance(backbone, ViTPyramid):
        return _single_branch_rules(backbone)
    raise ValueError(
        'the weights are of a published PIIP model, but the backbone of the config is '
        f'{type(backbone).__name__}; use the config of that model'
    )


def _piip_rules(network: PIIP) -> list[Rule]:
    branches = list(network.branches)
    rules = [_branch_rules(branch) for branch in branches]

    def ours(published: str) -> int:
        return _our_index(published, len(branches))

    def branch(match: re.Match[str]) -> str | None:
        index = ours(match[1])
        name = rename(match[2], rules[index])
        return name and f'branches.{index}.{name}'

    def early_merge(match: re.Match[str]) -> str:
        stage, scale, number, name = match.groups()
        if int(stage) not in network.merge_stages[:-1]:
            raise ValueError(f'nothing is merged after interaction {stage} here')
        merge = f'merges.{network.merge_stages.index(int(stage))}'
        if scale:
            return f'{merge}.scales.{ours(scale)}'
        return f'{merge}.branches.{ours(number)}.{name}'

    last = f'merges.{len(network.merge_stages) - 1}'
    return [
        (r'branch(\d)\.(.+)', branch),
        interaction_rule(len(branches)),
        (r'intermediate_merging_(\d+)_(?:w(\d)|branch(\d)\.(.+))', early_merge),
        (r'merge_branch(\d)\.(.+)', lambda m: f'{last}.branches.{ours(m[1])}.{m[2]}'),
        (r'w(\d)', lambda m: f'{last}.scales.{ours(m[1])}'),
        (r'fpn([12])\.(\d)\.(.+)', _level(network)),
    ]


def interaction_rule(num_branches: int) -> Rule:
    """Rule for the interactions of a published network."""

    def injector(match: re.Match[str]) -> str:
        stage, first, second, source, part, name = match.groups()
        # Inside a unit 'branch1' is the larger model, whatever its number.
        pair = [_our_index(number, num_branches) for number in (first, second)]
        edge = f'{pair[int(source) - 1]}_to_{pair[2 - int(source)]}'
        new = f'proj.{name}' if part == 'proj' else rename(name, INJECTOR_RULES)
        return f'interactions.{stage}.injectors.{edge}.{new}'

    unit = r'interactions\.(\d+)\.interaction_units_(\d)(\d)'
    return unit + r'\.branch([12])to[12]_(injector|proj)\.(.+)', injector


def _our_index(published: str, num_branches: int) -> int:
    """Index of a published branch, which are numbered from 1 the other way round."""
    if not 1 <= int(published) <= num_branches:
        raise ValueError(
            f'published branch {published} of a network with {num_branches} branches'
        )
    return num_branches - int(published)


def _single_branch_rules(network: ViTPyramid) -> list[Rule]:
    rules = _branch_rules(network.branch)

    def branch(match: re.Match[str]) -> str | None:
        name = rename(match[0], rules)
        return name and f'branch.{name}'

    level = _level(network)
    return [(r'up([12])\.(\d)\.(.+)', level), (r'.+', branch)]


def _branch_rules(branch: Branch) -> list[Rule]:
    """Rules inside a branch, without the blocks that are never run."""
    rules = family_of(branch).rules

    def block(match: re.Match[str]) -> str | None:
        return rename(match[0], rules) if int(match[1]) < branch.depth else None

    cls_token = 'cls_token' if branch.num_prefix_tokens else None
    return [(r'(?:blocks|layers)\.(\d+)\..+', block), (r'cls_token', cls_token), *rules]


def _level(network: PIIP | ViTPyramid) -> Callable[[re.Match[str]], str | None]:
    """Published upsampler 1 scales by 4, number 2 by 2."""
    ratios = network.pyramid.ratios if network.out_type == 'pyramid' else []

    def level(match: re.Match[str]) -> str | None:
        number, layer, name = match.groups()
        ratio = {'1': Fraction(1, 4), '2': Fraction(1, 2)}[number]
        if ratio not in ratios:
            return None
        # Only the x4 level has more than one layer.
        layer = f'{layer}.' if number == '1' else ''
        return f'pyramid.levels.{ratios.index(ratio)}.{layer}{name}'

    return level
