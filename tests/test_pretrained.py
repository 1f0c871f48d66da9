"""Loading pretrained plain vision transformers into branches."""

import golden
import pytest
import torch
from mmengine.registry import MODELS

import piip_mm  # noqa: F401
from piip_mm.published import migrate_config, migrate_state_dict
from piip_mm.weights.pretrained import load_pretrained
from piip_mm.weights.resize import resize_positions


def vit(**kwargs):
    arch = dict(embed_dims=32, num_layers=2, num_heads=2)
    defaults = dict(type='PIIPViT', arch=arch, img_size=64, pretrain_img_size=64)
    return MODELS.build({**defaults, **kwargs})


def deit_file(path, grid=4, patch=16, cls_row=True, layer_scale=False):
    """A file in DeiT's own layout."""
    tensors = dict(vit().state_dict())
    tensors = {
        name.replace('patch_embed', 'patch_embed.proj').replace('.ls', '.gamma_'): value
        for name, value in tensors.items()
        if '.ls' not in name
    }
    if layer_scale:
        tensors |= {
            f'blocks.{i}.gamma_{j}': torch.rand(32) for i in (0, 1) for j in (1, 2)
        }
    tensors['pos_embed'] = torch.randn(1, grid**2 + cls_row, 32)
    tensors['patch_embed.proj.weight'] = torch.randn(32, 3, patch, patch)
    tensors |= {'cls_token': torch.zeros(1, 1, 32), 'head.weight': torch.zeros(9, 32)}
    torch.save({'model': tensors}, path)
    return tensors


@pytest.mark.parametrize(
    'name',
    [
        'pretrained_deit3',
        'pretrained_deit_cls_token',
        'pretrained_dinov2',
        'pretrained_internvit',
        'pretrained_mae_patch14to16',
        'pretrained_mae_patch14to16_seg',
    ],
)
def test_recorded(name, tmp_path):
    recorded = golden.load_conversion(name, tmp_path)
    config = migrate_config(recorded.kind, recorded.kwargs)
    network = MODELS.build(config)
    load_pretrained(network.branch, recorded.file)
    expected = migrate_state_dict(recorded.expected, config)
    loaded = network.state_dict()
    assert loaded.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(loaded[name], value)


@pytest.mark.parametrize('num_prefix', [0, 1, 2])
@pytest.mark.parametrize('grid', [(4, 4), (3, 5)])
def test_row_of_the_class_token(num_prefix, grid):
    """The first row of the file, before that of a distillation token, or zeros."""
    rows = torch.randn(1, num_prefix + 16, 8)
    fitted = resize_positions(rows, grid, cls_row=True)
    assert fitted.shape == (1, 1 + grid[0] * grid[1], 8)
    expected = rows[:, 0] if num_prefix else torch.zeros(1, 8)
    assert torch.equal(fitted[:, 0], expected)
    patches = resize_positions(rows[:, num_prefix:], grid)
    assert torch.equal(fitted[:, 1:], patches)
    assert torch.equal(resize_positions(rows, grid), patches)


def test_init_cfg_loads_and_reports(tmp_path):
    path = str(tmp_path / 'deit.pth')
    tensors = deit_file(path)
    branch = vit(init_cfg=dict(type='Pretrained', checkpoint=path))
    branch.init_weights()
    torch.testing.assert_close(branch.pos_embed, tensors['pos_embed'][:, 1:])
    weight = tensors['blocks.1.attn.qkv.weight']
    torch.testing.assert_close(branch.blocks[1].attn.qkv.weight, weight)
    report = load_pretrained(branch, path)
    assert sorted(report.dropped) == ['cls_token', 'head.weight']
    assert len(report.missing) == 4 and all('.ls' in name for name in report.missing)
    assert 'missing: 4 (blocks.0.ls1.gamma, ' in report.summary()
    assert 'dropped: 2 (' in report.summary()


def test_init_cfg_inside_a_network(tmp_path):
    path = str(tmp_path / 'deit.pth')
    tensors = deit_file(path, layer_scale=True)
    arch = dict(embed_dims=32, num_layers=2, num_heads=2)
    pretrained = dict(type='Pretrained', checkpoint=path)
    branches = [
        dict(
            type='PIIPViT',
            arch=arch,
            img_size=s,
            pretrain_img_size=64,
            init_cfg=pretrained,
        )
        for s in (64, 48)
    ]
    interaction = dict(num_heads=4)
    network = MODELS.build(
        dict(type='PIIP', branches=branches, num_interactions=2, interaction=interaction)
    )
    network.init_weights()
    for branch in network.branches:
        scale = branch.blocks[0].ls2.gamma
        torch.testing.assert_close(scale, tensors['blocks.0.gamma_2'])


