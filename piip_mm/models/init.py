"""Initial values of new layers."""

from __future__ import annotations

import math

from torch import nn

from .layers import DeformableCrossAttention


def init_new_layers(module: nn.Module) -> None:
    """Initialise everything below ``module`` that has no pretrained weights.

    Linear layers: normal with standard deviation 0.02, truncated at -2 and 2;
    convolutions: normal with variance 2 / fan-out (He et al., arXiv 1502.01852); biases:
    zero. Deformable attention keeps its own initialisation.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
        elif isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            area = layer.kernel_size[0] * layer.kernel_size[1]
            fan_out = area * layer.out_channels // layer.groups
            nn.init.normal_(layer.weight, std=math.sqrt(2.0 / fan_out))
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    for layer in module.modules():
        if isinstance(layer, DeformableCrossAttention):
            layer.reset_parameters()
