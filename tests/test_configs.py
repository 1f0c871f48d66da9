"""Every shipped config loads, builds and passes an image through its backbone."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope, init_default_scope

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / 'configs').glob('*/*.py'))


@pytest.fixture
def scope():
    """Build in a config's scope, and leave no scope behind."""
    yield init_default_scope
    DefaultScope._instance_dict.clear()


def load(name):
    return Config.fromfile(ROOT / 'configs' / name)


def test_configs_are_found():
    names = {path.name for path in CONFIGS}
    assert {
        'piip_sbl_maskrcnn_1x.py',
        'piip_tiny_maskrcnn_shapes.py',
        'piip_tiny_fasterrcnn_custom.py',
    } <= names


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_config_builds_on_the_meta_device(path, scope):
    cfg = Config.fromfile(path)
    assert cfg.auto_scale_lr.base_batch_size > 0
    assert not cfg.auto_scale_lr.enable
    scope(cfg.default_scope)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert all(param.is_meta for param in model.parameters())


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_backbone_neck_and_heads_agree(path, scope):
    cfg = Config.fromfile(path)
    scope(cfg.default_scope)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
        maps = model.neck(model.backbone(torch.zeros(1, 3, 256, 320)))
    strides = [stride for stride, _ in model.rpn_head.prior_generator.strides]
    sizes = [tuple(level.shape[2:]) for level in maps]
    assert sizes == [(256 // stride, 320 // stride) for stride in strides]
    assert {level.shape[1] for level in maps} == {model.rpn_head.in_channels}
    roi_strides = model.roi_head.bbox_roi_extractor.featmap_strides
    assert roi_strides == list(cfg.model.backbone.out_strides)


def test_sbl_is_the_published_recipe():
    cfg = load('det/piip_sbl_maskrcnn_1x.py')
    branches = cfg.model.backbone.branches
    assert [
        (b.arch, b.img_size, b.window_size, b.drop_path_rate, b.init_cfg.checkpoint)
        for b in branches
    ] == [
        (
            f'deit3_{size}',
            img_size,
            28,
            rate,
            f'https://dl.fbaipublicfiles.com/deit/deit_3_{size}_224_21k.pth',
        )
        for size, img_size, rate in (
            ('small', 1568, 0.05),
            ('base', 1120, 0.15),
            ('large', 672, 0.4),
        )
    ]
    assert cfg.model.backbone.num_interactions == 12
    assert cfg.model.backbone.interaction.drop_path_rate == 0.4
    pipelines = [
        cfg[f'{name}_dataloader'].dataset.pipeline for name in ('train', 'val', 'test')
    ]
    scales = [t.scale for p in pipelines for t in p if t.type == 'Resize']
    assert scales == [(1568, 941)] * 3
    preprocessor = cfg.model.data_preprocessor
    assert preprocessor.mean == preprocessor.std == [127.5] * 3
    assert preprocessor.bgr_to_rgb
    assert preprocessor.pad_size_divisor == 224
    wrapper = cfg.optim_wrapper
    assert (wrapper.type, wrapper.dtype) == ('AmpOptimWrapper', 'bfloat16')
    assert wrapper.paramwise_cfg == dict(layer_decay_rate=0.85)
    assert wrapper.optimizer == dict(
        type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05
    )
    warmup, steps = cfg.param_scheduler
    assert (warmup.start_factor, warmup.end, warmup.by_epoch) == (0.001, 500, False)
    assert (steps.milestones, steps.gamma, steps.by_epoch) == ([8, 11], 0.1, True)
    assert cfg.train_cfg.max_epochs == 12
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size


def test_tiny_configs_share_their_backbone():
    shapes = load('det/piip_tiny_maskrcnn_shapes.py').model
    custom = load('det/piip_tiny_fasterrcnn_custom.py').model
    assert shapes.backbone == custom.backbone
    assert (shapes.type, custom.type) == ('MaskRCNN', 'FasterRCNN')
    assert custom.roi_head.mask_head is None
    sizes = [branch.img_size for branch in shapes.backbone.branches]
    assert len(set(sizes)) == 3


def test_shapes_config_counts_its_classes():
    cfg = load('det/piip_tiny_maskrcnn_shapes.py')
    classes = cfg.train_dataloader.dataset.metainfo.classes
    assert cfg.model.roi_head.bbox_head.num_classes == len(classes)
    assert cfg.model.roi_head.mask_head.num_classes == len(classes)


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_schedule_ends_with_the_training(path):
    cfg = Config.fromfile(path)
    *_, decay = cfg.param_scheduler
    assert decay.end == cfg.train_cfg.max_epochs
    assert decay.get('T_max', decay.end) == decay.end
    assert cfg.train_cfg.max_epochs % cfg.train_cfg.val_interval == 0
