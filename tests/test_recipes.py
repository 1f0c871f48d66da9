"""Training configurations of the published detectors, field by field.

Our configs are translated into the published fields and compared as a whole, so that no
field is left out. ``data/recipes.json.xz`` has the fields under their published names,
with the ends of the interactions and the windows condensed.
"""

import copy
import re
from itertools import chain
from pathlib import Path

import mmdet
import pytest
import zoo
from mmengine.config import Config
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from recipes import translated_recipe

from piip_mm.models.branches import PIIPConvNeXt, PIIPViT
from piip_mm.models.branches.plain import drop_path_rates

RECIPES = zoo.recipes('det')
MMDET = Path(mmdet.__file__).parent / '.mim/configs'
PIIPS = [name for name in zoo.PUBLISHED if '/piip' in name]


def expected_recipe(name):
    """The published recipe, corrected where the published code built something else."""
    recipe = copy.deepcopy(RECIPES[zoo.PUBLISHED[name]])
    branches = recipe['branches']
    for part in (recipe['backbone'], *branches.values()):
        if 'pretrained' in part:
            part['pretrained'] = part['pretrained'].rpartition('/')[2]
        # We read it from the tensors of the file.
        part.pop('pretrain_patch_size', None)
        # Our scales have no such option; their precision is that of autocast.
        assert not part.pop('layerscale_force_fp32', False)
    if zoo.is_as_released(name):
        own = {key: branches['branch4'][key] for key in ('real_size', 'interaction_ends')}
        branches['branch4'] = branches['branch3'] | own
    if 'detector' in recipe:
        # It belongs to a projection that DINO does not have.
        recipe['detector']['bbox_head'].pop('in_channels')
    paramwise = recipe['optimizer'].get('paramwise_cfg')
    if paramwise and any(map(is_convnext, branches.values())):
        without_convnext(paramwise, branches)
    return recipe


def is_convnext(branch):
    return branch['pretrained'].startswith('convnext')


def without_convnext(paramwise, branches):
    """Drop what the published layer decay does not read: no rule matches parameters of
    a ConvNeXt, so its stride is unused, and the depth if there are only ConvNeXts."""
    first, *others = branches.values()
    paramwise['skip_stride'] = [
        None if is_convnext(branch) else stride
        for branch, stride in zip(others, paramwise['skip_stride'], strict=True)
    ]
    if all(map(is_convnext, (first, *others))):
        paramwise['num_layers'] = None


@pytest.mark.parametrize('name', zoo.PUBLISHED)
def test_recipe(name):
    translated, expected = translated_recipe(name), expected_recipe(name)
    paramwise = expected['optimizer'].get('paramwise_cfg', {})
    if paramwise.get('num_layers', 0) is None:
        translated['optimizer']['paramwise_cfg']['num_layers'] = None
    assert translated == expected


@pytest.mark.parametrize('name', zoo.PUBLISHED)
def test_what_the_recipes_leave_to_defaults(name):
    cfg = zoo.load(name)
    warmup, steps = cfg.param_scheduler
    assert (warmup.begin, warmup.by_epoch) == (0, False)
    assert (steps.begin, steps.gamma, steps.by_epoch) == (0, 0.1, True)
    assert cfg.optim_wrapper.loss_scale == 1
    assert cfg.optim_wrapper.constructor in OPTIM_WRAPPER_CONSTRUCTORS
    assert cfg.train_dataloader.batch_sampler.type == 'AspectRatioBatchSampler'
    assert cfg.train_dataloader.dataset.filter_cfg.filter_empty_gt
    is_dino = cfg.model.type == 'DINO'
    assert cfg.model.data_preprocessor.get('pad_mask', False) == (not is_dino)
    strides = (4, 8, 16, 32)
    assert cfg.model.backbone.out_strides == (strides[1:] if is_dino else strides)
    val, test = (cfg[f'{split}_dataloader'].dataset.pipeline for split in ('val', 'test'))
    assert val == test
    metric = 'bbox' if is_dino else ['bbox', 'segm']
    assert cfg.val_evaluator.metric == cfg.test_evaluator.metric == metric


@pytest.mark.parametrize('name', zoo.PUBLISHED)
def test_batch(name):
    cfg = zoo.load(name)
    batch = cfg.auto_scale_lr.base_batch_size
    assert cfg.optim_wrapper.optimizer.lr == 1e-4 * batch / 16
    assert batch % cfg.train_dataloader.batch_size == 0
    named = re.search(r'_bs(\d+)', zoo.PUBLISHED[name])
    assert named is None or int(named[1]) == batch


@pytest.mark.parametrize('name', PIIPS)
def test_interactions_are_the_published_ones(name):
    backbone = zoo.load(name).model.backbone
    assert backbone.num_interactions == (4 if 'lh6b' in name else 12)
    assert backbone.interaction.direction == 'neighbours'
    # By default there are projections and LayerNorms.
    options = {'proj', 'norm'} & set(backbone.interaction)
    assert bool(options) == ('speedup' in name or 'lh6b' in name)


