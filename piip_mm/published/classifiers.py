"""The published classifiers: their arguments and the names in their checkpoints."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from torch import nn

from piip_mm.checks import check_choice
from piip_mm.models import PIIP
from piip_mm.models.backbone import Backbone
from piip_mm.weights.rename import Rule, rename

from .arguments import discard, pop_required, refuse_rest, require_values
from .branches import deit_branch, internvit_branch
from .networks import piip_config

#: Type of the migrated configs.
CLASSIFIER = 'mmpretrain.ImageClassifier'

# Defaults of InternViT6B for classification that differ from those for detection.
_INTERNVIT_DEFAULTS = dict(
    patch_size=16, init_values=None, qk_normalization=False, norm_layer_type='ln'
)
_MODEL_TYPES = ('deit', 'augreg')


def _network(kwargs: dict[str, Any], num_branches: int) -> dict[str, Any]:
    """Config of a published classifier of two, three or four branches."""
    separate = kwargs.pop('separate_head', False)
    num_classes = kwargs.pop('num_classes', 1000)
    if separate:
        # Only used with the merged head.
        discard(kwargs, 'use_cls_head')
    require_values(kwargs, use_cls_head=True)
    classes, norms = [], []
    for k in range(num_branches, 0, -1):
        branch = kwargs[f'branch{k}'] = dict(pop_required(kwargs, f'branch{k}'))
        branch.setdefault('img_size', 224)
        branch['real_size'] = branch['pretrain_img_size'] = branch['img_size']
        classes.append(branch.pop('num_classes', 1000))
        norms.append(_final_norm(branch, branch.get('model_type', 'deit')))
        if separate and not branch.get('use_cls_token', True):
            raise ValueError(
                f'separate_head=True, but branch{k} has use_cls_token=False: the '
                'published code cannot run with both'
            )
    backbone = piip_config(kwargs, num_branches, _branch)
    del backbone['out_strides']
    backbone['out_type'] = 'maps'
    in_channels = [branch['arch']['embed_dims'] for branch in backbone['branches']]
    if not separate:
        return _classifier(
            backbone,
            dict(type='PIIPMergedHead', num_classes=num_classes, in_channels=in_channels),
        )
    if len(set(classes)) > 1:
        raise ValueError(
            f'num_classes of the branches are {classes[::-1]}: expected the same number'
        )
    return _classifier(
        backbone,
        dict(
            type='PIIPSeparateHead',
            num_classes=classes[0],
            in_channels=in_channels,
            # The published code classifies the first token after the class token.
            token='first_patch',
            norm=norms,
        ),
    )


def _single(kwargs: dict[str, Any], model_type: str) -> dict[str, Any]:
    """Config of a published classifier of one branch."""
    require_values(kwargs, use_final_norm_and_head=True, drop_rate=0.0)
    kwargs.setdefault('img_size', 224)
    kwargs['pretrain_img_size'] = kwargs['img_size']
    num_classes = kwargs.pop('num_classes', 1000)
    norm = _final_norm(kwargs, model_type)
    branch = _branch({**kwargs, 'model_type': model_type}, None)
    has_token = branch['with_cls_token']
    # Only this class gives its class token a position.
    branch['cls_pos'] = has_token and model_type == 'augreg'
    backbone = dict(
        type='ViTPyramid',
        branch=branch,
        out_type='cls_tokens' if has_token else 'maps',
    )
    return _classifier(
        backbone,
        dict(
            type='PIIPSeparateHead',
            num_classes=num_classes,
            in_channels=[branch['arch']['embed_dims']],
            token='cls' if has_token else 'mean',
            norm=norm,
        ),
    )


def _branch(kwargs: dict[str, Any], depth: int | None) -> dict[str, Any]:
    """Config of a branch from its arguments and the number of blocks that are run."""
    model_type = kwargs.pop('model_type', 'deit')
    check_choice('model_type', model_type, _MODEL_TYPES)
    with_cls_token = kwargs.pop('use_cls_token', True)
    rate = kwargs.get('drop_path_rate', 0.0)
    if model_type == 'deit':
        config = deit_branch(kwargs, depth)
    else:
        kwargs = {**_INTERNVIT_DEFAULTS, **kwargs}
        config = internvit_branch(kwargs, depth)
        discard(kwargs, 'use_flash_attn', 'layerscale_force_fp32')
        refuse_rest(kwargs, 'an AugReg branch')
    return config | dict(
        with_cls_token=with_cls_token,
        drop_path_rate=rate,
        drop_path_schedule='constant',
    )


def _final_norm(kwargs: dict[str, Any], model_type: str) -> str:
    is_rms = model_type == 'augreg' and kwargs.get('norm_layer_type') == 'RMSNorm'
    return 'RMS' if is_rms else 'LN'


def _classifier(backbone: dict[str, Any], head: dict[str, Any]) -> dict[str, Any]:
    # Registers the heads. They require mmpretrain, which other tasks do not.
    import piip_mm.models.heads  # noqa: F401

    # The prefix lets the config be built in any default scope.
    head['loss'] = dict(type='mmpretrain.CrossEntropyLoss')
    return dict(
        type=CLASSIFIER,
        data_preprocessor=dict(type='mmpretrain.ClsDataPreprocessor'),
        backbone=backbone,
        head=head,
    )


def published_backbone(model: nn.Module) -> Backbone:
    """The backbone of a model that published weights are loaded into.

    Raises:
        ValueError: If it is not a :class:`~piip_mm.models.backbone.Backbone`.
    """
    backbone = model.get_submodule('backbone')
    if not isinstance(backbone, Backbone):
        raise ValueError(
            'the weights are of a published PIIP model, but the backbone of the config '
            f'is {type(backbone).__name__}; use the config of that model'
        )
    return backbone


def classifier_rules(model: nn.Module) -> list[Rule]:
    """Rules that map the names of a published classifier to those of ``model``.

    Args:
        model: mmpretrain's ``ImageClassifier`` with a head of this package, possibly on
            the meta device.

    Raises:
        ValueError: If it has a backbone of another class.
    """
    backbone = published_backbone(model)
    rules = backbone.published_rules()

    def of_backbone(match: re.Match[str]) -> str | None:
        name = rename(match[0], rules)
        return name and f'backbone.{name}'

    if not isinstance(backbone, PIIP):
        return [
            (r'norm\.(.+)', r'head.norms.0.\1'),
            (r'head\.(.+)', r'head.classifiers.0.\1'),
            (r'.+', of_backbone),
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
        (r'.+', of_backbone),
    ]


#: See :data:`piip_mm.published.networks.NETWORK_KINDS`.
CLASSIFIER_KINDS: dict[str, Callable[[dict[str, Any], str], dict[str, Any]]] = {
    'cls.PIIPTwoBranch': lambda kwargs, _: _network(kwargs, 2),
    'cls.PIIPThreeBranch': lambda kwargs, _: _network(kwargs, 3),
    'cls.PIIPFourBranch': lambda kwargs, _: _network(kwargs, 4),
    'cls.vit_models': lambda kwargs, _: _single(kwargs, 'deit'),
    'cls.InternViT6B': lambda kwargs, _: _single(kwargs, 'augreg'),
}
