"""Backbones and classifiers of the published code: their configs and weights."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor

from piip_mm.config_types import base_names, describes, resolve_type
from piip_mm.models.backbone import Backbone
from piip_mm.weights.rename import rename

from .checkpoints import classifier_rules
from .classifiers import CLASSIFIERS
from .convnext import add_archs
from .networks import BACKBONES, as_coded


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
            class builds branch 4 with the settings of branch 3: ``'det.PIIPFourBranch'``
            migrates it as coded, ``'det.PIIPFourBranch(fixed: ...)'`` as intended.
        kwargs: Constructor arguments under their published names.
        convnext_archs: ``depths`` and ``hidden_sizes``, as in Hugging Face's configs, of
            ConvNeXt branches by the names of their weights.

    Returns:
        Config of a :class:`~piip_mm.models.PIIP` or
        :class:`~piip_mm.models.ViTPyramid`; for a classifier that of an mmpretrain
        ``ImageClassifier``, whose call on images returns logits.

    Raises:
        ValueError: If the kind, a branch family or an argument is not supported.
    """
    name, _, variant = kind.partition('(')
    name = name.strip()
    kinds = {**BACKBONES, **CLASSIFIERS}
    if name not in kinds:
        raise ValueError(
            f'unknown kind {kind!r}; choose one of {", ".join(map(repr, kinds))}'
        )
    kwargs = add_archs(kwargs, convnext_archs or {})
    if name == 'det.PIIPFourBranch':
        kwargs = as_coded(kwargs, variant)
    return kinds[name](kwargs)


def migrate_state_dict(
    state_dict: Mapping[str, Tensor], config: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Translate the weights of a published backbone.

    Parameters that nothing reads are dropped: class tokens and final norms of branches,
    ``fpn1`` where no stride-4 map is output, blocks after the last output.

    Args:
        state_dict: Published names to tensors, of the backbone or classifier alone: names
            start with 'branch1.', not with 'backbone.'.
        config: What :func:`migrate_config` made of the published arguments.

    Returns:
        New names to the same tensors; they load strictly into the built config.

    Raises:
        ValueError: If a name fits no rule or the config is of another kind.
    """
    is_backbone = describes(config, MODELS, Backbone)
    kind = resolve_type(config, MODELS)
    if not is_backbone and 'ImageClassifier' not in base_names(kind, 'mmpretrain'):
        raise ValueError(
            f'no published weights fit a model of type {config.get("type")!r}; expected '
            'a config from migrate_config'
        )
    with torch.device('meta'):
        model = MODELS.build(dict(config))
    backbone = model if is_backbone else model.backbone
    for branch in backbone.branch_list:
        # The published networks have blocks after the last group, which are never run.
        branch.built_depth = sys.maxsize
    rules = backbone.published_rules()
    if not is_backbone:
        rules = classifier_rules(backbone, rules)
    renamed = ((rename(name, rules), tensor) for name, tensor in state_dict.items())
    return {name: tensor for name, tensor in renamed if name is not None}
