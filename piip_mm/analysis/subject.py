"""What a benchmark runs: a part of a model on random images, forward or in training."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import lcm
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn

from piip_mm.checks import check_choice
from piip_mm.config_types import describes
from piip_mm.deploy import compile_model, fuse
from piip_mm.models.backbone import Backbone
from piip_mm.models.layers import DeformableCrossAttention

from .measure import (
    Size,
    branch_images,
    check_backbone,
    configured_shape,
    copy_to_meta,
    count_flops,
)
from .plain import copy_with_shared_tensors, plain_reference
from .samples import random_inputs
from .timing import Methods, precision

#: What is run: the backbone, backbone and neck, or the whole model.
PARTS = ('backbone', 'neck', 'model')

#: A forward pass without gradients, or forward and backward without the optimizer.
MODES = ('forward', 'training')

_CPU = torch.device('cpu')


@dataclass(frozen=True, kw_only=True)
class Variant:
    """How a model is run.

    Attributes:
        part: One of :data:`PARTS`.
        mode: One of :data:`MODES`.
        batch_size: Images at once.
        shape: (H, W) of the images in pixels; None for the ``img_size`` of the config.
        dtype: Type of autocast; float32 for none.
        device: Where it runs.
        plain: Whether it is the plain reference, see :mod:`piip_mm.analysis.plain`.
        fused: Whether it is fused, see :func:`piip_mm.deploy.fuse`.
        compile_mode: Mode of ``torch.compile``; None runs it eagerly.
        backend: Backend of deformable attention; None for that of the config.
    """

    part: str = 'backbone'
    mode: str = 'forward'
    batch_size: int = 1
    shape: Size | None = None
    dtype: torch.dtype = torch.float32
    device: torch.device = _CPU
    plain: bool = False
    fused: bool = False
    compile_mode: str | None = None
    backend: str | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        check_choice('part', self.part, PARTS)
        check_choice('mode', self.mode, MODES)
        if self.fused and self.mode == 'training':
            raise ValueError('a fused model cannot be trained; use mode=forward')


class BackboneAndNeck(nn.Module):
    """The parts of a model that see whole images.

    Args:
        backbone: Backbone.
        neck: Neck; None for the backbone alone.
    """

    def __init__(self, backbone: nn.Module, neck: nn.Module | None) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images (B, C, H, W) to maps."""
        maps = self.backbone(images)
        return maps if self.neck is None else self.neck(maps)


@dataclass
class Subject:
    """Something to be measured.

    Attributes:
        network: The module that is run.
        step: Runs it once.
        flops: Multiply-adds of a step; None if they depend on what is detected.
        shape: (H, W) of the images in pixels.
        branches: Number of branches.
    """

    network: nn.Module
    step: Callable[[], Any]
    flops: int | None
    shape: Size
    branches: int


def build_model(cfg: Config, seed: int = 0) -> nn.Module:
    """Build the model of a config with random weights, none of them zero.

    Scales that start at zero would hide what two variants compute differently.
    """
    init_default_scope(cfg.default_scope)
    if not describes(cfg.model.get('backbone', {}), MODELS, Backbone):
        raise ValueError(
            f'model.backbone={cfg.model.get("backbone")}: expected a PIIP or ViTPyramid'
        )
    torch.manual_seed(seed)
    model = MODELS.build(cfg.model)
    with torch.no_grad():
        for param in model.parameters():
            if not param.any():
                param.normal_(std=0.02)
    return model


