"""Published checkpoints in programs other than the tools: right weights or an error.

Every way to load a file is tried with every kind of file.
"""

import copy
import logging
import re
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import golden
import mmpretrain
import pytest
import torch
from mmdet.apis import DetInferencer, init_detector
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner, load_checkpoint
from mmseg.apis import init_model

from piip_mm.published import migrate_config
from piip_mm.published.checkpoints import convert_published
from piip_mm.weights.report import compare

ROOT = Path(__file__).parents[1]

#: Names of mmdet 3 to those of mmdet 2, in which published DINOs were saved.
OLD_DINO = [
    (r'level_embed', 'level_embeds'),
    (r'query_embedding\.(.+)', r'query_embed.\1'),
    (r'memory_trans_fc\.(.+)', r'enc_output.\1'),
    (r'memory_trans_norm\.(.+)', r'enc_output_norm.\1'),
    (r'((?:en|de)coder\.layers\.\d+)\.self_attn\.(.+)', r'\1.attentions.0.\2'),
    (r'(decoder\.layers\.\d+)\.cross_attn\.(.+)', r'\1.attentions.1.\2'),
    (r'((?:en|de)coder\.layers\.\d+)\.ffn\.(.+)', r'\1.ffns.0.\2'),
    (r'decoder\.ref_point_head\.layers\.0\.(.+)', r'decoder.ref_point_head.0.\1'),
    (r'decoder\.ref_point_head\.layers\.1\.(.+)', r'decoder.ref_point_head.2.\1'),
    (r'((?:en|de)coder\..+)', r'\1'),
]


def old_name(name):
    if name.startswith('dn_query_generator.'):
        return name.replace('dn_query_generator', 'bbox_head')
    for pattern, old in OLD_DINO:
        match = re.fullmatch(pattern, name)
        if match:
            return f'bbox_head.transformer.{match.expand(old)}'
    return name


def detector(kind):
    """Config of a published detector, and its weights with random neck and heads."""
    case = golden.load('p1_three_branch_deit')
    is_dino = kind == 'DINO'
    name = 'piip_tiny_dino_shapes' if is_dino else 'piip_tiny_maskrcnn_shapes'
    cfg = Config.fromfile(ROOT / f'configs/det/{name}.py')
    kwargs = dict(case.kwargs, is_dino=is_dino)
    model = dict(backbone=dict(migrate_config(case.kind, kwargs), _delete_=True))
    model['neck'] = dict(in_channels=[64] * (3 if is_dino else 4))
    if not is_dino:
        model['rpn_head'] = dict(anchor_generator=dict(strides=[4, 8, 16, 32]))
    cfg.merge_from_dict(dict(model=model))
    init_default_scope('mmdet')
    # DINO writes into its config.
    own = MODELS.build(copy.deepcopy(cfg.model)).state_dict()
    heads = {
        old_name(name) if is_dino else name: torch.rand_like(tensor)
        for name, tensor in own.items()
        if not name.startswith('backbone.')
    }
    tensors = {f'backbone.{name}': tensor for name, tensor in case.state_dict.items()}
    return cfg, tensors | heads


def segmentor():
    case = golden.load('p1_three_branch_deit')
    cfg = Config.fromfile(ROOT / 'configs/seg/piip_tiny_upernet_shapes.py')
    model = dict(backbone=dict(migrate_config(case.kind, case.kwargs), _delete_=True))
    model['decode_head'] = dict(in_channels=[64] * 4, in_index=[0, 1, 2, 3])
    model['auxiliary_head'] = dict(in_channels=64)
    cfg.merge_from_dict(dict(model=model))
    init_default_scope('mmseg')
    own = MODELS.build(cfg.model).state_dict()
    # Its batch norms count their batches.
    heads = {n: x + 1 for n, x in own.items() if not n.startswith('backbone.')}
    return cfg, {f'backbone.{n}': x for n, x in case.state_dict.items()} | heads


def classifier():
    case = golden.load('p4_cls_separate_head')
    init_default_scope('mmpretrain')
    return Config(dict(model=migrate_config(case.kind, case.kwargs))), case.state_dict


WRAPPERS = {
    'mmdet 2': lambda tensors: {
        'state_dict': tensors,
        'meta': {'CLASSES': ('a',), 'PALETTE': [[0, 0, 0]]},
    },
    'DeepSpeed': lambda tensors: {
        'module': tensors,
        'optimizer': None,
        'dp_world_size': 8,
    },
    'script': lambda tensors: {'model': tensors, 'args': Namespace(lr=3e-5)},
    'bare': dict,
    'distributed': lambda tensors: {
        'module': {f'module.{name}': tensor for name, tensor in tensors.items()}
    },
}


def with_mmengine(cfg, path, strict=False):
    model = MODELS.build(cfg.model)
    load_checkpoint(model, str(path), strict=strict)
    return model


def with_the_runner(cfg, path):
    """As in mmdet's own tools/test.py, without this package's hook."""
    runner = SimpleNamespace(
        model=MODELS.build(cfg.model), call_hook=lambda *_, **__: None, logger=logging
    )
    Runner.load_checkpoint(runner, str(path))
    return runner.model


def with_torch(cfg, path, strict=True):
    model = MODELS.build(cfg.model)
    content = torch.load(path)
    model.load_state_dict(content.get('state_dict', content), strict=strict)
    return model


def with_init_detector(cfg, path):
    return init_detector(cfg, str(path), device='cpu')


def with_inferencer(cfg, path):
    file = path.with_suffix('.py')
    cfg.dump(file)
    return DetInferencer(str(file), str(path), device='cpu').model


