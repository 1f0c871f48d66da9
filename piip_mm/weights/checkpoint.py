"""Checkpoints of whole models in the layouts of the published PIIP code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from .published.classification import convert_classifier
from .published.heads import rename_head
from .published.names import backbone_rules
from .rename import rename

_PREFIX = 'backbone.'
# Names that the published backbones have and ours do not: of several branches, of a ViT
# alone, of a ConvNeXt alone.
_PUBLISHED_NAMES = ('backbone.branch1.', 'backbone.up1.', 'backbone.convnext_model.')
# Name that the published classifiers have, which come without a prefix.
_CLASSIFIER_NAME = 'branch1.'
# In DINO: takes the encoded reference points, 2 C wide in mmdet and 4 C in its fork.
_REF_POINT_HEAD = 'decoder.ref_point_head.layers.0.weight'
_FORKED_DINO = (
    '; the DINO of onedl-mmdetection encodes reference points at twice the width of the '
    'one of mmdet: load the file with the package that it was made for (mmdet 3.3.0 for '
    'published checkpoints)'
)


@dataclass
class Fit:
    """How the tensors of a checkpoint fit a model."""

    matching: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether every parameter has its tensor and no tensor is left over."""
        return not (self.missing or self.left_over or self.mismatched)

    def __str__(self) -> str:
        lines = [f'{len(self.matching)} tensors fit the model']
        for title in ('missing', 'left over', 'mismatched', 'dropped'):
            names = getattr(self, title.replace(' ', '_'))
            if names:
                shown = (
                    names[:20] + [f'... and {len(names) - 20} more'][: len(names) > 20]
                )
                lines += [f'{len(names)} {title}:', *(f'  {name}' for name in shown)]
        return '\n'.join(lines)


def is_published(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of a model of the published PIIP code."""
    return any(
        name.startswith((*_PUBLISHED_NAMES, _CLASSIFIER_NAME)) for name in state_dict
    )


def convert_published(
    state_dict: Mapping[str, Tensor], model: nn.Module
) -> tuple[dict[str, Tensor], list[str]]:
    """Translate a published model's weights for a model of ours.

    Names that fit no rule stay as they are, so that comparing with the model reports
    them.

    Args:
        state_dict: Published names to tensors.
        model: Detector, segmentor or classifier with a :class:`PIIP` or
            :class:`ViTPyramid` as its backbone.

    Returns:
        Our names to the same tensors, and the published names that nothing reads.

    Raises:
        ValueError: If the model has another backbone.
    """
    if any(name.startswith(_CLASSIFIER_NAME) for name in state_dict):
        return convert_classifier(state_dict, model)
    rules = backbone_rules(model.get_submodule('backbone'))
    converted, dropped = {}, []
    for name, tensor in state_dict.items():
        if not name.startswith(_PREFIX):
            converted[rename_head(name)] = tensor
            continue
        try:
            new_name = rename(name.removeprefix(_PREFIX), rules)
        except ValueError:
            new_name = name.removeprefix(_PREFIX)
        if new_name is None:
            dropped.append(name)
        else:
            converted[_PREFIX + new_name] = tensor
    return converted, dropped


def compare(state_dict: Mapping[str, Tensor], model: nn.Module) -> Fit:
    """Compare the names and shapes of a state dict with those of a model."""
    own = model.state_dict()
    fit = Fit(missing=[name for name in own if name not in state_dict])
    for name, tensor in state_dict.items():
        if name not in own:
            fit.left_over.append(name)
        elif own[name].shape != tensor.shape:
            shapes = f'{tuple(tensor.shape)} in the file, {tuple(own[name].shape)} here'
            reason = _FORKED_DINO if name == _REF_POINT_HEAD else ''
            fit.mismatched.append(f'{name}: {shapes}{reason}')
        else:
            fit.matching.append(name)
    return fit