def scaled_shape(model: nn.Module, shape: Size | None, scale: float) -> Size:
    """The size of the input of a model times a factor, rounded to a multiple, at least
    one, of what the model pads images to.

    Args:
        model: From :func:`build_model`.
        shape: (H, W) before; None for the ``img_size`` of the config.
        scale: Factor of both sides.
    """
    backbone = check_backbone(model.get_submodule('backbone'))
    preprocessor = getattr(model, 'data_preprocessor', None)
    # mmdet and mmpretrain have the first of these, mmseg the second.
    names = ('pad_size_divisor', 'size_divisor')
    paddings = [getattr(preprocessor, name, None) or 1 for name in names]
    # Pixels that do not fill a patch would be dropped.
    divisor = lcm(*paddings, backbone.branch_list[0].min_size)
    height, width = (
        max(round(side * scale / divisor), 1) * divisor
        for side in shape or configured_shape(backbone)
    )
    return height, width


def build_subject(model: nn.Module, scope: str, variant: Variant) -> Subject:
    """Prepare a variant of a model.

    Args:
        model: From :func:`build_model`; the variants share its parameters.
        scope: ``default_scope`` of its config, by which whole models get their samples.
        variant: How to run it.
    """
    model.to(variant.device)
    if variant.plain:
        model = plain_reference(model)
    elif variant.fused:
        # Fusing changes the parameters.
        model = fuse(copy.deepcopy(model))
    else:
        model = copy_with_shared_tensors(model)
    backbone = check_backbone(model.get_submodule('backbone'))
    shape = variant.shape or configured_shape(backbone)
    training = variant.mode == 'training'
    if not variant.fused:
        model.train(training)
    if variant.backend is not None:
        for module in model.modules():
            if isinstance(module, DeformableCrossAttention):
                module.backend = variant.backend
    flops = None
    if variant.part == 'model':
        network = model
        inputs = random_inputs(scope, model, variant.batch_size, shape)
        run = partial(model, **inputs, mode='loss' if training else 'predict')
    else:
        neck = getattr(model, 'neck', None) if variant.part == 'neck' else None
        network = BackboneAndNeck(backbone, neck)
        meta = copy_to_meta(network)
        passes = variant.batch_size * (3 if training else 1)
        flops = count_flops(meta, branch_images(meta.backbone, shape)) * passes
        channels = backbone.branch_list[0].in_channels
        torch.manual_seed(0)
        images = torch.randn(variant.batch_size, channels, *shape, device=variant.device)
        run = partial(network, images)
    if variant.compile_mode is not None:
        compile_model(network, variant.compile_mode)
    step = _training_step if training else _forward
    return Subject(
        network=network,
        step=partial(step, run, network, variant),
        flops=flops,
        shape=shape,
        branches=len(backbone.branch_list),
    )


def _forward(run: Callable[[], Any], network: nn.Module, variant: Variant) -> Any:
    with torch.no_grad(), precision(variant.device, variant.dtype):
        return run()


def _training_step(run: Callable[[], Any], network: nn.Module, variant: Variant) -> None:
    with precision(variant.device, variant.dtype):
        out = run()
    if isinstance(network, BackboneAndNeck):
        loss = torch.stack([x.float().square().mean() for x in out]).sum()
    else:
        loss, _ = network.parse_losses(out)  # type: ignore[operator]
    loss.backward()
    network.zero_grad()


def max_difference(subject: Subject, other: Subject) -> float:
    """Largest difference between the maps of two forward steps, over their maximum."""
    return max(
        float((a - b).abs().max() / b.abs().max())
        for a, b in zip(subject.step(), other.step(), strict=True)
    )


def network_parts(network: nn.Module) -> Methods:
    """The methods that the parts of a network consist of, by part."""
    backbone: Any = check_backbone(network.get_submodule('backbone'))
    parts: Methods = {
        f'branch {index}': [(branch, 'embed'), (branch, 'run')]
        for index, branch in enumerate(backbone.branch_list)
    }
    for name in ('interactions', 'merges', 'pyramid'):
        module = getattr(backbone, name, None)
        if module is not None:
            calls = module if isinstance(module, nn.ModuleList) else [module]
            parts[name] = [(call, 'forward') for call in calls]
    neck = getattr(network, 'neck', None)
    if neck is not None:
        parts['neck'] = [(neck, 'forward')]
    return parts
