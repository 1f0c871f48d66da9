"""Reports on how the tensors of a file were used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

# Layer of DINO on encoded reference points, which are 2 C wide in mmdet, 4 C in its fork.
_REF_POINT_HEAD = 'decoder.ref_point_head.layers.0.weight'
_FORKED_DINO = (
    '; the DINO of onedl-mmdetection encodes reference points at twice the width of '
    "mmdet's: load the file with the package that it was made for (mmdet 3.3.0 for "
    'published checkpoints)'
)


@dataclass
class LoadReport:
    """How the tensors of a pretrained file were used for the parameters of a branch."""

    loaded: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        def listed(names: list[str]) -> str:
            shown = ', '.join(names[:6]) + (', ...' if len(names) > 6 else '')
            return f'{len(names)} ({shown})' if names else '0'

        return (
            f'{len(self.loaded)} tensors loaded, resized: {listed(self.resized)}, '
            f'dropped: {listed(self.dropped)}, missing: {listed(self.missing)}'
        )


@dataclass
class FitReport:
    """How the tensors of a checkpoint fit a model."""

    matching: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    @property
    def misfits(self) -> list[str]:
        """Names of parameters without a tensor, and of tensors without a parameter."""
        return [*self.missing, *self.left_over, *self.mismatched]

    def __str__(self) -> str:
        lines = [f'{len(self.matching)} tensors fit the model']
        for title in ('missing', 'left over', 'mismatched', 'dropped'):
            names = getattr(self, title.replace(' ', '_'))
            if names:
                shown = names[:20]
                if len(names) > 20:
                    shown = [*shown, f'... and {len(names) - 20} more']
                lines += [f'{len(names)} {title}:', *(f'  {name}' for name in shown)]
        return '\n'.join(lines)


def compare(state_dict: Mapping[str, Tensor], model: nn.Module) -> FitReport:
    """Compare the names and shapes of a state dict with those of a model."""
    expected = model.state_dict()
    report = FitReport(missing=[name for name in expected if name not in state_dict])
    for name, tensor in state_dict.items():
        if name not in expected:
            report.left_over.append(name)
        elif expected[name].shape != tensor.shape:
            own_shape = tuple(expected[name].shape)
            shapes = f'{tuple(tensor.shape)} in the file, {own_shape} here'
            reason = _FORKED_DINO if name == _REF_POINT_HEAD else ''
            report.mismatched.append(f'{name}: {shapes}{reason}')
        else:
            report.matching.append(name)
    return report
