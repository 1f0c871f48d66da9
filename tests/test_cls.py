"""Complete classifiers: configs, training, export, counts, recipes."""

import json

import golden
import numpy as np
import pytest
import torch
import zoo
from mmengine.config import Config
from mmengine.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS, DefaultScope
from mmengine.runner import Runner
from mmpretrain.structures import DataSample

from piip_mm.analysis import RELEASED, RUN, Count, build_on_meta, count_classifier, total
from piip_mm.models.heads import PIIPMergedHead

TINY = 'cls/piip_tiny_shapes.py'
CONFIGS = [name for name in zoo.CONFIGS if name.startswith('cls/')]
ONE_OF_EACH_KIND = [
    'cls/piip_b_512-256-128_in1k.py',
    'cls/piip_sbl_320-160-96_in1k.py',
    'cls/piip_tsb_368-192-128_in1k_released.py',
    'cls/vit_b_224_in1k.py',
]
#: Published config of each config, with the parameters (M) and FLOPs (G) of its table.
PUBLISHED = {
    'cls/piip_tsb_368-192-128_in1k': ('tsb_368-192-128_cls_token_deit1', 144, 17.4),
    'cls/piip_sbl_320-160-96_in1k': ('sbl_320-160-96_cls_token_augreg', 489, 39.0),
    'cls/piip_sbl_384-192-128_in1k': (
        'sbl_384-192-128_cls_token_augreg',
        489,
        61.2,
    ),
}


def tiny(num_branches=3, depth=4, head=None, out_type='cls_tokens'):
    """The example's model, or a smaller one, for images of 32 pixels."""
    cfg = zoo.load(TINY).model
    backbone = cfg.backbone
    backbone.update(out_type=out_type, num_interactions=depth)
    backbone.branches = backbone.branches[:num_branches]
    for branch, size in zip(backbone.branches, (32, 24, 16), strict=False):
        branch.update(img_size=size, pretrain_img_size=size)
        branch.arch.num_layers = depth
    cfg.head.in_channels = [branch.arch.embed_dims for branch in backbone.branches]
    cfg.head = dict(cfg.head, **head) if head else cfg.head
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg)
    # Interactions start at zero; give them an effect.
    for name, param in model.named_parameters():
        if 'interactions' in name and not param.any():
            torch.nn.init.normal_(param, std=0.1)
    return model


def test_all_published_models_have_configs():
    assert {f'{name}.py' for name in PUBLISHED} <= set(CONFIGS)
    assert {f'{name}_released.py' for name in PUBLISHED} <= set(CONFIGS)


@pytest.mark.parametrize('name', CONFIGS)
def test_classes_and_sizes_agree(name):
    cfg = zoo.load(name)
    backbone, head = cfg.model.backbone, cfg.model.head
    assert cfg.model.data_preprocessor.num_classes == head.num_classes
    branches = backbone.get('branches') or [backbone.branch]
    model = zoo.built(name)
    built = getattr(model.backbone, 'branches', None) or [model.backbone.branch]
    assert list(head.in_channels) == [branch.dims[-1] for branch in built]
    sizes = set()
    for split in ('train', 'val', 'test'):
        for step in cfg[f'{split}_dataloader'].dataset.pipeline:
            if step.type in ('RandomResizedCrop', 'Resize'):
                sizes.add(step.scale)
            elif step.type == 'CenterCrop':
                sizes.add(step.crop_size)
    assert sizes == {branches[0].img_size}


@pytest.mark.parametrize('name', ONE_OF_EACH_KIND)
def test_logits_on_the_meta_device(name):
    cfg, model = zoo.load(name), zoo.built(name)
    backbone = cfg.model.backbone
    branches = backbone.get('branches') or [backbone.branch]
    size = branches[0].img_size
    with torch.device('meta'):
        logits = model(torch.zeros(2, 3, size, size))
    assert logits.shape == (2, cfg.model.head.num_classes)


