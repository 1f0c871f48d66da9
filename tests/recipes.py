"""Translates our configs into the fields of the published detectors' recipes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import timm
import torch
import zoo
from mmengine.config import Config
from recipes_dino import dino_fields
from torch import nn

from piip_mm.models.branches import PIIPBEiT, PIIPConvNeXt, PIIPUniPerceiver, PIIPViT
from piip_mm.weights.source import TIMM_PREFIX


def translated_recipe(name: str) -> dict[str, Any]:
    """The recipe of a config, under its published names."""
    cfg, backbone = zoo.load(name), zoo.built(name).backbone
    is_piip = cfg.model.backbone.type == 'PIIP'
    wrapper = cfg.optim_wrapper
    warmup, steps = cfg.param_scheduler
    test = cfg.test_dataloader.dataset.pipeline
    (resize,) = (step for step in test if step.type == 'Resize')
    is_bf16 = (wrapper.type, wrapper.dtype) == ('AmpOptimWrapper', 'bfloat16')
    recipe = {
        'backbone': (piip_settings if is_piip else single_settings)(cfg, backbone),
        'branches': branch_settings(cfg, backbone) if is_piip else {},
        'neck': dict(cfg.model.neck),
        'optimizer': optimizer_settings(wrapper, backbone),
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
            *_transforms(cfg.train_dataloader.dataset.pipeline),
            *_preprocessing(cfg),
        ],
        'test_pipeline': [
            {
                'MultiScaleFlipAug': {
                    'img_scale': list(resize.scale),
                    'transforms': [
                        {'Resize': {'keep_ratio': resize.keep_ratio}},
                        # Disabled by flip=False of the enclosing transform.
                        {'RandomFlip': {}},
                        *_preprocessing(cfg),
                    ],
                }
            }
        ],
        'deepspeed': True,
        'deepspeed_config': 'zero_configs/adam_zero1_bf16.json' if is_bf16 else None,
    }
    return recipe | (
        {'detector': dino_fields(cfg.model)} if cfg.model.type == 'DINO' else {}
    )


def _preprocessing(cfg: Config) -> list[dict]:
    """Preprocessing that mmdet 3 does in the model, as transforms."""
    preprocessor = cfg.model.data_preprocessor
    normalize = {
        'mean': preprocessor.mean,
        'std': preprocessor.std,
        'to_rgb': preprocessor.bgr_to_rgb,
    }
    return [
        {'Normalize': normalize},
        {'Pad': {'size_divisor': preprocessor.pad_size_divisor}},
    ]


def _transforms(pipeline: list) -> list[dict]:
    """Transforms under their published names, without loading and packing."""
    transforms = []
    for step in pipeline:
        match step.type:
            case 'LoadImageFromFile' | 'LoadAnnotations' | 'PackDetInputs':
                continue
            case 'Resize':
                options = {'img_scale': list(step.scale), 'keep_ratio': step.keep_ratio}
            case 'RandomFlip':
                options = {'flip_ratio': step.prob}
            case 'RandomCrop':
                options = _options(step) | {'crop_size': list(step.crop_size)}
            case 'RandomChoice':
                policies = [list(map(_policy_step, policy)) for policy in step.transforms]
                for _, *later in policies:
                    # The first transform has already set image and scale.
                    for options in (o for o in later if o['type'] == 'Resize'):
                        options['override'] = True
                options = {'policies': policies}
        transforms.append(
            {{'RandomChoice': 'AutoAugment'}.get(step.type, step.type): options}
        )
    return transforms


def _policy_step(step: Any) -> dict[str, Any]:
    if step.type == 'RandomCrop':
        return dict(step) | {'crop_size': list(step.crop_size)}
    assert step.type == 'RandomChoiceResize'
    return {
        'type': 'Resize',
        'img_scale': [list(scale) for scale in step.scales],
        'multiscale_mode': 'value',
        'keep_ratio': step.keep_ratio,
    }


def _options(step: Any) -> dict[str, Any]:
    return {key: value for key, value in step.items() if key != 'type'}


def optimizer_settings(wrapper: Any, backbone: nn.Module) -> dict[str, Any]:
    optimizer = {**wrapper.optimizer, 'betas': list(wrapper.optimizer.betas)}
    if wrapper.constructor == 'DefaultOptimWrapperConstructor':
        assert wrapper.paramwise_cfg is None
        return optimizer
    return optimizer | {
        'constructor': {
            'PIIPLayerDecayOptimWrapperConstructor': (
                'CustomLayerDecayOptimizerConstructorMMDet'
            )
        }[wrapper.constructor],
        'paramwise_cfg': {**wrapper.paramwise_cfg, **_layers(backbone)},
    }


def _layers(backbone: nn.Module) -> dict[str, Any]:
    """Depth and strides of the layer decay, derived from the layer ids of the last
    blocks; None for networks without layers."""
    if not hasattr(backbone, 'branches'):
        _, num_layers = backbone.get_layer_depth('branch.blocks.0.norm1.weight')
        return {'num_layers': num_layers - 2}
    strides = []
    for index, branch in enumerate(backbone.branches):
        name = f'branches.{index}.blocks.{branch.depth - 1}.norm1.weight'
        layer_id, num_layers = backbone.get_layer_depth(name)
        is_top = layer_id == num_layers - 1
        strides.append(None if is_top else layer_id / branch.depth)
    assert strides.pop() in (1, None)
    return {'num_layers': num_layers - 2, 'skip_stride': strides[::-1]}


def piip_settings(cfg: Config, backbone: nn.Module) -> dict[str, Any]:
    interaction = cfg.model.backbone.interaction
    count = {2: 'Two', 3: 'Three', 4: 'Four'}[len(backbone.branches)]
    fields = {
        'type': f'PIIP{count}Branch',
        'n_points': interaction.num_points,
        'deform_num_heads': interaction.num_heads,
        'cffn_ratio': interaction.ffn_ratio,
        'deform_ratio': interaction.value_ratio,
        'with_cffn': interaction.ffn_ratio > 0,
        'interact_attn_type': interaction.attn,
        'interaction_drop_path_rate': interaction.drop_path_rate,
    }
    if cfg.model.type == 'DINO':
        fields['is_dino'] = True
    if {'proj', 'norm'} & set(interaction):
        assert interaction.norm is None
        fields |= {'interaction_proj': interaction.proj, 'norm_layer': 'none'}
    if cfg.model.backbone.get('out_interactions') is not None:
        fields['with_simple_fpn'] = False
        fields['out_interaction_indexes'] = list(cfg.model.backbone.out_interactions)
    return fields


def branch_settings(cfg: Config, backbone: nn.Module) -> dict[str, dict]:
    """Branches under their published names; the published branch 1 is our last one."""
    parts = zip(
        cfg.model.backbone.branches, backbone.branches, backbone.ends, strict=True
    )
    return {
        f'branch{number}': {
            **_network(branch_cfg, branch),
            'real_size': branch_cfg.img_size,
            'interaction_ends': list(ends),
            **_windows(branch),
        }
        for number, (branch_cfg, branch, ends) in enumerate(reversed(list(parts)), 1)
    }


def single_settings(cfg: Config, backbone: nn.Module) -> dict[str, Any]:
    branch = backbone.branch
    with torch.device('meta'):
        maps = backbone(torch.zeros(1, 3, 64, 64))
    network = _network(cfg.model.backbone.branch, branch)
    if isinstance(branch, PIIPConvNeXt):
        # The published config omits it if there is no drop path.
        assert network.pop('drop_path_rate') == 0
        assert len(set(backbone.out_blocks)) == len(maps) == 4
        return {
            'type': 'ConvNextHFWrapper',
            'real_size': branch.img_size,
            'with_simple_fpn': False,
            'single_branch': True,
            **network,
        }
    fields = {
        **network,
        'with_fpn': len(maps) == 4,
        'out_indices': [branch.depth - 1],
        'output_dtype': str(maps[0].dtype).removeprefix('torch.'),
        # Without flash attention, query, key and value are padded instead of the windows.
        'use_flash_attn': {b.attn.window_pad for b in branch.blocks} == {'zero_input'},
    }
    if branch.arch.cls_pos_row:
        return {'type': 'InternViT6B', **fields}
    return {'type': 'vit_models', **fields, **_windows(branch)}


def _network(cfg: Any, branch: nn.Module) -> dict[str, Any]:
    """Settings of a branch, taken from the network where possible."""
    fields = {
        'drop_path_rate': cfg.drop_path_rate,
        'pretrained': _file_name(cfg.init_cfg.checkpoint),
    }
    if isinstance(branch, PIIPConvNeXt):
        return fields
    block = branch.blocks[0]
    fields |= {
        'pretrain_img_size': 224,
        'patch_size': branch.patch_embed.stride[0],
        'depth': branch.depth,
        'embed_dim': branch.dims[-1],
        'num_heads': block.attn.num_heads,
        'mlp_ratio': block.mlp.fc1.out_features / branch.dims[-1],
    }
    if isinstance(branch, PIIPUniPerceiver):
        return fields | {'with_cp': branch.with_cp}
    fields['qkv_bias'] = _has_qkv_bias(branch)
    if isinstance(branch, PIIPBEiT):
        return fields | {
            'init_values': branch.arch.init_values,
            'use_abs_pos_emb': hasattr(branch, 'pos_embed'),
            'use_rel_pos_bias': hasattr(block.attn, 'relative_position_bias_table'),
        }
    assert isinstance(branch, PIIPViT)
    fields['pretrain_img_size'] = cfg.get('pretrain_img_size', 224)
    is_deit = not branch.arch.cls_pos_row
    if block.mlp.act.approximate == 'tanh':
        fields['Mlp_block' if is_deit else 'mlp_type'] = 'fused_mlp'
    if is_deit:
        assert not branch.with_cp
        return fields | {'init_scale': branch.arch.init_values}
    return fields | {
        'init_values': branch.arch.init_values,
        'with_cp': branch.with_cp,
        'qk_normalization': isinstance(block.attn.q_norm, nn.RMSNorm),
        'norm_layer_type': type(block.norm1).__name__,
    }


def _has_qkv_bias(branch: nn.Module) -> bool:
    attn = branch.blocks[0].attn
    return (attn.qkv.bias if isinstance(branch, PIIPViT) else attn.q_bias) is not None


def _windows(branch: nn.Module) -> dict[str, Any]:
    """The window size, and the blocks with global attention if others have windows."""
    if isinstance(branch, PIIPConvNeXt):
        return {'window_size': None}
    sizes = [block.attn.window_size for block in branch.blocks]
    if set(sizes) == {None}:
        return {'window_size': None}
    (window_size,) = set(sizes) - {None}
    indexes = [i for i, size in enumerate(sizes) if size is None]
    return {'window_size': window_size, 'global_attn_blocks': indexes}


def _file_name(checkpoint: str) -> str:
    """The published recipes' name for a file of pretrained weights."""
    if checkpoint.startswith(TIMM_PREFIX):
        cfg = timm.get_pretrained_cfg(checkpoint.removeprefix(TIMM_PREFIX))
        return f'{Path(cfg.url).stem}.pth'
    name = checkpoint.rpartition('/')[2]
    return re.sub(r'convnext_([a-z]+)_1k_224_ema\.pth', r'convnext-\1-224', name)
