"""Parameters and FLOPs by part, from a forward pass on the meta device.

PyTorch's FLOP counter sees every operator and the modules that it runs in, so that a new
branch family, head or layer needs no code here.
"""

from __future__ import annotations

import copy
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, conv_flop

from piip_mm.config_types import describes
from piip_mm.models.backbone import Backbone
from piip_mm.models.branches import Branch
from piip_mm.models.layers import DeformableCrossAttention

aten = torch.ops.aten

#: (H, W) in pixels.
Size = tuple[int, int]

#: Part of everything that belongs to no named part.
OTHER = 'other'


@dataclass(frozen=True)
class Count:
    """Number of parameters, and of multiply-adds for one image."""

    params: int = 0
    flops: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(self.params + other.params, self.flops + other.flops)


#: Counts of the parts by name.
Parts = dict[str, Count]

#: FLOPs by module, including what it contains, then by operator.
Flops = dict[str, Counter]


def _per_value(number: int) -> Any:
    """Rule of an operator with this number of FLOPs for each value of its input."""
    return lambda x, *args, **kwargs: 2 * number * prod(x)


def _convolution(x: Any, weight: Any, bias: Any, *options: Any, out_shape: Any) -> int:
    products = conv_flop(x, weight, bias, *options, out_val=out_shape)
    return products + 2 * prod(out_shape) * (bias is not None)


def _sampling(*args: Any, out_shape: Any) -> int:
    # A bilinear sample takes 4 multiply-adds per channel, its weight another one.
    return 2 * 5 * prod(out_shape)


# What PyTorch's counter does not see, or not in full. As in its own rules, arguments are
# shapes and a multiply-add counts as two.
_RULES = {
    aten.convolution: _convolution,
    aten.grid_sampler_2d: _sampling,
    aten.native_layer_norm: _per_value(2),
    aten.native_group_norm: _per_value(2),
    aten.native_batch_norm: _per_value(2),
    aten.relu: _per_value(1),
    aten.relu_: _per_value(1),
    aten.max_pool2d_with_indices: _per_value(1),
    aten.avg_pool2d: _per_value(1),
}
# Batched products are those of attention alone.
_ATTENTION = (aten.bmm, aten.grid_sampler_2d)


def build_on_meta(cfg: Mapping[str, Any]) -> nn.Module:
    """Build a model without memory for its parameters, in evaluation mode.

    Args:
        cfg: Config of a backbone, or of a model that has one.

    Raises:
        ValueError: If the backbone is neither a ``PIIP`` nor a ``ViTPyramid``.
    """
    backbone = cfg.get('backbone', cfg)
    if not describes(backbone, MODELS, Backbone):
        raise _unsupported(backbone.get('type'))
    with torch.device('meta'):
        return MODELS.build(dict(cfg)).eval()


def check_backbone(backbone: nn.Module) -> Backbone:
    """Return the backbone; raise ``ValueError`` if it is none of ours."""
    if not isinstance(backbone, Backbone):
        raise _unsupported(type(backbone))
    return backbone


def _unsupported(kind: Any) -> ValueError:
    name = getattr(kind, '__name__', kind)
    return ValueError(
        f'cannot count a backbone of type {name!r}; supported: PIIP, ViTPyramid'
    )


def configured_shape(backbone: nn.Module) -> Size:
    """Square (H, W) of the ``img_size`` of the (first) branch."""
    size = check_backbone(backbone).branch_list[0].img_size
    return size, size


def copy_to_meta(model: nn.Module) -> Any:
    """Copy a model to the meta device in evaluation mode, without copying its tensors.

    The copy is prepared for :func:`trace`: a backbone takes the list of its branches'
    images, and what a branch computes happens within a call of the branch, where the
    counter sees that it belongs there.
    """
    tensors = [*model.parameters(), *model.buffers()]
    model = copy.deepcopy(model, {id(x): x.detach().to('meta') for x in tensors})
    # PyTorch may run a linear layer as a batched product if its weights are frozen.
    model.eval().requires_grad_()
    for network in _modules(model, Backbone):
        network.forward = network.forward_images
    for branch in _modules(model, Branch):
        branch.embed = partial(branch, branch.embed)
        branch.run = partial(branch, branch.run)
        branch.forward = lambda method, *args: method(*args)
    for layer in _modules(model, DeformableCrossAttention):
        # mmcv's kernel does not run on the meta device.
        layer.backend = 'torch'
    return model


