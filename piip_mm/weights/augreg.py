"""Weights of the original AugReg release (arXiv 2106.10270): arrays saved from JAX."""

from __future__ import annotations

from math import isqrt
from pathlib import Path

import numpy as np
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

_HEADS = 'Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/bias'
_HIDDEN = '/MlpBlock_3/Dense_0/bias'

# What NumPy, timm and the lines below raise on something else than these arrays.
_OTHER_CONTENT = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    RuntimeError,
    TypeError,
    ValueError,
)


def read_augreg(path: Path) -> dict[str, Tensor]:
    """Read an ``.npz`` file with timm's loader, into timm's names and layouts.

    Raises:
        ValueError: If the file does not contain a vision transformer with a class token
            and a square position embedding; arrays of Python objects are not read.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            for name, array in file.items():
                shapes[name.removeprefix('opt/target/')] = array.shape
                if array.ndim and array.dtype.kind != 'f':
                    raise TypeError(f'{name} has the type {array.dtype}, not float')
        patch_size, _, in_channels, dims = shapes['embedding/kernel']
        _, num_rows, _ = shapes['Transformer/posembed_input/pos_embedding']
        hidden = [shape[0] for name, shape in shapes.items() if name.endswith(_HIDDEN)]
        model = VisionTransformer(
            img_size=patch_size * isqrt(num_rows - 1),
            patch_size=patch_size,
            in_chans=in_channels,
            embed_dim=dims,
            depth=len(hidden),
            num_heads=shapes[_HEADS][0],
            mlp_ratio=hidden[0] / dims,
            num_classes=shapes.get('head/bias', (0,))[0],
        )
        model.load_pretrained(str(path))
    except (KeyError, IndexError) as error:
        raise ValueError(
            f'{path} has no array {error}; expected a vision transformer of the AugReg '
            'release'
        ) from error
    except _OTHER_CONTENT as error:
        raise ValueError(
            f'{path} does not hold the arrays of a vision transformer of the AugReg '
            f'release ({error}); for other networks, use a file of PyTorch'
        ) from error
    return model.state_dict()
