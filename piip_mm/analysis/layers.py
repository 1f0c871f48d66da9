"""Counting rules of single layers, in multiply-adds for one image."""

from __future__ import annotations

from collections.abc import Iterable

from timm.layers import LayerNorm2d
from torch import nn

from .conventions import Convention


def num_params(module: nn.Module) -> int:
    """Number of parameters, trained or frozen."""
    return sum(p.numel() for p in module.parameters())


def linear_flops(layer: nn.Linear | nn.Conv2d, num_tokens: int) -> int:
    """A linear layer, or one written as 1x1 convolution; the bias is not counted."""
    return num_tokens * layer.weight.numel()


def conv_flops(layer: nn.Conv2d, num_pixels: int) -> int:
    """A convolution with ``num_pixels`` output pixels; the bias is counted."""
    per_pixel = layer.weight[0].numel() + (layer.bias is not None)
    return num_pixels * layer.out_channels * per_pixel


def norm_flops(norm: nn.Module, num_tokens: int) -> int:
    """A LayerNorm, or the identity where an option leaves the norm out."""
    return 2 * num_tokens * norm.weight.numel() if isinstance(norm, nn.LayerNorm) else 0


def map_flops(
    layers: Iterable[nn.Module],
    channels: int,
    grid: tuple[int, int],
    convention: Convention,
) -> int:
    """Layers that work on a map one after the other.

    Args:
        layers: What the merge and the pyramid are made of.
        channels: Of the input.
        grid: (H, W) of the input.
        convention: Decides about LayerNorms over channels.

    Raises:
        TypeError: If there is no rule for a layer.
    """
    flops = 0
    height, width = grid
    for layer in layers:
        pixels = height * width
        match layer:
            case nn.Conv2d():
                # All have 'same' padding.
                flops += conv_flops(layer, pixels)
                channels = layer.out_channels
            case nn.ConvTranspose2d():
                flops += pixels * layer.weight.numel()
                height, width = height * layer.stride[0], width * layer.stride[1]
                channels = layer.out_channels
                if layer.bias is not None:
                    flops += height * width * channels
            case LayerNorm2d():
                flops += convention.map_layer_norm * 2 * pixels * channels
            case nn.GroupNorm():
                flops += 2 * pixels * channels
            case nn.ReLU():
                flops += pixels * channels
            case nn.MaxPool2d(stride=int(stride)):
                flops += pixels * channels
                height, width = height // stride, width // stride
            case nn.GELU() | nn.Identity():
                pass
            case _:
                raise TypeError(f'no counting rule for {layer}')
    return flops
