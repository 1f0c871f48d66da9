"""Configs of mmpretrain classifiers from the arguments of the published ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from piip_mm.checks import check_choice

from .arguments import Argument, Table, ignored, only, translate
from .branches import CLASSIFIER_BRANCHES, PlainClass
from .networks import branch_arguments, piip

#: Type of the migrated configs.
CLASSIFIER = 'mmpretrain.ImageClassifier'

_NUM_CLASSES: Table = {'num_classes': Argument('num_classes', 1000)}


def _network(kwargs: Mapping[str, Any], num_branches: int) -> dict[str, Any]:
    """Config of a published classifier of two, three or four branches."""
    separate = kwargs.get('separate_head', False)
    # Only the merged head reads this option.
    use_cls_head = ignored('use_cls_head') if separate else only(use_cls_head=True)
    merged, network = translate(
        kwargs, {**_NUM_CLASSES, **ignored('separate_head'), **use_cls_head}
    )
    given, _ = translate(kwargs, branch_arguments(num_branches))
    for name, branch in given.items():
        network[name] = {**branch, 'real_size': branch.get('img_size', 224)}
    backbone = {**piip(network, num_branches, _choose), 'out_type': 'maps'}
    del backbone['out_strides']
    branches = backbone['branches']
    in_channels = [branch['arch']['embed_dims'] for branch in branches]
    if not separate:
        head = dict(type='PIIPMergedHead', in_channels=in_channels, **merged)
        return _classifier(backbone, head)
    for name, branch in zip(given, branches, strict=True):
        if not branch['with_cls_token']:
            raise ValueError(
                f'separate_head=True, but {name} has use_cls_token=False: the '
                'published code cannot run with both'
            )
    num_classes = [branch.get('num_classes', 1000) for branch in given.values()]
    if len(set(num_classes)) > 1:
        raise ValueError(
            f'num_classes of the branches are {num_classes[::-1]}: expected the same '
            'number'
        )
    head = dict(
        type='PIIPSeparateHead',
        num_classes=num_classes[0],
        in_channels=in_channels,
        # The published code classifies the first token after the class token.
        token='first_patch',
        norm=[branch['arch'].get('norm', 'LN') for branch in branches],
    )
    return _classifier(backbone, head)


def _choose(branch: Mapping[str, Any]) -> PlainClass:
    model_type = branch.get('model_type', 'deit')
    check_choice('model_type', model_type, CLASSIFIER_BRANCHES)
    return CLASSIFIER_BRANCHES[model_type]


def _single(kwargs: Mapping[str, Any], model_type: str) -> dict[str, Any]:
    """Config of a published classifier of one branch."""
    options, rest = translate(
        kwargs, {**only(use_final_norm_and_head=True, drop_rate=0.0), **_NUM_CLASSES}
    )
    branch = CLASSIFIER_BRANCHES[model_type](rest)
    has_token = branch['with_cls_token']
    # Only this class gives its class token a position.
    branch['cls_pos'] = has_token and model_type == 'augreg'
    backbone = dict(
        type='ViTPyramid', branch=branch, out_type='cls_tokens' if has_token else 'maps'
    )
    head = dict(
        type='PIIPSeparateHead',
        in_channels=[branch['arch']['embed_dims']],
        token='cls' if has_token else 'mean',
        norm=branch['arch'].get('norm', 'LN'),
        **options,
    )
    return _classifier(backbone, head)


def _classifier(backbone: dict[str, Any], head: dict[str, Any]) -> dict[str, Any]:
    # Registers the heads. They require mmpretrain, which other tasks do not.
    import piip_mm.models.heads  # noqa: F401

    # The prefix lets the config be built in any default scope.
    return dict(
        type=CLASSIFIER,
        data_preprocessor=dict(type='mmpretrain.ClsDataPreprocessor'),
        backbone=backbone,
        head={**head, 'loss': dict(type='mmpretrain.CrossEntropyLoss')},
    )


#: See :data:`piip_mm.published.networks.BACKBONES`.
CLASSIFIERS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    'cls.PIIPTwoBranch': partial(_network, num_branches=2),
    'cls.PIIPThreeBranch': partial(_network, num_branches=3),
    'cls.PIIPFourBranch': partial(_network, num_branches=4),
    'cls.vit_models': partial(_single, model_type='deit'),
    'cls.InternViT6B': partial(_single, model_type='augreg'),
}
