"""From the published PIIP code to this package: configs and weights.

The published code numbers branches from the largest model on the smallest image
(``branch1``) to the full image; here they are listed the other way round, from high to
low resolution. Published branch k of N is branch N - k of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor

from .published import classification, networks
from .published.convnext import add_archs
from .published.names import backbone_rules
from .rename import rename


def migrate_config(
    kind: str,
    kwargs: Mapping[str, Any],
    convnext_archs: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Translate a published backbone into a config for ``MODELS.build``.

    The built module returns the published outputs in the published order. Pretrained
    files named in ``kwargs`` only choose the family of a branch, as in the published
    code; they are not loaded.

    Args:
        kind: Code base and class of the published backbone, e.g.
            ``'det.PIIPThreeBranch'`` or ``'det.vit_models'``. The published four-branch
            class builds branch 4 with the settings of branch 3; ``'det.PIIPFourBranch'``
            means it as coded, ``'det.PIIPFourBranch(fixed: ...)'`` as intended.
        kwargs: Constructor arguments under their published names.
        convnext_archs: Depths and widths behind the names of ConvNeXt branches.

    Returns:
        Config of a :class:`~piip_mm.models.PIIP` or
        :class:`~piip_mm.models.ViTPyramid`; for a classifier that of an mmpretrain
        ``ImageClassifier``, whose call on images returns logits.

    Raises:
        ValueError: If the kind, a branch family or an argument is not supported.
    """
    name, _, variant = kind.partition('(')
    name = name.strip()
    kinds = {**networks.KINDS, **classification.KINDS}
    if name not in kinds:
        raise ValueError(
            f'unknown kind {kind!r}; choose one of {", ".join(map(repr, kinds))}'
        )
    return kinds[name](add_archs(kwargs, convnext_archs or {}), variant)


def migrate_state_dict(
    state_dict: Mapping[str, Tensor], config: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Translate the weights of a published backbone.

    Parameters that nothing reads are dropped: class tokens and final norms of branches,
    ``fpn1`` where no stride-4 map is asked for, blocks after the last output.

    Args:
        state_dict: Published names to tensors, of the backbone or classifier alone: names
            start with 'branch1.', not with 'backbone.'.
        config: What :func:`migrate_config` made of the published arguments.

    Returns:
        Our names to the same tensors; loads strictly into the built config.

    Raises:
        ValueError: If a name fits no rule or the config is of another kind.
    """
    rules_of = {
        'PIIP': backbone_rules,
        'ViTPyramid': backbone_rules,
        classification.CLASSIFIER: classification.classifier_rules,
    }
    kind = config.get('type')
    if kind not in rules_of:
        raise ValueError(
            f'no published weights fit a model of type {kind!r}; expected a config from '
            f'migrate_config, of one of {", ".join(map(repr, rules_of))}'
        )
    with torch.device('meta'):
        rules = rules_of[kind](MODELS.build(dict(config)))
    renamed = ((rename(name, rules), tensor) for name, tensor in state_dict.items())
    return {name: tensor for name, tensor in renamed if name is not None}
