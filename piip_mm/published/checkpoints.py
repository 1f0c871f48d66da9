"""Whole checkpoints of the published code: backbone and heads.

mmdet 3 splits DINO into different modules than mmdet 2, so its parameters are renamed;
those of Mask R-CNN, Cascade R-CNN and UperNet have the same names in both.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from torch import Tensor, nn

from piip_mm.models import PIIP
from piip_mm.models.backbone import Backbone
from piip_mm.models.published_names import is_published_backbone, rename_under
from piip_mm.weights.rename import Rule, rename_state_dict

_PREFIX = 'backbone.'
# Prefix in published classifiers, whose backbone is the model itself.
_CLASSIFIER_PREFIX = 'branch1.'
_AS_IT_IS: Rule = (r'.+', r'\g<0>')

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


def is_published(names: Collection[str]) -> bool:
    """Whether the names are those of a model of the published PIIP code."""
    backbone = [name.removeprefix(_PREFIX) for name in names if name.startswith(_PREFIX)]
    return is_published_backbone(backbone) or _is_classifier(names)


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
    return rename_state_dict(
        state_dict, _rules(state_dict, model, _backbone(model).published_rules())
    )


def rename_heads(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Translate a published model except for its backbone, whose names begin with
    'backbone.' afterwards; see :func:`convert_published`."""
    return rename_state_dict(state_dict, _rules(state_dict, model, [_AS_IT_IS]))[0]


def _rules(
    names: Collection[str], model: nn.Module, backbone_rules: Sequence[Rule]
) -> list[Rule]:
    if _is_classifier(names):
        return classifier_rules(_backbone(model), backbone_rules)
    backbone: Rule = (
        r'backbone\.(.+)',
        lambda m: rename_under(_PREFIX, m[1], backbone_rules),
    )
    return [backbone, *_DINO_RULES]


def classifier_rules(backbone: Backbone, backbone_rules: Sequence[Rule]) -> list[Rule]:
    """Rules that map the names of a published classifier to those of mmpretrain's
    ``ImageClassifier`` with a backbone and a head of this package."""
    rest: Rule = (r'.+', lambda m: rename_under(_PREFIX, m[0], backbone_rules))
    if not isinstance(backbone, PIIP):
        return [
            (r'norm\.(.+)', r'head.norms.0.\1'),
            (r'head\.(.+)', r'head.classifiers.0.\1'),
            rest,
        ]
    num_branches = len(backbone.branches)
    # Inside a projection: norm, permutation, linear layer, permutation, norm.
    layers = {'0': 'norm1.', '2': 'linear.', '4': 'norm2.', None: ''}
    parts = {'norm': 'norms', 'head': 'classifiers'}
    return [
        (
            r'branch(\d)\.(norm|head)\.(.+)',
            lambda m: f'head.{parts[m[2]]}.{num_branches - int(m[1])}.{m[3]}',
        ),
        (
            r'merge_branch(\d)\.(?:([024])\.)?(.+)',
            lambda m: f'head.branches.{num_branches - int(m[1])}.{layers[m[2]]}{m[3]}',
        ),
        (r'w(\d)', lambda m: f'head.scales.{num_branches - int(m[1])}'),
        (r'cls_norm\.(.+)', r'head.norm.\1'),
        (r'cls_head\.(.+)', r'head.classifier.\1'),
        rest,
    ]


def _is_classifier(names: Collection[str]) -> bool:
    return any(name.startswith(_CLASSIFIER_PREFIX) for name in names)


def _backbone(model: nn.Module) -> Backbone:
    backbone = model.get_submodule('backbone')
    if not isinstance(backbone, Backbone):
        raise ValueError(
            'the weights are of a published PIIP model, but the backbone of the config '
            f'is {type(backbone).__name__}; use the config of that model'
        )
    return backbone
