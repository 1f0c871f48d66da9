"""Every shipped config loads, builds and passes an image through its network."""

import re

import pytest
import timm
import torch
import zoo
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from piip_mm.engine.data_check import pretrained_paths
from piip_mm.weights.source import TIMM_PREFIX

MAX_LINES = 20
ABLATIONS = [name for name in zoo.DETECTORS if 'ablations' in name]


def test_configs_are_found():
    assert {
        'det/piip_sbl_maskrcnn_1x.py',
        'det/piip_tiny_maskrcnn_shapes.py',
        'det/piip_tiny_fasterrcnn_custom.py',
    } <= set(zoo.CONFIGS)


@pytest.mark.parametrize('name', zoo.CONFIGS)
def test_config_states_only_its_difference(name):
    text = (zoo.ROOT / 'configs' / name).read_text()
    assert '_base_ = ' in text
    assert len(text.splitlines()) <= MAX_LINES


@pytest.mark.parametrize('name', zoo.CONFIGS)
def test_config_builds_on_the_meta_device(name):
    cfg = zoo.load(name)
    assert cfg.auto_scale_lr.base_batch_size > 0
    assert not cfg.auto_scale_lr.enable
    # Only the backbone is checked, because some heads ignore the default device.
    assert all(param.is_meta for param in zoo.built(name).backbone.parameters())


def branches_of(cfg):
    backbone = cfg.model.backbone
    return backbone.branches if 'branches' in backbone else [backbone.branch]


def one_of_each_kind():
    """Detectors that differ in more than image sizes and pretrained weights."""
    names = {}
    for name in zoo.DETECTORS:
        model = zoo.load(name).model
        kind = (model.type, len(branches_of(zoo.load(name))), model.neck.in_channels)
        names[str(kind)] = name
    return sorted(names.values())