def with_mmseg(cfg, path):
    return init_model(cfg, str(path), device='cpu')


def with_mmpretrain(cfg, path):
    return mmpretrain.get_model(cfg, pretrained=str(path), device='cpu')


ANY = {
    'load_checkpoint': with_mmengine,
    'load_checkpoint, strict': lambda *args: with_mmengine(*args, strict=True),
    'Runner': with_the_runner,
    'load_state_dict': with_torch,
    'load_state_dict, not strict': lambda *args: with_torch(*args, strict=False),
}
DETECTORS = ANY | {'init_detector': with_init_detector, 'DetInferencer': with_inferencer}
SEGMENTORS = ANY | {'init_model': with_mmseg}
CLASSIFIERS = ANY | {'get_model': with_mmpretrain}
SCOPES = {'classifier': 'mmpretrain', 'UPerNet': 'mmseg'}


@pytest.fixture(scope='module')
def published():
    """Config and weights by kind of model; made once."""
    made = {}

    def make(kind):
        if kind not in made:
            others = {'classifier': classifier, 'UPerNet': segmentor}
            made[kind] = others[kind]() if kind in others else detector(kind)
        cfg, tensors = made[kind]
        init_default_scope(SCOPES.get(kind, 'mmdet'))
        return Config(cfg._cfg_dict.to_dict()), tensors

    return make


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('wrapper', WRAPPERS)
@pytest.mark.parametrize(
    ('kind', 'entry'),
    [(kind, entry) for kind in ('Mask R-CNN', 'DINO') for entry in DETECTORS]
    + [('UPerNet', entry) for entry in SEGMENTORS]
    + [('classifier', entry) for entry in CLASSIFIERS],
)
def test_whatever_loads_the_file(published, tmp_path, kind, entry, wrapper):
    cfg, tensors = published(kind)
    path = tmp_path / 'released.pth'
    torch.save(WRAPPERS[wrapper](tensors), path)
    load = (DETECTORS | SEGMENTORS | CLASSIFIERS)[entry]
    if entry == 'init_model' and wrapper != 'mmdet 2':
        # mmseg itself requires what is missing; docs/migration.md says what to do.
        with pytest.raises(KeyError, match='meta'):
            load(cfg, path)
        return
    model = load(cfg, path)
    expected, _ = convert_published(tensors, model)
    assert compare(expected, model).misfits == []
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, expected[name])


@pytest.mark.parametrize('wrapper', ['mmdet 2', 'DeepSpeed', 'distributed'])
def test_own_checkpoints_in_any_container(published, tmp_path, wrapper):
    cfg, _ = published('Mask R-CNN')
    saved = {n: x + 1 for n, x in MODELS.build(cfg.model).state_dict().items()}
    path = tmp_path / 'own.pth'
    torch.save(WRAPPERS[wrapper](saved), path)
    for name, tensor in with_mmengine(cfg, path).state_dict().items():
        torch.testing.assert_close(tensor, saved[name])


def test_heads_that_do_not_fit_are_fine_tuned(published, tmp_path):
    cfg, tensors = published('Mask R-CNN')
    name = 'roi_head.bbox_head.fc_cls.weight'
    tensors = tensors | {name: torch.zeros(81, tensors[name].shape[1])}
    model = MODELS.build(cfg.model)
    path = tmp_path / 'released.pth'
    torch.save({'module': tensors}, path)
    load_checkpoint(model, str(path))
    expected, _ = convert_published(tensors, model)
    assert compare(expected, model).mismatched
    expected[name] = model.state_dict()[name]
    for key, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, expected[key])


def test_the_backbone_has_to_fit(published):
    cfg, tensors = published('DINO')
    tensors = dict(tensors)
    del tensors['backbone.branch2.blocks.1.gamma_1']
    with pytest.raises(ValueError, match=r'do not fit the PIIP .*\s+1 missing'):
        MODELS.build(cfg.model).load_state_dict({'module': tensors}, strict=False)


@pytest.mark.parametrize('whole', [True, False])
def test_a_file_of_another_model_is_refused(published, whole):
    cfg, tensors = published('Mask R-CNN')
    model = MODELS.build(cfg.model)
    if whole:
        # The backbone alone.
        tensors = {n.removeprefix('backbone.'): x for n, x in tensors.items()}
        tensors = {n: x for n, x in tensors.items() if n.startswith('w')}
        message = r'none of the 3 names .*w1, w2, w3\) is one of the MaskRCNN \(backbone'
    else:
        model = model.backbone
        message = r'none of the \d+ names .*is one of the PIIP .* takes the prefix of'
    with pytest.raises(ValueError, match=message):
        model.load_state_dict(tensors, strict=False)
    with pytest.raises(ValueError, match='the file holds no weights'):
        model.load_state_dict({'module': {'step': 3}}, strict=False)
    model.load_state_dict({}, strict=False)


def test_a_backbone_takes_its_part_of_a_file(published, tmp_path):
    cfg, tensors = published('Mask R-CNN')
    path = tmp_path / 'released.pth'
    torch.save({'state_dict': tensors}, path)
    init_cfg = dict(type='Pretrained', checkpoint=str(path), prefix='backbone.')
    backbone = MODELS.build(dict(cfg.model.backbone, init_cfg=init_cfg))
    backbone.init_weights()
    expected, _ = convert_published(tensors, MODELS.build(cfg.model))
    for name, tensor in backbone.state_dict().items():
        torch.testing.assert_close(tensor, expected[f'backbone.{name}'])
