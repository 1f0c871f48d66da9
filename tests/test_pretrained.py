"""Loading pretrained plain vision transformers into branches."""

import re

import golden
import pytest
import torch
from mmengine.model import PretrainedInit
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


def network_of(branch_weights, init_cfg=None):
    """A network whose branches load weights, and that may load some itself."""
    branch = dict(
        type='PIIPViT',
        arch=dict(embed_dims=32, num_layers=2, num_heads=2),
        pretrain_img_size=64,
        init_cfg=branch_weights,
    )
    return MODELS.build(
        dict(
            type='PIIP',
            branches=[dict(branch, img_size=size) for size in (64, 48)],
            num_interactions=2,
            interaction=dict(num_heads=4),
            init_cfg=init_cfg,
        )
    )


def test_init_cfg_inside_a_network(tmp_path):
    path = str(tmp_path / 'deit.pth')
    tensors = deit_file(path, layer_scale=True)
    network = network_of(dict(type='Pretrained', checkpoint=path))
    network.init_weights()
    for branch in network.branches:
        scale = branch.blocks[0].ls2.gamma
        torch.testing.assert_close(scale, tensors['blocks.0.gamma_2'])


def test_default_keeps_the_grid_of_the_preset():
    with torch.device('meta'):
        rows = {
            arch: MODELS.build(dict(type='PIIPViT', arch=arch, img_size=224)).pos_embed
            for arch in ('deit3_base', 'augreg_base', 'mae_huge', 'dinov2_base')
        }
    assert [value.shape[1] for value in rows.values()] == [196, 577, 257, 1370]


def test_file_of_another_grid_than_the_preset(tmp_path):
    path = str(tmp_path / 'deit_384.pth')
    tensors = deit_file(path, grid=6, cls_row=False)
    message = (
        r'deit_384.pth, pos_embed: positions for 6 x 6 tokens, but the branch stores '
        r'14 x 14.*; set pretrain_img_size=96 to keep those of the file, or '
        r'pretrain_img_size=224 to have them resized'
    )
    with pytest.raises(ValueError, match=message):
        load_pretrained(vit(pretrain_img_size=None), path)
    named = vit(pretrain_img_size=96)
    load_pretrained(named, path)
    torch.testing.assert_close(named.pos_embed, tensors['pos_embed'])
    arch = dict(embed_dims=32, num_layers=2, num_heads=2, pos_grid=6)
    preset = vit(arch=arch, pretrain_img_size=None)
    load_pretrained(preset, path)
    torch.testing.assert_close(preset.pos_embed, tensors['pos_embed'])


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
        ValueError,
        match=r': the file has layer1.0.conv1.weight, which .* any file of plain',
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
        ((1, 0, 32), r'expected \(1, rows, C\)'),
        ((2, 17, 32), r'expected \(1, rows, C\)'),
        ((1, 16, 16, 32), r'expected \(1, rows, C\)'),
        ((), r'expected \(1, rows, C\)'),
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


NAME = 'blocks.0.attn.qkv.weight'


def test_any_precision_of_floating_point_loads(tmp_path):
    path = tmp_path / 'deit.pth'
    tensors = deit_file(path)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        torch.save({n: t.to(dtype) for n, t in tensors.items()}, path)
        branch = vit()
        load_pretrained(branch, path)
        weight = branch.blocks[0].attn.qkv.weight
        torch.testing.assert_close(weight, tensors[NAME].to(dtype).float())


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda x: x.int(), f'{NAME} is torch.int32 in the file, torch.float32 here'),
        (lambda x: x.bool(), f'{NAME} is torch.bool in the file, torch.float32 here'),
        (lambda x: x.to(torch.complex64), f'{NAME} is torch.complex64 in the file'),
        (lambda x: x.to(torch.float8_e4m3fn), f'{NAME} is torch.float8_e4m3fn in the'),
        (
            lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8),
            f'{NAME} is torch.qint8 in the file',
        ),
        (
            lambda x: x.index_fill(0, torch.tensor([3]), float('nan')),
            f'{NAME} has 32 of 3072 values NaN or infinite',
        ),
        (
            lambda x: x.index_fill(0, torch.tensor([3]), float('-inf')).half(),
            f'{NAME} has 32 of 3072 values NaN or infinite',
        ),
        (
            lambda x: x.double() + 1e39,
            f'{NAME} has 3072 of 3072 values .* in torch.float32',
        ),
        (lambda x: x.to('meta'), f'{NAME} is on the meta device, without values'),
        (lambda x: x.to_sparse(), f"tensor '{NAME}' is of layout torch.sparse_coo; exp"),
        (
            lambda x: torch.nested.nested_tensor([*x]),
            # Newer versions of PyTorch do not read them at all.
            f"tensor '{NAME}' is nested; expected|more than weights .*nested_tensor",
        ),
        (lambda x: None, f"entry '{NAME}' of type NoneType: expected names and tensors"),
        (lambda x: 'weight', f"entry '{NAME}' of type str: expected names and tensors"),
        (lambda x: x.tolist(), f"entry '{NAME}' of type list: expected names and tens"),
        (lambda x: {'a': x}, f"entry '{NAME}' of type dict: expected names and tensors"),
        (lambda x: x[:0], r'does not fit the branch'),
    ],
)
def test_values_that_are_no_weights(tmp_path, change, message):
    path = tmp_path / 'deit.pth'
    tensors = deit_file(path)
    tensors[NAME] = change(tensors[NAME])
    torch.save({'model': tensors}, path)
    branch = vit()
    before = branch.blocks[0].attn.qkv.weight.clone()
    with pytest.raises(ValueError, match=message) as error:
        load_pretrained(branch, path)
    assert str(error.value).startswith(str(path))
    assert torch.equal(branch.blocks[0].attn.qkv.weight, before)


