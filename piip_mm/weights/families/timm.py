"""Weights of the models of timm."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any

import timm
import torch
from mmengine.logging import print_log
from torch import Tensor

from piip_mm.models.branches.timm import PIIPTimm

from .base import Family, family_of

# Heads and final norms of files for other tasks than timm's model has a head for.
_AFTER_THE_BLOCKS = r'(?:head|head_dist|norm|fc_norm|norm_pre|attn_pool|classifier)\..+'


def _prepare(weights: Mapping[str, Any], branch: PIIPTimm) -> Mapping[str, Any]:
    """Names and sizes as timm loads them: it converts the original releases, and resizes
    position embeddings, tables of relative positions and patch kernels to the model."""
    convert = getattr(
        sys.modules[type(branch.net).__module__], 'checkpoint_filter_fn', None
    )
    converted = convert(dict(weights), branch.net) if convert else weights
    for name, tensor in converted.items():
        if name in weights and weights[name].shape != tensor.shape:
            print_log(
                f'{name}: resized from {tuple(weights[name].shape)} to '
                f'{tuple(tensor.shape)}',
                logger='current',
            )
    return converted


@family_of.register
def _timm_family(branch: PIIPTimm) -> Family:
    with torch.device('meta'):
        complete: Mapping[str, Tensor] = timm.create_model(
            branch.model, **branch.options
        ).state_dict()
    own = branch.net.state_dict()

    def ours(match: re.Match[str]) -> str | None:
        name = match[0]
        is_unread = name in complete or re.fullmatch(_AFTER_THE_BLOCKS, name)
        return None if name not in own and is_unread else f'net.{name}'

    return Family(
        title=f'timm model {branch.model}',
        rules=[(r'.+', ours)],
        optional='',
        prepare=_prepare,
    )