@pytest.mark.parametrize('published', PUBLISHED)
def test_configs_are_the_published_ones(published):
    """Compare field by field with the published facts."""
    recipe = zoo.recipes('cls')[f'piip_3branch_{PUBLISHED[published][0]}']
    cfg, model = zoo.load(f'{published}.py'), zoo.built(f'{published}_released.py')
    backbone, interaction = cfg.model.backbone, cfg.model.backbone.interaction
    assert recipe['backbone'] == dict(
        n_points=interaction.num_points,
        deform_num_heads=interaction.num_heads,
        cffn_ratio=interaction.ffn_ratio,
        deform_ratio=interaction.value_ratio,
        with_cffn=True,
        interact_attn_type='deform',
        interaction_drop_path_rate=interaction.drop_path_rate,
        separate_head=cfg.model.head.type == 'PIIPSeparateHead',
    )
    for index, branch in enumerate(backbone.branches):
        geometry = model.backbone.branches[index].arch
        file = branch.init_cfg.checkpoint.rpartition('/')[2]
        assert cfg.model.head.init_cfg[index] == branch.init_cfg
        fields = dict(
            img_size=branch.img_size,
            patch_size=16,
            pretrain_img_size=224,
            pretrain_patch_size=16,
            depth=geometry.num_layers,
            embed_dim=geometry.embed_dims,
            num_heads=geometry.num_heads,
            mlp_ratio=geometry.mlp_ratio,
            qkv_bias=geometry.qkv_bias,
            drop_path_rate=branch.drop_path_rate,
            use_cls_token=branch.with_cls_token,
            with_cp=branch.with_cp,
            pretrained=file.replace('.npz', '.pth'),
            interaction_ends=list(model.backbone.ends[index]),
        )
        assert branch.pretrain_img_size == branch.img_size
        if geometry.cls_pos_row:
            fields['model_type'] = 'augreg'
            assert geometry.init_values is None
        else:
            fields |= dict(init_scale=geometry.init_values, drop_rate=0.0)
        assert recipe['branches'][f'branch{3 - index}'] == fields


@pytest.mark.parametrize('published', PUBLISHED)
def test_published_counts(published):
    key, params, flops = PUBLISHED[published]
    cfg = zoo.load(f'{published}_released.py')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        columns = count_classifier(build_on_meta(cfg.model))
    counted = total(columns['as published'])
    assert round(counted.params / 1e6) == params
    assert round(counted.flops / 1e9, 1) == flops
    built = zoo.built(f'{published}_released.py')
    for parts in columns.values():
        assert total(parts).params == sum(p.numel() for p in built.parameters())
    row = golden.read('flops')[f'cls:piip_3branch_{key}']
    exact = row['published_convention(classification/get_flops.py)']
    assert counted.params == exact['params_total']
    assert counted.flops == exact['flops_total']


def test_counts_from_scratch():
    """Published are 100.3 M (without final norm and classifier) and 18.4 G."""
    cfg = zoo.load('cls/piip_b_512-256-128_in1k.py')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = build_on_meta(cfg.model)
        parts = count_classifier(model)['as published']
    assert f'{total(parts).flops / 1e9:.1f}' == '18.4'
    params = total(parts).params
    assert params == sum(p.numel() for p in model.parameters())
    assert f'{(params - parts["classifier"].params) / 1e6:.1f}' == '100.3'


def test_baseline_is_deit_b():
    """DeiT-B has 86 567 656 parameters in its paper."""
    model = zoo.built('cls/vit_b_224_in1k.py')
    assert sum(param.numel() for param in model.parameters()) == 86_567_656


@pytest.mark.parametrize(('token', 'num_normalised'), [('cls', 1), ('mean', 16)])
def test_counts_of_a_head_per_branch(token, num_normalised):
    """A LayerNorm and 3 classes for 32 channels, 4 x 4 patches; published heads normalise
    all patches."""
    out_type = 'cls_tokens' if token == 'cls' else 'maps'
    columns = count_classifier(tiny(2, 2, head=dict(token=token), out_type=out_type))
    params = 2 * 32 + 33 * 3
    for column, tokens in ((RUN, num_normalised), (RELEASED, 16)):
        assert columns[column]['head 0'] == Count(params, 2 * tokens * 32 + 32 * 3)
    assert 'other' not in columns[RUN]