def test_values_that_nothing_reads_may_be_anything(tmp_path):
    path = tmp_path / 'deit.pth'
    tensors = deit_file(path)
    torch.save(tensors | {'head.weight': torch.full((9,), float('nan'))}, path)
    assert 'head.weight' in load_pretrained(vit(), path).dropped


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        (f'module.{NAME}', f"'{NAME}' and 'module.{NAME}' are both '{NAME}' here; keep"),
        (
            'patch_embed.weight',
            "'patch_embed.proj.weight' and 'patch_embed.weight' are both 'patch_embed.w",
        ),
        (0, 'entry 0 of type Tensor: expected names and tensors only; save the state'),
    ],
)
def test_names_that_are_no_names_of_weights(tmp_path, name, message, monkeypatch):
    rules = [(r'patch_embed\.(?:proj\.)?(.+)', r'patch_embed.\1'), (r'.+', r'\g<0>')]
    path = tmp_path / 'deit.pth'
    tensors = deit_file(path)
    torch.save({'model': tensors | {name: torch.ones(1)}}, path)
    branch = vit()
    monkeypatch.setattr(branch, 'weight_rules', lambda: rules)
    with pytest.raises(ValueError, match=rf'^{path}: {re.escape(message)}'):
        load_pretrained(branch, path)


@pytest.mark.parametrize(
    ('content', 'found'),
    [
        ({}, r'the keys \[\]'),
        ({'optimizer': {'state': {}}, 'epoch': 3}, r"the keys \['optimizer', 'epoch'\]"),
        ({'net': {'a': torch.ones(1)}}, r"the keys \['net'\]"),
        ([torch.ones(1)], 'list'),
        (torch.ones(1), 'Tensor'),
    ],
)
def test_files_without_weights(tmp_path, content, found):
    path = tmp_path / 'other.pth'
    torch.save(content, path)
    with pytest.raises(ValueError, match=rf'^{path}: the file holds no weights.*{found}'):
        load_pretrained(vit(), path)


@pytest.mark.parametrize('shape', [(32, 768), (32, 3, 2, 16, 16), (32, 3, 14, 16)])
def test_patch_kernels_of_another_kind(tmp_path, shape):
    path = tmp_path / 'deit.pth'
    tensors = deit_file(path)
    torch.save(tensors | {'patch_embed.proj.weight': torch.zeros(shape)}, path)
    message = rf'^{path}, patch_embed.weight: .*: expected \(C, 3, k, k\)'
    with pytest.raises(ValueError, match=message):
        load_pretrained(vit(), path)


WEIGHTS = dict(type='Pretrained', checkpoint='a.pth')


@pytest.mark.parametrize(
    'init_cfg, message',
    [
        ('a.pth', r"init_cfg='a.pth': expected a dict such as dict\(type='Pretrained'"),
        (['a.pth'], r"init_cfg=\['a.pth'\]: expected a dict"),
        (
            dict(checkpoint='a.pth'),
            'unknown type None of init_cfg .* one of .*, Pretrained',
        ),
        (dict(WEIGHTS, type='Pretraned'), "unknown type 'Pretraned' .* Pretrained"),
        (dict(type='Pretrained'), 'init_cfg.checkpoint=None: expected a path, a URL or'),
        (dict(WEIGHTS, checkpoint=''), "init_cfg.checkpoint='': expected a path"),
        (
            dict(WEIGHTS, prefx='a.'),
            r"unknown keys \['prefx'\] of init_cfg; choose .*prefix",
        ),
        (dict(WEIGHTS, prefix='.'), "prefix='.': expected the beginning of the names"),
        (dict(WEIGHTS, prefix=2), 'prefix=2: expected the beginning of the names'),
        (
            [dict(type='Xavier', layer='Linear'), WEIGHTS],
            'has other entries next to the pretrained',
        ),
        ([WEIGHTS, WEIGHTS], 'loads 2 files into one branch'),
    ],
)
def test_a_wrong_init_cfg_fails_when_the_branch_is_built(init_cfg, message):
    with pytest.raises(ValueError, match=message):
        vit(init_cfg=init_cfg)
    if init_cfg != [WEIGHTS, WEIGHTS]:
        with pytest.raises(ValueError, match=message):
            network_of(None, init_cfg)


