"""Whole checkpoints of the published code: backbone and heads.

mmdet 3 splits DINO into different modules than mmdet 2, so its parameters are renamed;
those of Mask R-CNN, Cascade R-CNN and UperNet have the same names in both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

from piip_mm.models.published_names import is_published_backbone
from piip_mm.weights.rename import Rule, rename, rename_state_dict

from .classifiers import classifier_rules, published_backbone

_PREFIX = 'backbone.'
# Prefix in published classifiers, whose backbone is the model itself.
_CLASSIFIER_PREFIX = 'branch1.'

_ATTENTIONS = {
    ('encoder', '0'): 'self_attn',
    ('decoder', '0'): 'self_attn',
    ('decoder', '1'): 'cross_attn',
}
# In mmdet 2, DINO's head contains its transformer.
_OLD = r'bbox_head\.transformer\.'


def _attention(match: re.Match[str]) -> str:
    part, layer, number, name = match.groups()
    return f'{part}.layers.{layer}.{_ATTENTIONS[part, number]}.{name}'


_DINO_RULES: list[Rule] = [
    (_OLD + r'level_embeds', 'level_embed'),
    (_OLD + r'query_embed\.(.+)', r'query_embedding.\1'),
    (_OLD + r'enc_output\.(.+)', r'memory_trans_fc.\1'),
    (_OLD + r'enc_output_norm\.(.+)', r'memory_trans_norm.\1'),
    (_OLD + r'(encoder|decoder)\.layers\.(\d+)\.attentions\.([01])\.(.+)', _attention),
    (_OLD + r'((?:en|de)coder\.layers\.\d+)\.ffns\.0\.(.+)', r'\1.ffn.\2'),
    (_OLD + r'((?:en|de)coder\.layers\.\d+\.norms\..+)', r'\1'),
    # Two linear layers; the old numbers count the activation between them.
    (_OLD + r'decoder\.ref_point_head\.0\.(.+)', r'decoder.ref_point_head.layers.0.\1'),
    (_OLD + r'decoder\.ref_point_head\.2\.(.+)', r'decoder.ref_point_head.layers.1.\1'),
    (_OLD + r'(decoder\.norm\..+)', r'\1'),
    (r'bbox_head\.(label_embedding\..+)', r'dn_query_generator.\1'),
]


def is_published(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of a model of the published PIIP code."""
    backbone = [
        name.removeprefix(_PREFIX) for name in state_dict if name.startswith(_PREFIX)
    ]
    return is_published_backbone(backbone) or _is_classifier(state_dict)


def convert_published(
    state_dict: Mapping[str, Tensor], model: nn.Module
) -> tuple[dict[str, Tensor], list[str]]:
    """Translate the weights of a published model to those of ``model``.

    Names that fit no rule stay as they are, so that a comparison with the model reports
    them.

    Args:
        state_dict: Published names to tensors.
        model: Detector, segmentor or classifier with a
            :class:`~piip_mm.models.backbone.Backbone`, possibly on the meta device.

    Returns:
        New names to the same tensors, and the published names that nothing reads.

    Raises:
        ValueError: If the model has a backbone of another class.
    """
    if _is_classifier(state_dict):
        return rename_state_dict(state_dict, classifier_rules(model))
    rules = published_backbone(model).published_rules()

    def of_backbone(match: re.Match[str]) -> str | None:
        name = rename(match[1], rules)
        return name and _PREFIX + name

    return rename_state_dict(
        state_dict, [(re.escape(_PREFIX) + '(.+)', of_backbone), *_DINO_RULES]
    )


def _is_classifier(state_dict: Mapping[str, Tensor]) -> bool:
    return any(name.startswith(_CLASSIFIER_PREFIX) for name in state_dict)
