"""What detectors, segmentors and classifiers need if their backbone is one of ours.

They are classes of other packages, so this is added when a backbone is put into one.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from piip_mm.config_types import base_names
from piip_mm.models.backbone import Backbone
from piip_mm.published.checkpoints import is_published, rename_heads
from piip_mm.weights.state_dict import translate_in_place


def unwrapped(model: Any) -> Any:
    """The model in wrappers: distributed ones, and those of test-time augmentation."""
    while not hasattr(model, 'backbone') and hasattr(model, 'module'):
        model = model.module
    return model


def _equip(model: nn.Module, name: str, child: nn.Module | None) -> None:
    """Module registration hook: prepare a model that gets a backbone of ours."""
    if name != 'backbone' or not isinstance(child, Backbone):
        return
    model.register_load_state_dict_pre_hook(_translate_published)
    if base_names(type(model), 'mmdet'):
        # mmcv's operators refuse bfloat16 otherwise; mmdet is already imported.
        import piip_mm.models.detection  # noqa: F401


def _translate_published(
    model: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any
) -> None:
    """State-dict pre-hook: translate a published model's heads in place, before its
    backbone translates itself. Whatever loads the model, MMEngine's inferencers included,
    then takes the files that the tools take.

    Raises:
        ValueError: If the file has no weights, or none of this model.
    """
    translate = partial(rename_heads, model=model)
    translate_in_place(model, state_dict, prefix, is_published, translate)


register_module_module_registration_hook(_equip)
