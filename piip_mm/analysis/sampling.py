"""The calls of the sampling core of deformable attention in a network, to be measured by
themselves.

Shapes: B batch, Q queries, N value tokens, M heads, D channels per head, P points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from piip_mm.models.layers import DeformableCrossAttention, token_centres
from piip_mm.ops import deformable_attention

from .measure import Size, branch_images, copy_to_meta

#: Standard deviation of the distance of a sample from its query, in tokens of the values.
#: Samples lie near their query, as those of a network do, which matters to caches.
OFFSET = 2.0


@dataclass(frozen=True)
class CallShape:
    """Shape of a call for one image; the grids are (H, W) in tokens."""

    query_grid: Size
    value_grid: Size
    heads: int
    dims: int
    points: int


@dataclass(frozen=True)
class SamplingCall:
    """Inputs of a call of :func:`piip_mm.ops.deformable_attention`, which need gradients,
    and the gradient of its output."""

    value: Tensor
    value_grid: Size
    locations: Tensor
    weights: Tensor
    out_gradient: Tensor

    def run(self, backend: str) -> Tensor:
        """Forward."""
        return deformable_attention(
            self.value, self.value_grid, self.locations, self.weights, backend
        )

    def num_bytes(self, mode: str) -> int:
        """What has to be moved at least, each tensor once per pass: inputs read, output
        written; and in training inputs and the gradient of the output read, gradients of
        the inputs written."""
        inputs = sum(x.nbytes for x in (self.value, self.locations, self.weights))
        out = self.out_gradient.nbytes
        return inputs + out if mode == 'forward' else 3 * inputs + 2 * out


def find_calls(backbone: nn.Module, shape: Size) -> list[CallShape]:
    """Shapes of the calls in a forward pass, run on the meta device.

    Args:
        backbone: Backbone.
        shape: (H, W) of the images in pixels.

    Raises:
        ValueError: If it has no deformable attention.
    """
    meta = copy_to_meta(backbone)
    calls: list[CallShape] = []

    def record(layer: Any, args: tuple[Any, ...]) -> None:
        _, _, query_grid, value_grid = args
        dims = layer.value_proj.out_features // layer.num_heads
        calls.append(
            CallShape(query_grid, value_grid, layer.num_heads, dims, layer.num_points)
        )

    for layer in meta.modules():
        if isinstance(layer, DeformableCrossAttention):
            layer.register_forward_pre_hook(record)
    with torch.no_grad():
        meta(branch_images(meta, shape))
    if not calls:
        raise ValueError(
            'the backbone has no deformable attention; expected a PIIP with interactions '
            "of attn='deform'"
        )
    return calls


def random_call(
    shape: CallShape, batch_size: int, dtype: torch.dtype, device: torch.device
) -> SamplingCall:
    """Inputs as :class:`DeformableCrossAttention` makes them under autocast to ``dtype``:
    values of this type, locations and weights in float32."""
    heads, points = shape.heads, shape.points
    tokens = shape.value_grid[0] * shape.value_grid[1]
    value = torch.randn(batch_size, tokens, heads, shape.dims, dtype=dtype, device=device)
    size = torch.tensor(shape.value_grid[::-1], dtype=torch.float32, device=device)
    centres = token_centres(shape.query_grid, size)[:, None, None]
    queries = centres.shape[0]
    per_point = (batch_size, queries, heads, points)
    offsets = OFFSET * torch.randn(*per_point, 2, device=device)
    locations = centres + offsets / size
    weights = torch.randn(per_point, device=device).softmax(-1)
    out_gradient = torch.randn(
        batch_size, queries, heads * shape.dims, dtype=dtype, device=device
    )
    for tensor in (value, locations, weights):
        tensor.requires_grad_()
    return SamplingCall(value, shape.value_grid, locations, weights, out_gradient)


def run_calls(calls: Sequence[SamplingCall], backend: str, mode: str) -> None:
    """Run all calls, with their backward passes in mode 'training'."""
    for call in calls:
        with torch.set_grad_enabled(mode == 'training'):
            out = call.run(backend)
        if mode == 'training':
            inputs = (call.value, call.locations, call.weights)
            torch.autograd.grad(out, inputs, call.out_gradient)