def test_counts_of_a_merged_head():
    """Of 32 x 32, 16 x 16 and 8 x 8 patches; the mean is that of the largest map."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = build_on_meta(zoo.load('cls/piip_b_512-256-128_in1k.py').model)
    parts = count_classifier(model)[RUN]
    for index, (tokens, dims) in enumerate(((32 * 32, 160), (16 * 16, 320))):
        params = 2 * dims + (dims + 1) * 640 + 2 * 640 + 1
        flops = tokens * (2 * dims + dims * 640 + 2 * 640)
        assert parts[f'head {index}'] == Count(params, flops)
    assert parts['head 2'] == Count(2 * 640 + 1, 8 * 8 * 2 * 640)
    norm = Count(2 * 640, 32 * 32 * 2 * 640)
    assert parts['classifier'] == norm + Count(641 * 1000, 640 * 1000)


def test_fine_tuning_learns_interactions_faster():
    cfg = zoo.load('cls/piip_tsb_368-192-128_in1k.py')
    assert cfg.auto_scale_lr.base_batch_size == 8 * cfg.train_dataloader.batch_size
    model = zoo.built('cls/piip_tsb_368-192-128_in1k.py')
    wrapper = cfg.optim_wrapper
    constructor = OPTIM_WRAPPER_CONSTRUCTORS.get('DefaultOptimWrapperConstructor')(
        dict(type='OptimWrapper', optimizer=wrapper.optimizer), wrapper.paramwise_cfg
    )
    groups = constructor(model).optimizer.param_groups
    names = {id(param): name for name, param in model.named_parameters()}
    for group in groups:
        (param,) = group['params']
        is_new = names[id(param)].startswith('backbone.interactions.')
        assert group['lr'] == pytest.approx(3e-4 if is_new else 3e-5)
        assert group['weight_decay'] == 0.1
    assert len(groups) == len(names)


@pytest.mark.parametrize('token', ['cls', 'first_patch', 'mean'])
def test_every_parameter_gets_a_gradient(token):
    out_type = 'cls_tokens' if token == 'cls' else 'maps'
    model = tiny(2, 2, head=dict(token=token), out_type=out_type)
    images = torch.randint(0, 255, (6, 3, 32, 32), dtype=torch.uint8)
    samples = [DataSample().set_gt_label(index % 3) for index in range(6)]
    data = model.data_preprocessor(dict(inputs=images, data_samples=samples), True)
    loss = model(**data, mode='loss')['loss']
    assert torch.isfinite(loss)
    loss.backward()
    without = [
        name
        for name, param in model.named_parameters()
        if param.grad is None or not param.grad.any()
    ]
    assert without == []


def test_interactions_after_the_last_block_reach_no_class_token():
    def injectors(model):
        return [len(stage.injectors) for stage in model.backbone.interactions]

    assert injectors(tiny(2, 2)) == [2, 0]
    assert injectors(tiny(2, 2, dict(token='first_patch'), 'maps')) == [2, 2]


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
def test_export():
    """Calling the model on images only, without data samples, can be exported."""
    model = tiny(2, 1, dict(token='first_patch'), 'maps').eval()
    image, other = torch.randn(2, 2, 3, 32, 32).unbind()
    with torch.no_grad():
        exported = torch.export.export(model, (image,)).module()
        traced = torch.jit.trace(model, image, check_trace=False)
        for copy in (exported, traced):
            torch.testing.assert_close(copy(other), model(other))


@pytest.mark.filterwarnings('ignore::UserWarning')
def test_training(tmp_path):
    """Train the example with mixup and CutMix for a few iterations, then evaluate it."""
    cfg = zoo.load(TINY)
    rng = np.random.default_rng(0)
    for split in ('train', 'val'):
        for name in cfg.metainfo.classes:
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for index in range(4):
                image = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
                write_image(folder / f'{index}.png', image)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(batch_size=6, num_workers=0, persistent_workers=False)
        loader.dataset.data_root = str(tmp_path)
        for step in loader.dataset.pipeline:
            if step.type == 'Resize':
                step.scale = 32
    cfg.model.train_cfg = dict(augments=[dict(type='Mixup', alpha=0.8)])
    cfg.model.head.loss = dict(type='LabelSmoothLoss', label_smooth_val=0.1)
    cfg.train_cfg.update(max_epochs=2, val_interval=2)
    cfg.default_hooks = dict(logger=dict(type='LoggerHook', interval=1))
    cfg.work_dir = str(tmp_path / 'work')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        runner = Runner.from_cfg(cfg)
        runner.train()
    history = runner.message_hub.get_scalar('train/loss').data[0]
    assert len(history) == 4
    assert np.isfinite(history).all()
    (log,) = tmp_path.glob('work/*/vis_data/scalars.json')
    last = json.loads(log.read_text().splitlines()[-1])
    assert 0 <= last['accuracy/top1'] <= 100


def write_image(path, image):
    import cv2

    assert cv2.imwrite(str(path), image)


def test_merged_head_is_built_from_a_config():
    model = zoo.built('cls/piip_b_512-256-128_in1k.py')
    assert isinstance(model.head, PIIPMergedHead)
    assert model.head.in_channels == (160, 320, 640)


def test_documented_config_of_another_size(tmp_path):
    text = (zoo.ROOT / 'configs/cls/README.md').read_text()
    (code,) = (part.partition('```')[0] for part in text.split('```python\n')[1:])
    path = tmp_path / 'variant.py'
    folder = zoo.ROOT / 'configs/cls'
    path.write_text(code.replace("'piip", f"'{folder}/piip"))
    cfg = Config.fromfile(path)
    sizes = [branch.img_size for branch in cfg.model.backbone.branches]
    assert sizes == [branch.pretrain_img_size for branch in cfg.model.backbone.branches]
    assert cfg.val_dataloader.dataset.pipeline[2].crop_size == sizes[0]
