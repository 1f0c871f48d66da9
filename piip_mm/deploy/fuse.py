"""Exact algebra that leaves a trained network fewer operations to run in inference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

import torch
from mmcv.cnn import ConvModule
from mmengine.logging import print_log
from timm.layers import DropPath
from timm.models.convnext import ConvNeXtBlock
from timm.models.eva import EvaBlock
from timm.models.vision_transformer import Block as TimmBlock
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from piip_mm.models.backbone import Backbone
from piip_mm.models.interaction import Injector
from piip_mm.models.layers import Block, DeformableCrossAttention
from piip_mm.models.merging import BranchMerge

from .laterals import join_laterals


def fuse(model: nn.Module) -> nn.Module:
    """Fuse consecutive linear operations of a trained model, in place.

    The outputs stay the same, up to rounding:

    - The last transposed convolution of a pyramid level and the 1x1 convolution behind it
      (of mmdet's ``FPN`` or ``ChannelMapper``, or mmseg's ``UPerHead``) become one
      transposed convolution to the width of the neck.
    - BatchNorms become part of the convolutions before them, in mmcv's ``ConvModule``.
    - Layer scales and the scales of interactions become part of the linear layers before
      them, and the scalars of merges, if not negative, part of the GroupNorms.

    Fuse last, after the weights have been loaded: a fused model refuses others, and its
    own state dict fits no config. It is for inference only: it is in evaluation mode, and
    because its parameters require no gradients, a training step fails in the backward
    pass, without a mode of its own that every module would have to know. Fusing a model
    again changes nothing.

    Args:
        model: ``PIIP`` or ``ViTPyramid``, or a detector, segmentor or classifier with one
            of them as its ``backbone``. On the meta device, where the signs of the
            scalars of merges are unknown, these stay.

    Returns:
        The model itself.

    Raises:
        ValueError: If the model has no such backbone.
    """
    backbone = find_backbone(model)
    model.eval()
    with torch.no_grad():
        for module in list(model.modules()):
            if isinstance(module, ConvModule):
                _fold_batch_norm(module)
        if backbone.out_type == 'pyramid':
            joined = join_laterals(model, backbone.pyramid)
            levels = len(backbone.pyramid.levels)
            print_log(
                f'Fused: {joined} of {levels} levels of the pyramid joined with the 1x1 '
                'convolutions that read them',
                logger='current',
            )
        for module in list(backbone.modules()):
            for name, layer in _scales(module):
                _fold_scale(module, name, layer)
            if isinstance(module, BranchMerge):
                _fold_scalars(module)
            for name, child in module.named_children():
                if isinstance(child, DropPath):
                    setattr(module, name, nn.Identity())
    for part in (backbone, model):
        part.register_load_state_dict_pre_hook(_refuse_weights)
    # Includes what took the places of other modules.
    return model.eval().requires_grad_(False)


def find_backbone(model: nn.Module) -> Backbone:
    """The backbone of a model, or the model itself if it is one.

    Raises:
        ValueError: If it is not one of this package.
    """
    backbone = getattr(model, 'backbone', model)
    if not isinstance(backbone, Backbone):
        raise ValueError(
            f'only models whose backbone is PIIP or ViTPyramid can be fused, got '
            f'{type(model).__name__}'
            + (f' with {type(backbone).__name__}' if backbone is not model else '')
        )
    return backbone


def _fold_batch_norm(layer: Any) -> None:
    """Fold the BatchNorm of a ``ConvModule`` into its convolution."""
    norm = layer.norm
    if (
        isinstance(norm, _BatchNorm)
        and norm.running_mean is not None
        and layer.order[:2] == ('conv', 'norm')
        # Derived ones, and spectral norm, compute their weights anew in each call.
        and type(layer.conv) is nn.Conv2d
        and not layer.with_spectral_norm
    ):
        layer.turn_on_efficient_conv_bn_eval(False)
        layer.conv = fuse_conv_bn_eval(layer.conv, norm)
        setattr(layer, layer.norm_name, nn.Identity())


def _scales(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Names of the scales of a block or injector, and the layers whose results they
    multiply."""
    match module:
        case Block() | TimmBlock():
            yield 'ls1', module.attn.proj
            yield 'ls2', module.mlp.fc2
        case EvaBlock():
            yield 'gamma_1', module.attn.proj
            yield 'gamma_2', module.mlp.fc2
        case ConvNeXtBlock():
            yield 'gamma', module.mlp.fc2
        case Injector():
            attn: Any = module.attn
            is_deform = isinstance(attn, DeformableCrossAttention)
            yield 'gamma_attn', attn.output_proj if is_deform else attn.proj
            if module.ffn is not None:
                yield 'gamma_ffn', module.ffn.fc2


def _fold_scale(module: nn.Module, name: str, layer: Any) -> None:
    """Multiply a linear layer, or 1x1 convolution, by a scale, and remove the scale.

    Args:
        module: Module that has the scale.
        name: Name of the scale: a parameter or a module ``LayerScale``; None and an
            identity mean that there is none.
        layer: Layer whose result is scaled.
    """
    scale = getattr(module, name)
    gamma = getattr(scale, 'gamma', scale)
    if not isinstance(gamma, Tensor):
        return
    layer.weight.mul_(gamma.view(-1, *[1] * (layer.weight.ndim - 1)))
    if layer.bias is not None:
        layer.bias.mul_(gamma)
    setattr(module, name, None if scale is gamma else nn.Identity())


def _fold_scalars(merge: BranchMerge) -> None:
    """Fold the scalars of a merge into the norms in front of its ReLUs, with which only
    the multiplication by a positive number can change places."""
    for name, scalar in list(merge.scales.items()):
        if not scalar.is_meta and scalar >= 0:
            layers: Any = merge.branches[name]
            norm = layers[-2]
            norm.weight.mul_(scalar)
            norm.bias.mul_(scalar)
            del merge.scales[name]


def _refuse_weights(module: nn.Module, *_: Any) -> NoReturn:
    """State-dict pre-hook: without it, what loads weights that need not fit completely,
    as MMEngine's inferencers do, would run a model with neither old nor new weights.

    Raises:
        ValueError: Always.
    """
    raise ValueError(
        f'this {type(module).__name__} is fused and can no longer load weights; load the '
        'checkpoint into a model built from the config, then call piip_mm.deploy.fuse'
    )