@pytest.mark.parametrize('name', one_of_each_kind())
def test_backbone_neck_and_heads_agree(name):
    cfg, model = zoo.load(name), zoo.built(name)
    with torch.device('meta'):
        maps = model.neck(model.backbone(torch.zeros(1, 3, 256, 320)))
    if cfg.model.type == 'DINO':
        strides, width = list(cfg.model.backbone.out_strides), 256
        while len(strides) < cfg.model.neck.num_outs:
            strides.append(2 * strides[-1])
        assert cfg.model.encoder.layer_cfg.self_attn_cfg.num_levels == len(maps)
    else:
        strides = [stride for stride, _ in model.rpn_head.prior_generator.strides]
        width = model.rpn_head.in_channels
        roi_strides = cfg.model.roi_head.bbox_roi_extractor.featmap_strides
        assert roi_strides == list(cfg.model.backbone.out_strides)
    sizes = [tuple(level.shape[2:]) for level in maps]
    assert sizes == [(256 // stride, 320 // stride) for stride in strides]
    assert {level.shape[1] for level in maps} == {width}


@pytest.mark.parametrize('name', zoo.DETECTORS)
def test_images_are_scaled_to_the_first_branch(name):
    cfg = zoo.load(name)
    size = branches_of(cfg)[0].img_size
    train, *others = (
        {step.type: step for step in cfg[f'{split}_dataloader'].dataset.pipeline}
        for split in ('train', 'val', 'test')
    )
    (test_scale,) = {tuple(pipeline['Resize'].scale) for pipeline in others}
    if 'RandomCrop' in train or 'ct-cs-cb' in name:
        # Whole images are larger than crops; see the config of PIIP-CT-CS-CB.
        assert max(test_scale) == 1333 * size // 1024
    else:
        assert max(test_scale) == size
    if 'RandomCrop' in train:
        assert train['RandomCrop'].crop_size == (size, size)
    if 'Resize' in train:
        assert tuple(train['Resize'].scale) == test_scale
    else:
        for policy in train['RandomChoice'].transforms:
            assert max(map(sorted, policy[-1].scales)) == sorted(test_scale)


@pytest.mark.parametrize('name', zoo.DETECTORS)
def test_pretrained_weights_have_a_public_home(name):
    for checkpoint in pretrained_paths(zoo.load(name).model):
        model = checkpoint.removeprefix(TIMM_PREFIX)
        assert checkpoint.startswith('https://') or timm.is_model_pretrained(model)


def documented_variant(tmp_path, number):
    """A config documented in configs/det/README.md, saved elsewhere."""
    folder = zoo.ROOT / 'configs/det'
    text = re.findall(r'```python\n(.*?)```', (folder / 'README.md').read_text(), re.S)
    path = tmp_path / 'variant.py'
    path.write_text(re.sub(r"'(_base_/|piip)", rf"'{folder}/\1", text[number]))
    return Config.fromfile(path)


def test_variant_of_another_resolution(tmp_path):
    cfg = documented_variant(tmp_path, 0)
    assert [branch.img_size for branch in branches_of(cfg)] == [1344, 1120, 672]
    assert cfg.train_dataloader.dataset.pipeline[2].scale == (1344, 806)
    # The variant leaves the configs it inherits from unchanged.
    published = branches_of(zoo.load('det/piip_sbl_maskrcnn_1x.py'))
    assert [branch.img_size for branch in published] == [1568, 1120, 672]


def test_variant_with_another_branch(tmp_path):
    cfg = documented_variant(tmp_path, 1)
    assert cfg.test_dataloader.dataset.pipeline[1].scale == (1792, 1075)
    with DefaultScope.overwrite_default_scope('mmdet'), torch.device('meta'):
        backbone = MODELS.build(cfg.model.backbone)
    intended = zoo.built('det/piip_tsbl_maskrcnn_1x_1792-1568-1120-448.py').backbone
    assert [b.img_size for b in backbone.branches] == [1792, 1568, 1120, 672]
    assert {name: p.shape for name, p in backbone.named_parameters()} == {
        name: p.shape for name, p in intended.named_parameters()
    }


def test_tiny_configs_share_their_backbone():
    shapes = zoo.load('det/piip_tiny_maskrcnn_shapes.py').model
    custom = zoo.load('det/piip_tiny_fasterrcnn_custom.py').model
    assert shapes.backbone == custom.backbone
    assert (shapes.type, custom.type) == ('MaskRCNN', 'FasterRCNN')
    assert custom.roi_head.mask_head is None
    sizes = [branch.img_size for branch in shapes.backbone.branches]
    assert len(set(sizes)) == 3


def test_shapes_config_counts_its_classes():
    cfg = zoo.load('det/piip_tiny_maskrcnn_shapes.py')
    classes = cfg.train_dataloader.dataset.metainfo.classes
    assert cfg.model.roi_head.bbox_head.num_classes == len(classes)
    assert cfg.model.roi_head.mask_head.num_classes == len(classes)


@pytest.mark.parametrize('name', ABLATIONS)
def test_ablations_change_one_thing(name):
    base, cfg = zoo.load('det/piip_tsb_maskrcnn_1x_1120-896-448.py'), zoo.load(name)
    assert cfg.model.backbone != base.model.backbone
    cfg.model.backbone = base.model.backbone
    if 'parameter-direct' in name:
        # The merged map has the width of the last branch.
        cfg.model.neck.in_channels = base.model.neck.in_channels
    if 'equal-resolution' in name:
        # The scale is the size of the first branch.
        for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            cfg[loader] = base[loader]
    assert cfg.to_dict() == base.to_dict()


@pytest.mark.parametrize('name', zoo.DETECTORS)
def test_schedule_ends_with_the_training(name):
    cfg = zoo.load(name)
    *_, decay = cfg.param_scheduler
    assert decay.end == cfg.train_cfg.max_epochs
    length = decay.end - decay.begin
    assert decay.get('T_max', length) == length
    assert cfg.train_cfg.max_epochs % cfg.train_cfg.val_interval == 0
