"""Small detectors of every kind train on the CPU, and every parameter learns."""

import copy
import math
from functools import partial

import make_shapes
import pytest
import torch
import zoo
from mmcv.ops import MultiScaleDeformableAttention
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner, set_random_seed

HEADS = {
    'Mask R-CNN': 'det/piip_tiny_maskrcnn_shapes.py',
    'Cascade Mask R-CNN': 'det/piip_tiny_cascade_shapes.py',
    'DINO': 'det/piip_tiny_dino_shapes.py',
}
NUM_STEPS = 3
SIZE = 128


def vit(dims, size):
    return dict(
        type='PIIPViT',
        arch=dict(embed_dims=dims, num_layers=4, num_heads=4),
        img_size=size,
        pretrain_img_size=size,
    )


def convnext(dims, size):
    return dict(
        type='PIIPConvNeXt',
        arch=dict(depths=(1, 1, 1, 1), dims=dims),
        img_size=size,
        layer_scale_init_value=1.0,
    )


#: Last block of each stage; a down-sampling layer is the first block of its stage.
CONVNEXT_ENDS = (0, 2, 4, 6)
VIT_ENDS = (0, 1, 2, 3)
#: Branches, last block of each group, and width of the last branch after each group.
PYRAMIDS = {
    'ViT': (
        [vit(32, 128), vit(48, 96), vit(64, 64)],
        None,
        (64, 64, 64, 64),
    ),
    'hybrid': (
        [convnext((32, 32, 64, 64), 128), vit(48, 96), vit(64, 64)],
        [CONVNEXT_ENDS, VIT_ENDS, VIT_ENDS],
        (64, 64, 64, 64),
    ),
    'ConvNeXt': (
        [convnext((32, 32, 64, 64), size) for size in (128, 96, 64)],
        [CONVNEXT_ENDS] * 3,
        (32, 32, 64, 64),
    ),
}


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    """Folder of a few images of the example data set."""
    out = tmp_path_factory.mktemp('data') / 'shapes'
    options = f'--train 4 --val 2 --size {SIZE} {SIZE}'.split()
    make_shapes.main(['--out', str(out), *options])
    return f'{out}/'


def config(heads, shapes):
    """A shipped config for these images, without worker processes."""
    cfg = zoo.load(HEADS[heads])
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.data_root = shapes
        for transform in loader.dataset.pipeline:
            if transform.type == 'Resize':
                transform.scale = (SIZE, SIZE)
    return cfg


def set_backbone(model, pyramid):
    """Replace the backbone under the heads of a model."""
    branches, ends, widths = PYRAMIDS[pyramid]
    strides = (8, 16, 32) if model.type == 'DINO' else (4, 8, 16, 32)
    model.backbone = dict(
        type='PIIP',
        branches=branches,
        num_interactions=4,
        interaction=dict(num_heads=4),
        interaction_ends=ends,
        out_strides=strides,
        # ViT branches keep their grid, so they get a simple pyramid.
        out_interactions=ends and [0, 1, 2][-len(strides) + 1 :],
    )
    model.neck.in_channels = list(widths[-len(strides) :])
    if model.type == 'DINO':
        # The neck adds a fourth level, as in the published models.
        model.num_feature_levels = model.neck.num_outs = 4
        model.encoder.layer_cfg.self_attn_cfg.num_levels = 4
        model.decoder.layer_cfg.cross_attn_cfg.num_levels = 4
        return
    for extractor in ('bbox_roi_extractor', 'mask_roi_extractor'):
        model.roi_head[extractor].featmap_strides = list(strides)
    # Sample all anchors, so that no level is left out by chance.
    model.train_cfg.rpn.sampler.num = 10**5


def watch(model):
    """A set of parameters whose gradients have all been zero or absent so far."""
    idle = {name for name, parameter in model.named_parameters()}

    def note(name, parameter):
        if parameter.grad.any():
            idle.discard(name)

    for name, parameter in model.named_parameters():
        assert parameter.requires_grad, name
        parameter.register_post_accumulate_grad_hook(partial(note, name))
    return idle


@pytest.mark.parametrize('pyramid', PYRAMIDS)
@pytest.mark.parametrize('heads', HEADS)
def test_every_parameter_learns(heads, pyramid, shapes):
    set_random_seed(0)
    cfg = config(heads, shapes)
    set_backbone(cfg.model, pyramid)
    with DefaultScope.overwrite_default_scope('mmdet'):
        train, val = (
            next(iter(Runner.build_dataloader(loader, seed=0)))
            for loader in (cfg.train_dataloader, cfg.val_dataloader)
        )
        model = MODELS.build(cfg.model)
        optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    model.init_weights()
    model.train()
    idle = watch(model)
    losses = [
        model.train_step(copy.deepcopy(train), optim_wrapper)['loss'].item()
        for _ in range(NUM_STEPS)
    ]
    assert all(map(math.isfinite, losses))
    assert min(losses[1:]) < losses[0]
    # This takes more than one step, because scales that start at zero block all gradients
    # in the first.
    assert idle == set()

    with torch.no_grad():
        (result,) = model.eval().test_step(val)
    boxes = result.pred_instances.bboxes
    assert boxes.isfinite().all()
    if heads == 'DINO':
        assert len(boxes) == cfg.model.num_queries
        encoder = model.encoder.layers[0].self_attn
        assert isinstance(encoder, MultiScaleDeformableAttention)
    else:
        assert result.pred_instances.masks.shape == (len(boxes), SIZE, SIZE)
