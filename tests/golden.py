"""Recorded outputs of the published PIIP code, see ``tests/data/README.md``."""

from __future__ import annotations

import json
import lzma
from base64 import b64decode
from dataclasses import dataclass, field
from functools import cache, lru_cache
from math import gcd, prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

DATA = Path(__file__).parent / 'data'

#: Bounds relative to the largest absolute value of the reference.
OUTPUT_TOLERANCE = 2e-5
GRAD_TOLERANCE = 1e-4


@dataclass
class Sampled:
    """Every ``step``-th value of a tensor, its shape and its largest absolute value."""

    shape: tuple[int, ...]
    step: int
    values: Tensor
    maximum: float

    @classmethod
    def of(cls, tensor: Tensor, kept: int | None = None) -> Sampled:
        """All values of a tensor, or about ``kept``, spread over all its dimensions."""
        step = max(tensor.numel() // kept, 1) if kept else 1
        while gcd(step, tensor.numel()) > 1:
            step += 1
        values = tensor.flatten()[::step].clone()
        return cls(tuple(tensor.shape), step, values, float(tensor.abs().max()))

    def deviation(self, tensor: Tensor) -> float:
        """Largest difference relative to the reference's largest value."""
        assert tuple(tensor.shape) == self.shape
        difference = tensor.detach().flatten()[:: self.step] - self.values
        return float(difference.abs().max()) / self.maximum


@dataclass
class Case:
    """One published backbone with its weights, an input and what it returned."""

    kind: str
    kwargs: dict
    state_dict: dict[str, Tensor]
    image: Tensor
    outputs: list[Sampled]
    grads: dict[str, Sampled] = field(default_factory=dict)
    loss: float | None = None
    convnext_archs: dict | None = None


# --- Recorded tensors -------------------------------------------------------------------


@lru_cache(maxsize=2)
def stream(seed: int) -> np.ndarray:
    """Numbers of 32 bits of the Mersenne Twister, which NumPy guarantees to stay."""
    numbers = np.random.RandomState(seed).randint(0, 2**32, 2**21, dtype=np.uint32)
    return numbers


def normal(seed: int, offset: int, count: int) -> np.ndarray:
    """16 or more standard normal values as ``torch.randn`` on a CPU draws them.

    Computed here because PyTorch does not promise to draw the same in other versions.
    The largest difference to a recording is 5e-7.
    """
    numbers = stream(seed)[offset : offset + count + 16] & 0xFFFFFF
    # Eight numbers and the next eight give 16 values. The last 16 are drawn anew if some
    # are left.
    rest = count % 16
    pairs = numbers[: count - rest].reshape(-1, 2, 8) / 2**24
    if rest:
        pairs = np.concatenate([pairs, numbers[count:].reshape(1, 2, 8) / 2**24])
    radius = np.sqrt(-2 * np.log(1 - pairs[:, 0]))
    angle = np.float32(2 * np.pi) * pairs[:, 1].astype(np.float32)
    angle = angle.astype(np.float64)
    values = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).flatten()
    return np.concatenate([values[: count - 16], values[-16:]]).astype(np.float32)


def decode(node: Any) -> Any:
    """Tensors and samples of a stored recording; the inverse is in data/compact.py."""
    if isinstance(node, list):
        return [decode(item) for item in node]
    if not isinstance(node, dict):
        return node
    if 'maximum' in node:
        shape, values = tuple(node['shape']), decode(node['values'])
        return Sampled(shape, node['step'], values, node['maximum'])
    if 'seed' in node:
        values = normal(node['seed'], node['offset'], prod(node['shape']))
        values = node['mean'] + node['std'] * values.astype(np.float64)
        return torch.from_numpy(values.astype(np.float32)).view(node['shape'])
    if 'bytes' in node:
        values = np.frombuffer(b64decode(node['bytes']), node['dtype'])
        return torch.from_numpy(values.copy()).view(node['shape'])
    return {key: decode(item) for key, item in node.items()}


# --- Files ------------------------------------------------------------------------------


@cache
def read(name: str) -> Any:
    """A file of ``tests/data`` as stored."""
    return json.loads(lzma.decompress((DATA / f'{name}.json.xz').read_bytes()))


def load(name: str) -> Case:
    """A recorded backbone."""
    return Case(**decode(read(name)))


def load_unit(name: str) -> dict:
    """A recorded module: its ``state_dict``, ``inputs`` and ``outputs``."""
    return decode(read('units')[name])


@dataclass
class Conversion:
    """A pretrained file and the weights of the branch that loaded it."""

    kind: str
    kwargs: dict
    file: str
    expected: dict[str, Tensor]


def load_conversion(name: str, folder: Path) -> Conversion:
    """A recorded conversion of a pretrained file, which is written into ``folder``."""
    stored = decode(read('pretrained')[name])
    file = str(folder / f'{name}.pt')
    torch.save(stored.pop('pretrained'), file)
    return Conversion(file=file, **stored)


def released_names(name: str) -> dict[str, list[int]]:
    """Names and shapes of a released checkpoint."""
    return read('names')[name]


# --- Loss of recorded gradients ---------------------------------------------------------


def loss_of(outputs: tuple[Tensor, ...]) -> Tensor:
    """Loss of the recorded gradients: outputs weighted by a fixed sine wave."""
    total = outputs[0].new_zeros(())
    for index, output in enumerate(outputs):
        phase = torch.arange(output.numel(), dtype=torch.float64) * 0.37 + index
        wave = phase.sin().float().view(output.shape)
        total = total + (output * wave).sum() / wave.numel()
    return total