KINDS = [
    'Pretrained',
    PretrainedInit,
    'mmengine.Pretrained',
    'mmengine.model.PretrainedInit',
    'mmengine.model.weight_init.PretrainedInit',
]


@pytest.mark.parametrize('kind', KINDS)
def test_weights_of_a_network_replace_those_of_its_branches(tmp_path, kind):
    path = str(tmp_path / 'deit.pth')
    deit_file(path)
    expected = network_of(None).state_dict()
    torch.save(expected, tmp_path / 'network.pth')
    whole = dict(type=kind, checkpoint=str(tmp_path / 'network.pth'))
    network = network_of(dict(type='Pretrained', checkpoint=path), whole)
    network.init_weights()
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize('kind', KINDS)
def test_every_way_to_write_the_type(tmp_path, kind):
    path = str(tmp_path / 'deit.pth')
    # Of another size, which MMEngine's own loader would leave out.
    tensors = deit_file(path, grid=6, patch=14)
    branch = vit(init_cfg=dict(type=kind, checkpoint=path, map_location='cpu'))
    before = branch.patch_embed.weight.clone()
    branch.init_weights()
    assert not torch.equal(branch.patch_embed.weight, before)
    weight = tensors['blocks.0.attn.qkv.weight']
    torch.testing.assert_close(branch.blocks[0].attn.qkv.weight, weight)


def network(**kwargs):
    arch = dict(embed_dims=32, num_layers=2, num_heads=2)
    branch = dict(type='PIIPViT', arch=arch, pretrain_img_size=64)
    return MODELS.build(
        dict(
            type='PIIP',
            branches=[dict(branch, img_size=size, **kwargs) for size in (64, 48)],
            num_interactions=2,
            interaction=dict(num_heads=4),
        )
    )


@pytest.mark.parametrize('prefix', ['backbone.branches.1.', 'backbone.branches.1'])
@pytest.mark.parametrize('wrapper', ['state_dict', 'module'])
def test_a_branch_of_a_checkpoint(tmp_path, prefix, wrapper):
    path = str(tmp_path / 'piip.pth')
    trained = network()
    names = {f'backbone.{name}': value for name, value in trained.state_dict().items()}
    torch.save({wrapper: {**names, 'neck.weight': torch.zeros(2)}}, path)
    init_cfg = dict(type='Pretrained', checkpoint=path, prefix=prefix)
    # Its position embedding is resized like that of other files.
    branch = vit(init_cfg=init_cfg, pretrain_img_size=96)
    branch.init_weights()
    source = trained.branches[1].state_dict()
    for name, value in branch.state_dict().items():
        if name == 'pos_embed':
            assert value.shape == (1, 36, 32) and source[name].shape == (1, 16, 32)
        else:
            torch.testing.assert_close(value, source[name])
    shallow = dict(embed_dims=32, num_layers=1, num_heads=2)
    with pytest.raises(ValueError, match=r'has blocks.1.\S+, which the branch does not'):
        vit(init_cfg=init_cfg, arch=shallow).init_weights()


def test_a_branch_of_a_published_checkpoint(tmp_path):
    case = golden.load('p1_three_branch_deit')
    names = {f'backbone.{name}': value for name, value in case.state_dict.items()}
    path = str(tmp_path / 'released.pth')
    torch.save({'module': names}, path)
    config = migrate_config(case.kind, case.kwargs)
    complete = MODELS.build(config)
    complete.load_state_dict(case.state_dict)
    # Published branch 2 of 3 is branch 1.
    branch = MODELS.build(config).branches[1]
    load_pretrained(branch, path, 'backbone.branch2')
    for name, value in complete.branches[1].state_dict().items():
        torch.testing.assert_close(branch.state_dict()[name], value)


@pytest.mark.parametrize(
    'prefix, there',
    [
        ('branches.0.', "'backbone.', 'neck.'"),
        ('backbone.branch.0.', "'backbone.branches.', 'backbone.interactions.', "),
        ('backbone.branches.2.', "'backbone.branches.0.', 'backbone.branches.1.'$"),
        ('backbone.branches.0.pos.', "'backbone.branches.0.blocks.', .*0.pos_embed'$"),
    ],
)
def test_a_prefix_that_is_not_there(tmp_path, prefix, there):
    path = str(tmp_path / 'piip.pth')
    names = {f'backbone.{name}': value for name, value in network().state_dict().items()}
    torch.save({'state_dict': {**names, 'neck.weight': torch.zeros(2)}}, path)
    with pytest.raises(ValueError, match=f"begin with '{prefix}'; there are {there}"):
        load_pretrained(vit(), path, prefix)
