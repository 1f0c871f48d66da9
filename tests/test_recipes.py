"""Training configurations of the published detectors, field by field.

Our configs are translated into the published fields and compared as a whole, so that no
field is left out. ``data/recipes_det_deit.json`` has the fields under their published
names, with the ends of the interactions and the windows condensed.
"""

import copy
from pathlib import Path

import golden
import mmdet
import pytest
import torch
import zoo
from mmengine.config import Config
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS

from piip_mm.models.branches import VIT_ARCHS

RECIPES = zoo.read_json(golden.DATA / 'recipes_det_deit.json')


def expected_recipe(name):
    """The published recipe, and what was really built where it differs."""
    recipe = copy.deepcopy(RECIPES[zoo.checkpoint_of(name)])
    for part in (recipe['backbone'], *recipe['branches'].values()):
        if 'pretrained' in part:
            part['pretrained'] = part['pretrained'].rpartition('/')[2]
    if zoo.is_as_released(name):
        branches = recipe['branches']
        own = {key: branches['branch4'][key] for key in ('real_size', 'interaction_ends')}
        branches['branch4'] = branches['branch3'] | own
    return recipe


def translated_recipe(name):
    """A config of ours in the published fields."""
    cfg, model = zoo.load(name), zoo.built(name)
    is_piip = cfg.model.backbone.type == 'PIIP'
    wrapper, preprocessor = cfg.optim_wrapper, cfg.model.data_preprocessor
    warmup, steps = cfg.param_scheduler
    normalize = {
        'mean': preprocessor.mean,
        'std': preprocessor.std,
        'to_rgb': preprocessor.bgr_to_rgb,
    }
    pad = {'size_divisor': preprocessor.pad_size_divisor}
    train = transforms(cfg.train_dataloader)
    test = transforms(cfg.test_dataloader)
    is_bf16 = (wrapper.type, wrapper.dtype) == ('AmpOptimWrapper', 'bfloat16')
    return {
        'backbone': (piip_backbone if is_piip else vit_backbone)(cfg, model),
        'branches': piip_branches(cfg, model) if is_piip else {},
        'neck': dict(cfg.model.neck),
        'optimizer': {
            **wrapper.optimizer,
            'betas': list(wrapper.optimizer.betas),
            'constructor': {
                'PIIPLayerDecayOptimWrapperConstructor': (
                    'CustomLayerDecayOptimizerConstructorMMDet'
                )
            }[wrapper.constructor],
            'paramwise_cfg': {**wrapper.paramwise_cfg, **layers(model.backbone, is_piip)},
        },
        'optimizer_config': {'grad_clip': wrapper.get('clip_grad')},
        'lr_config': {
            'policy': {'MultiStepLR': 'step'}[steps.type],
            'warmup': {'LinearLR': 'linear'}[warmup.type],
            'warmup_iters': warmup.end - warmup.begin,
            'warmup_ratio': warmup.start_factor,
            'step': steps.milestones,
        },
        'runner': {
            'type': {'EpochBasedTrainLoop': 'EpochBasedRunner'}[cfg.train_cfg.type],
            'max_epochs': cfg.train_cfg.max_epochs,
        },
        'samples_per_gpu': cfg.train_dataloader.batch_size,
        'img_norm': None,
        'train_pipeline': [
            {
                'Resize': {
                    'img_scale': list(train['Resize'].scale),
                    'keep_ratio': train['Resize'].keep_ratio,
                }
            },
            {'RandomFlip': {'flip_ratio': train['RandomFlip'].prob}},
            {'Normalize': normalize},
            {'Pad': pad},
        ],
        'test_pipeline': [
            {
                'MultiScaleFlipAug': {
                    'img_scale': list(test['Resize'].scale),
                    'transforms': [
                        {'Resize': {'keep_ratio': test['Resize'].keep_ratio}},
                        # Switched off by the flip=False around it.
                        {'RandomFlip': {}},
                        {'Normalize': normalize},
                        {'Pad': pad},
                    ],
                }
            }
        ],
        'deepspeed': True,
        'deepspeed_config': 'zero_configs/adam_zero1_bf16.json' if is_bf16 else None,
    }


