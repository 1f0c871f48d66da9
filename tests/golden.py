"""Recorded outputs of the published PIIP code, see ``tests/data/README.md``."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor

DATA = Path(__file__).parent / 'data'
#: Folder with the complete recordings, if available.
FULL = Path(
    os.environ.get(
        'PIIP_MM_GOLDEN', Path(__file__).parents[2] / 'shared/reference/golden'
    )
)

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
    def of(cls, tensor: Tensor, step: int = 1) -> Sampled:
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


def load_full(name: str) -> Case:
    """Load a complete recording, or skip the test."""
    folder = FULL / name
    if not folder.is_dir():
        pytest.skip(f'complete recordings are not here: {folder}')
    config = json.loads((folder / 'config.json').read_text())
    io = torch.load(folder / 'io.pt', weights_only=True)
    return Case(
        kind=config['cls'],
        kwargs=config['kwargs'],
        state_dict=torch.load(folder / 'state_dict.pt', weights_only=True),
        image=io['input'],
        outputs=[Sampled.of(output) for output in io['outputs']],
        grads={name: Sampled.of(grad) for name, grad in io.get('grads', {}).items()},
        loss=float(io['loss']) if 'loss' in io else None,
        convnext_archs=config.get('convnext_configs'),
    )


def load_compact(name: str) -> Case:
    """Load a recording that is part of the repository."""
    stored = torch.load(DATA / f'{name}.pt', weights_only=True)
    stored['outputs'] = [Sampled(**output) for output in stored['outputs']]
    stored['grads'] = {key: Sampled(**grad) for key, grad in stored['grads'].items()}
    return Case(**stored)


def loss_of(outputs: tuple[Tensor, ...]) -> Tensor:
    """Loss of the recorded gradients: outputs weighted by a fixed sine wave."""
    total = outputs[0].new_zeros(())
    for index, output in enumerate(outputs):
        phase = torch.arange(output.numel(), dtype=torch.float64) * 0.37 + index
        wave = phase.sin().float().view(output.shape)
        total = total + (output * wave).sum() / wave.numel()
    return total