def test_other_grid_and_patch(tmp_path):
    path = str(tmp_path / 'deit.pth')
    tensors = deit_file(path, grid=6, patch=14, cls_row=False)
    branch = vit()
    report = load_pretrained(branch, path)
    rows = tensors['pos_embed'].transpose(1, 2).unflatten(2, (6, 6))
    rows = torch.nn.functional.interpolate(rows, (4, 4), mode='bicubic')
    torch.testing.assert_close(branch.pos_embed, rows.flatten(2).transpose(1, 2))
    assert branch.patch_embed.weight.shape == (32, 3, 16, 16)
    assert len(report.resized) == 2


def test_errors(tmp_path):
    path = str(tmp_path / 'deit.pth')
    with pytest.raises(FileNotFoundError, match=r'do not exist .*: put the file there'):
        load_pretrained(vit(), path)
    deit_file(path)
    wide = vit(arch=dict(embed_dims=64, num_layers=2, num_heads=2))
    with pytest.raises(ValueError, match=r'does not fit the branch.*\(1, 16, 64\) here'):
        load_pretrained(wide, path)
    deep = vit(arch=dict(embed_dims=32, num_layers=3, num_heads=2))
    with pytest.raises(ValueError, match=r"lacks 12 tensors.*'blocks.2.norm1.weight'"):
        load_pretrained(deep, path)
    no_bias = dict(embed_dims=32, num_layers=2, num_heads=2, qkv_bias=False)
    with pytest.raises(ValueError, match=r'has blocks.0.attn.qkv.bias, which the branch'):
        load_pretrained(vit(arch=no_bias), path)
    torch.save({'layer1.0.conv1.weight': torch.zeros(1)}, path)
    with pytest.raises(
        ValueError, match=r"' has layer1.0.conv1.weight, which .* any file of plain"
    ):
        load_pretrained(vit(), path)


def test_a_deeper_file_is_refused_unless_the_network_removed_the_blocks(tmp_path):
    path = str(tmp_path / 'deit.pth')
    deit_file(path)
    shallow = vit(arch=dict(embed_dims=32, num_layers=1, num_heads=2))
    with pytest.raises(ValueError, match=r'has blocks.1.norm1.weight, which the'):
        load_pretrained(shallow, path)
    cut = vit()
    cut.truncate(1)
    report = load_pretrained(cut, path)
    assert sum(name.startswith('blocks.1.') for name in report.dropped) == 12


def test_layer_scales_of_a_file_are_never_dropped(tmp_path):
    path = str(tmp_path / 'deit3.pth')
    deit_file(path, layer_scale=True)
    arch = dict(embed_dims=32, num_layers=2, num_heads=2, init_values=None)
    with pytest.raises(ValueError, match=r'has blocks.0.ls1.gamma, which the'):
        load_pretrained(vit(arch=arch), path)


@pytest.mark.parametrize(
    'shape, message',
    [
        ((1, 15, 32), r'of 15 rows: expected a square'),
        ((17, 32), r'expected \(1, rows, C\)'),
    ],
)
def test_positions_of_another_kind(tmp_path, shape, message):
    path = str(tmp_path / 'deit.pth')
    tensors = deit_file(path)
    tensors['pos_embed'] = torch.zeros(shape)
    torch.save({'model': tensors}, path)
    with pytest.raises(ValueError, match=rf'pos_embed: position embedding.*{message}'):
        load_pretrained(vit(), path)


def test_init_cfg_in_a_list(tmp_path):
    path = str(tmp_path / 'deit.pth')
    tensors = deit_file(path)
    weights = dict(type='Pretrained', checkpoint=path)
    branch = vit(init_cfg=[weights])
    branch.init_weights()
    weight = tensors['blocks.0.attn.qkv.weight']
    torch.testing.assert_close(branch.blocks[0].attn.qkv.weight, weight)
    branch = vit(init_cfg=[dict(type='Xavier', layer='Linear'), weights])
    with pytest.raises(ValueError, match='has other entries next to the pretrained'):
        branch.init_weights()