def piip_backbone(cfg, model):
    interaction = cfg.model.backbone.interaction
    count = {3: 'Three', 4: 'Four'}[len(model.backbone.branches)]
    return {
        'type': f'PIIP{count}Branch',
        'n_points': interaction.num_points,
        'deform_num_heads': interaction.num_heads,
        'cffn_ratio': interaction.ffn_ratio,
        'deform_ratio': interaction.value_ratio,
        'with_cffn': interaction.ffn_ratio > 0,
        'interact_attn_type': interaction.attn,
        'interaction_drop_path_rate': interaction.drop_path_rate,
    }


def piip_branches(cfg, model):
    """The published branch 1 is our last one."""
    backbone = model.backbone
    parts = zip(
        cfg.model.backbone.branches, backbone.branches, backbone.ends, strict=True
    )
    branches = {}
    for number, (branch_cfg, branch, ends) in enumerate(reversed(list(parts)), start=1):
        window_size, global_attn_blocks = windows(branch)
        branches[f'branch{number}'] = {
            **vit(branch_cfg, branch),
            'real_size': branch_cfg.img_size,
            'interaction_ends': list(ends),
            'window_size': window_size,
            'global_attn_blocks': global_attn_blocks,
        }
    return branches


def vit_backbone(cfg, model):
    branch = model.backbone.branch
    window_size, global_attn_blocks = windows(branch)
    with torch.device('meta'):
        maps = model.backbone(torch.zeros(1, 3, 64, 64))
    return {
        **vit(cfg.model.backbone.branch, branch),
        'type': 'vit_models',
        'with_fpn': len(maps) == 4,
        'out_indices': [branch.depth - 1],
        'output_dtype': str(maps[0].dtype).removeprefix('torch.'),
        'window_size': window_size,
        'global_attn_blocks': global_attn_blocks,
        # The other path pads query, key and value instead of the windows.
        'use_flash_attn': {b.attn.window_pad for b in branch.blocks} == {'zero_input'},
    }


def vit(cfg, branch):
    """Settings of a plain ViT, from the network where they can be read off it."""
    block = branch.blocks[0]
    grid, patch = branch.pos_grid[0], branch.patch_embed.stride[0]
    return {
        'pretrain_img_size': grid * patch,
        'patch_size': patch,
        'pretrain_patch_size': patch,
        'depth': branch.depth,
        'embed_dim': branch.dims[-1],
        'num_heads': block.attn.num_heads,
        'mlp_ratio': block.mlp.fc1.out_features / branch.dims[-1],
        'qkv_bias': block.attn.qkv.bias is not None,
        'drop_path_rate': cfg.drop_path_rate,
        'init_scale': VIT_ARCHS[cfg.arch].init_values,
        'pretrained': cfg.init_cfg.checkpoint.rpartition('/')[2],
    }


def windows(branch):
    """The one window size, and the blocks that have none."""
    sizes = [block.attn.window_size for block in branch.blocks]
    (window_size,) = set(sizes) - {None}
    return window_size, [i for i, size in enumerate(sizes) if size is None]


def layers(backbone, is_piip):
    """Depth and strides of the layer decay, read off the layer ids of the last blocks."""
    if not is_piip:
        _, num_layers = backbone.get_layer_depth('branch.blocks.0.norm1.weight')
        return {'num_layers': num_layers - 2}
    strides = []
    for index, branch in enumerate(backbone.branches):
        name = f'branches.{index}.blocks.{branch.depth - 1}.norm1.weight'
        layer_id, num_layers = backbone.get_layer_depth(name)
        strides.append(layer_id / branch.depth)
    assert strides.pop() == 1
    return {'num_layers': num_layers - 2, 'skip_stride': strides[::-1]}


