"""What became of the tensors of a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

# In DINO: takes the encoded reference points, 2 C wide in mmdet and 4 C in its fork.
_REF_POINT_HEAD = 'decoder.ref_point_head.layers.0.weight'
_FORKED_DINO = (
    '; the DINO of onedl-mmdetection encodes reference points at twice the width of '
    "mmdet's: load the file with the package that it was made for (mmdet 3.3.0 for "
    'published checkpoints)'
)


@dataclass
class LoadReport:
    """What became of the tensors of a file and of the parameters of a model.

    Attributes:
        loaded: Names in both, of equal shape.
        resized: Names in the file, and their shapes before and after.
        dropped: Names in the file that nothing reads.
        missing: Names of parameters that the file does not have.
        left_over: Names in the file that the model does not have.
        mismatched: Names in both, and their different shapes.
    """

    loaded: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)

    @property
    def misfits(self) -> list[str]:
        """Parameters without a tensor, and tensors without a parameter."""
        return [*self.missing, *self.left_over, *self.mismatched]

    def summary(self) -> str:
        """One line with the numbers and the first names."""
        parts = [f'{len(self.loaded)} tensors loaded']
        for title, names in self._unusual().items():
            shown = ', '.join(names[:6]) + (', ...' if len(names) > 6 else '')
            parts.append(f'{title}: {len(names)} ({shown})')
        return ', '.join(parts)

    def __str__(self) -> str:
        lines = [f'{len(self.loaded)} tensors fit the model']
        for title, names in self._unusual().items():
            lines += [f'{len(names)} {title}:', *(f'  {name}' for name in names[:20])]
            if len(names) > 20:
                lines.append(f'  ... and {len(names) - 20} more')
        return '\n'.join(lines)

    def _unusual(self) -> dict[str, list[str]]:
        """Names by what became of them, apart from those that were simply loaded."""
        titles = ('resized', 'missing', 'left over', 'mismatched', 'dropped')
        named = {title: getattr(self, title.replace(' ', '_')) for title in titles}
        return {title: names for title, names in named.items() if names}


def compare(state_dict: Mapping[str, Tensor], model: Any) -> LoadReport:
    """Compare the names and shapes of a state dict with those of a model."""
    expected = model.state_dict()
    report = LoadReport(missing=[name for name in expected if name not in state_dict])
    for name, tensor in state_dict.items():
        if name not in expected:
            report.left_over.append(name)
        elif expected[name].shape != tensor.shape:
            here = tuple(expected[name].shape)
            reason = _FORKED_DINO if name == _REF_POINT_HEAD else ''
            report.mismatched.append(
                f'{name}: {tuple(tensor.shape)} in the file, {here} here{reason}'
            )
        else:
            report.loaded.append(name)
    return report