def _modules(model: nn.Module, kind: type[nn.Module]) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, kind)]


def branch_images(backbone: Backbone, shape: Size | None = None) -> list[Tensor]:
    """Images of the branches for an (H, W) input, on the meta device; without a shape,
    square images of the ``img_size`` of each branch."""
    branches = backbone.branch_list
    channels = branches[0].in_channels
    if shape is not None:
        image = torch.empty(1, channels, *shape, device='meta')
        return [backbone.branch_image(image, i) for i in range(len(branches))]
    sizes = [(branch.img_size, branch.img_size) for branch in branches]
    return [torch.empty(1, channels, *size, device='meta') for size in sizes]


def trace(model: nn.Module, images: list[Tensor]) -> tuple[Parts, Flops]:
    """Run a backbone, and a head if there is one, and count them by part.

    Args:
        model: Copy by :func:`copy_to_meta` of a sequence of ``backbone`` and ``head``.
        images: From :func:`branch_images`.

    Returns:
        Counts by part, and the FLOPs by module that they are made of.
    """
    counter = _count(model, images)
    flops: Flops = defaultdict(Counter)
    for path, by_operator in counter.get_flop_counts().items():
        # The first name is the class of the model; 'Global' has the counts of all of it.
        name = path.partition('.')[2]
        flops[name] = Counter({op: twice // 2 for op, twice in by_operator.items()})
    return _by_part(model, flops), flops


def count_flops(model: nn.Module, images: list[Tensor]) -> int:
    """Multiply-adds of a module that takes the images of the branches, see
    :func:`trace`."""
    # PyTorch counts a multiply-add as two.
    return _count(model, images).get_total_flops() // 2


def _count(model: nn.Module, images: list[Tensor]) -> FlopCounterMode:
    with (
        torch.no_grad(),
        # Attention as its two products, which every kernel computes.
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False, custom_mapping=_RULES) as counter,
    ):
        model(images)
    return counter


def _by_part(model: nn.Module, flops: Flops) -> Parts:
    parts: Parts = {}
    for name, _ in model.named_modules():
        if part_of(name) != OTHER:
            # Listed even if there is nothing to count, in the order of the network.
            add(parts, part_of(name))
            add(parts, attention_of(part_of(name)))
    for name, param in model.named_parameters():
        add(parts, part_of(name), params=param.numel())
    rest = flops['']
    counted: list[str] = []
    # Sorted, a module comes before what it contains.
    for name in sorted(flops):
        part = part_of(name)
        if part != OTHER and not name.startswith(tuple(counted)):
            counted.append(f'{name}.')
            rest = rest - flops[name]
            for operator, number in flops[name].items():
                where = attention_of(part) if operator in _ATTENTION else part
                add(parts, where, flops=number)
    if rest:
        add(parts, OTHER, flops=rest.total())
    return parts


def add(parts: Parts, part: str, *, params: int = 0, flops: int = 0) -> None:
    """Add to the count of a part."""
    parts[part] = parts.get(part, Count()) + Count(params, flops)


def total(parts: Parts) -> Count:
    """Sum over the parts."""
    return sum(parts.values(), Count())


def part_of(name: str) -> str:
    """Part that a module or parameter belongs to, by its name in the model."""
    match name.split('.'):
        case ['backbone', 'branches', index, *_]:
            return f'branch {index}'
        case ['backbone', 'merges', _, 'branches' | 'scales', index, *_]:
            return f'merge {index}'
        case ['backbone', 'branch' | 'interactions' | 'pyramid' as part, *_]:
            return part
        case ['head', 'norms' | 'classifiers' | 'branches' | 'scales', index, *_]:
            return f'head {index}'
        case ['head', 'norm' | 'classifier', *_]:
            return 'classifier'
        case _:
            return OTHER


def attention_of(part: str) -> str:
    """Part that has the products, or the samples, of the attention within a part."""
    part = part.replace('branch', 'self-attention')
    return part.replace('interactions', 'sampling core')
