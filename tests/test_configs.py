"""Every shipped config loads, builds and passes an image through its network."""

import re

import golden
import pytest
import torch
import zoo
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

MAX_LINES = 20
#: Of the published backbones, [parameters, FLOPs] by part.
COUNTS = zoo.read_json(golden.DATA / 'flops_reference.json')


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
    assert all(param.is_meta for param in zoo.built(name).parameters())


def branches_of(cfg):
    backbone = cfg.model.backbone
    return backbone.branches if 'branches' in backbone else [backbone.branch]


def one_of_each_architecture():
    """Configs that differ in more than the sizes of images."""
    names = {}
    for name in zoo.CONFIGS:
        cfg = zoo.load(name)
        names[cfg.model.type, str([branch.arch for branch in branches_of(cfg)])] = name
    return sorted(names.values())


@pytest.mark.parametrize('name', one_of_each_architecture())
def test_backbone_neck_and_heads_agree(name):
    model = zoo.built(name)
    with torch.device('meta'):
        maps = model.neck(model.backbone(torch.zeros(1, 3, 256, 320)))
    strides = [stride for stride, _ in model.rpn_head.prior_generator.strides]
    sizes = [tuple(level.shape[2:]) for level in maps]
    assert sizes == [(256 // stride, 320 // stride) for stride in strides]
    assert {level.shape[1] for level in maps} == {model.rpn_head.in_channels}
    roi_strides = model.roi_head.bbox_roi_extractor.featmap_strides
    assert roi_strides == list(zoo.load(name).model.backbone.out_strides)


@pytest.mark.parametrize('name', zoo.CONFIGS)
def test_images_are_scaled_to_the_first_branch(name):
    cfg = zoo.load(name)
    loaders = [cfg[f'{split}_dataloader'] for split in ('train', 'val', 'test')]
    scales = {
        tuple(transform.scale)
        for loader in loaders
        for transform in loader.dataset.pipeline
        if transform.type == 'Resize'
    }
    assert len(scales) == 1
    assert max(scales.pop()) == branches_of(cfg)[0].img_size


@pytest.mark.parametrize('name', zoo.PUBLISHED)
def test_parameters(name):
    backbone = zoo.built(name).backbone
    assert params_of(backbone) == expected_params(name)
    assert count(backbone) == sum(expected_params(name).values())


def expected_params(name):
    """Parameters of the parts that have some, as released."""
    suffix = ', as coded' if zoo.is_as_released(name) else ''
    parts = COUNTS[f'deit_{zoo.PUBLISHED[name]}'][f'as released{suffix}']
    return {part: params for part, (params, _) in parts.items() if params}


def params_of(backbone):
    parts = {'pyramid': count(backbone.pyramid)}
    if not hasattr(backbone, 'branches'):
        return parts | {'branch': count(backbone.branch)}
    parts['interactions'] = count(backbone.interactions)
    for index, branch in enumerate(backbone.branches):
        scale = backbone.merge.scales[str(index)]
        parts[f'branch {index}'] = count(branch)
        parts[f'merge {index}'] = (
            count(backbone.merge.branches[str(index)]) + scale.numel()
        )
    return parts


def count(module):
    return sum(param.numel() for param in module.parameters())


@pytest.mark.skipif(not zoo.REFERENCE.is_dir(), reason='no complete reference here')
def test_parameters_agree_with_the_complete_reference():
    counts = zoo.read_json(zoo.REFERENCE / 'flops_reference.json')['configs']
    named = {key.rpartition('/')[2]: entry for key, entry in counts.items()}
    for name in zoo.PUBLISHED:
        counts = named[zoo.checkpoint_of(name)]['get_flops_det_script_convention']
        is_as_coded = zoo.is_as_released(name) or len(counts) == 1
        complete = counts['as_coded' if is_as_coded else 'branch4_intended']
        assert sum(expected_params(name).values()) == complete['params_total']


def documented_variant(tmp_path, number):
    """A config of configs/det/README.md, saved elsewhere."""
    folder = zoo.ROOT / 'configs/det'
    text = re.findall(r'```python\n(.*?)```', (folder / 'README.md').read_text(), re.S)
    path = tmp_path / 'variant.py'
    path.write_text(re.sub(r"'(_base_/|piip)", rf"'{folder}/\1", text[number]))
    return Config.fromfile(path)


def test_variant_of_another_resolution(tmp_path):
    cfg = documented_variant(tmp_path, 0)
    assert [branch.img_size for branch in branches_of(cfg)] == [1344, 1120, 672]
    assert cfg.train_dataloader.dataset.pipeline[2].scale == (1344, 806)
    # The configs it is made of are as they were.
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


@pytest.mark.parametrize('name', zoo.CONFIGS)
def test_schedule_ends_with_the_training(name):
    cfg = zoo.load(name)
    *_, decay = cfg.param_scheduler
    assert decay.end == cfg.train_cfg.max_epochs
    assert decay.get('T_max', decay.end) == decay.end
    assert cfg.train_cfg.max_epochs % cfg.train_cfg.val_interval == 0