@pytest.mark.parametrize('name', zoo.PUBLISHED)
def test_drop_path_of_each_block(name):
    backbone = zoo.built(name).backbone
    for branch in getattr(backbone, 'branches', None) or [backbone.branch]:
        blocks = [block for block in branch.blocks if hasattr(block, 'drop_path')]
        rates = [getattr(block.drop_path, 'drop_prob', 0.0) for block in blocks]
        is_deit = isinstance(branch, PIIPViT) and not branch.arch.cls_pos_row
        schedule = 'constant' if is_deit else 'linear'
        assert len(blocks) == branch.depth - 3 * isinstance(branch, PIIPConvNeXt)
        assert rates == pytest.approx(drop_path_rates(rates[-1], len(rates), schedule))


def test_every_published_row_has_a_config():
    assert set(zoo.PUBLISHED.values()) == set(RECIPES)
    others = {name for name in zoo.DETECTORS if 'tiny' in name or 'ablations' in name}
    assert {*zoo.PUBLISHED, *zoo.PAPER_ONLY} == set(zoo.DETECTORS) - others


@pytest.mark.parametrize('name', [*zoo.PUBLISHED, *zoo.PAPER_ONLY])
def test_pipelines_do_nothing_else(name):
    cfg = zoo.load(name)
    train = [step.type for step in cfg.train_dataloader.dataset.pipeline]
    loading = ['LoadImageFromFile', 'LoadAnnotations']
    simple = ['Resize', 'RandomFlip']
    many_scales = ['RandomFlip', 'RandomChoice', 'RandomCrop']
    without_crop = many_scales[:-1]
    assert train[:2] == loading and train[-1] == 'PackDetInputs'
    assert train[2:-1] in (simple, many_scales, without_crop)
    assert (train[2:-1] == without_crop) == ('cascade_3x' in name)
    test = cfg.test_dataloader.dataset.pipeline
    kinds = ['LoadImageFromFile', 'Resize', 'LoadAnnotations', 'PackDetInputs']
    assert [step.type for step in test] == kinds
    for pipeline in (cfg.train_dataloader.dataset.pipeline, test):
        (load,) = (step for step in pipeline if step.type == 'LoadAnnotations')
        assert load.with_bbox and load.with_mask == ('_dino_' not in name)


@pytest.mark.parametrize(
    ('kind', 'base', 'parts'),
    [
        (
            '_maskrcnn_',
            '_base_/models/mask-rcnn_r50_fpn.py',
            ('rpn_head', 'roi_head', 'train_cfg', 'test_cfg'),
        ),
        (
            '_cascade_',
            'convnext/'
            'cascade-mask-rcnn_convnext-t-p4-w7_fpn_4conv1fc-giou_amp-ms-crop-3x_coco.py',
            ('rpn_head', 'roi_head', 'train_cfg', 'test_cfg'),
        ),
        (
            '_dino_',
            'dino/dino-4scale_r50_8xb2-12e_coco.py',
            (
                *('encoder', 'decoder', 'positional_encoding', 'bbox_head', 'dn_cfg'),
                *('num_queries', 'with_box_refine', 'as_two_stage'),
                *('train_cfg', 'test_cfg'),
            ),
        ),
    ],
)
def test_heads_are_those_of_mmdet(kind, base, parts):
    """The published detectors changed only the backbone, neck widths and sizes."""
    # This config imports mmpretrain, which is not needed here.
    theirs = Config.fromfile(MMDET / base, import_custom_modules=False).model
    names = [name for name in (*zoo.PUBLISHED, *zoo.PAPER_ONLY) if kind in name]
    assert names
    for name in names:
        ours = zoo.load(name).model
        for part in ('type', *parts):
            assert _of_mmdet(ours[part]) == theirs[part], (name, part)
        assert ours.neck | {'in_channels': None} == theirs.neck | {'in_channels': None}


def _of_mmdet(node):
    """Replace our classes by mmdet's, from which they differ only in precision."""
    if isinstance(node, dict):
        return {key: _of_mmdet(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_of_mmdet(value) for value in node]
    same = {'Float32RoIExtractor': 'SingleRoIExtractor', 'Float32DINOHead': 'DINOHead'}
    return same.get(node, node) if isinstance(node, str) else node


def test_scales_of_cascade_3x_are_those_of_mmdet_enlarged():
    base = 'swin/mask-rcnn_swin-t-p4-w7_fpn_ms-crop-3x_coco.py'
    theirs = Config.fromfile(MMDET / base).train_dataloader.dataset.pipeline
    for name in ('det/piip_sbl_cascade_3x.py', 'det/piip_tsb_cascade_3x.py'):
        ours = zoo.load(name).train_dataloader.dataset.pipeline
        assert [step.type for step in ours] == [step.type for step in theirs]
        steps = [chain(*pipeline[3].transforms) for pipeline in (ours, theirs)]
        for mine, published in zip(*steps, strict=True):
            sizes = mine.get('scales') or [mine.crop_size]
            assert [tuple(size) for size in sizes] == [
                tuple(side * 1568 // 1333 for side in size)
                for size in published.get('scales') or [published.crop_size]
            ]