def transforms(dataloader):
    """Transforms of a pipeline by type."""
    pipeline = dataloader.dataset.pipeline
    by_type = {transform.type: transform for transform in pipeline}
    assert len(by_type) == len(pipeline)
    return by_type


@pytest.mark.parametrize('name', zoo.PUBLISHED)
def test_recipe(name):
    assert translated_recipe(name) == expected_recipe(name)


@pytest.mark.parametrize('name', zoo.PUBLISHED)
def test_what_the_recipes_leave_to_defaults(name):
    cfg = zoo.load(name)
    warmup, steps = cfg.param_scheduler
    assert (warmup.begin, warmup.by_epoch) == (0, False)
    assert (steps.begin, steps.gamma, steps.by_epoch) == (0, 0.1, True)
    assert cfg.optim_wrapper.loss_scale == 1
    assert cfg.optim_wrapper.constructor in OPTIM_WRAPPER_CONSTRUCTORS
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size
    assert cfg.train_dataloader.batch_sampler.type == 'AspectRatioBatchSampler'
    assert cfg.train_dataloader.dataset.filter_cfg.filter_empty_gt
    assert cfg.model.data_preprocessor.pad_mask
    assert cfg.model.backbone.out_strides == (4, 8, 16, 32)
    assert 'RandomFlip' not in transforms(cfg.test_dataloader)
    val, test = (cfg[f'{split}_dataloader'].dataset.pipeline for split in ('val', 'test'))
    assert val == test


@pytest.mark.parametrize('name', [n for n in zoo.PUBLISHED if '/piip' in n])
def test_interactions_are_the_published_ones(name):
    backbone = zoo.load(name).model.backbone
    assert backbone.num_interactions == 12
    assert backbone.interaction.direction == 'neighbours'
    # Not given: with projection, with LayerNorm.
    assert not {'proj', 'norm'} & set(backbone.interaction)


@pytest.mark.skipif(not zoo.REFERENCE.is_dir(), reason='no complete reference here')
def test_file_agrees_with_the_complete_reference():
    recipes = zoo.read_json(zoo.REFERENCE / 'recipes.json')
    named = {key.rpartition('/')[2]: recipe for key, recipe in recipes.items()}
    assert {name: named[name] for name in RECIPES} == RECIPES


def test_every_published_row_has_a_config():
    assert {zoo.checkpoint_of(name) for name in zoo.PUBLISHED} == set(RECIPES)
    shipped = {name for name in zoo.CONFIGS if 'maskrcnn_1x' in name}
    assert set(zoo.PUBLISHED) == shipped


@pytest.mark.parametrize('name', zoo.PUBLISHED)
def test_pipelines_do_nothing_else(name):
    cfg = zoo.load(name)
    train = cfg.train_dataloader.dataset.pipeline
    first, last = ['LoadImageFromFile', 'LoadAnnotations'], ['PackDetInputs']
    assert [t.type for t in train] == [*first, 'Resize', 'RandomFlip', *last]
    assert train[1].with_bbox and train[1].with_mask
    test = cfg.test_dataloader.dataset.pipeline
    kinds = ['LoadImageFromFile', 'Resize', 'LoadAnnotations', 'PackDetInputs']
    assert [t.type for t in test] == kinds


def test_heads_are_those_of_mmdet():
    """The published detectors changed nothing but backbone, neck widths and sizes."""
    base = Path(mmdet.__file__).parent / '.mim/configs/_base_/models'
    theirs = Config.fromfile(base / 'mask-rcnn_r50_fpn.py').model
    for name in zoo.PUBLISHED:
        ours = zoo.load(name).model
        for part in ('type', 'rpn_head', 'roi_head', 'train_cfg', 'test_cfg'):
            assert ours[part] == theirs[part], (name, part)
