"""ConvNeXt: compared with timm's, the published network and its counts."""

import re

import golden
import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from timm.models.convnext import ConvNeXt, ConvNeXtBlock
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import piip_mm  # noqa: F401
from piip_mm.analysis import Count, build_on_meta, count_backbone
from piip_mm.published import migrate_config, migrate_state_dict
from piip_mm.weights.pretrained import load_pretrained

# Flat: 0 1 | 2 (down) 3 | 4 (down) 5 6 7 | 8 (down) 9. The second stage has the width of
# the first.
DEPTHS = (2, 1, 3, 1)
DIMS = (32, 32, 64, 96)
LAST_BLOCKS = [1, 3, 7, 9]
DOWNSAMPLING = [2, 4, 8]

# Grids of 34 x 26, 17 x 13, 8 x 6 and 4 x 3: the last two stages drop a remainder.
IMAGE = (139, 107)


def branch(**kwargs):
    defaults = dict(arch=dict(depths=DEPTHS, dims=DIMS), img_size=64)
    return MODELS.build(dict(type='PIIPConvNeXt', **{**defaults, **kwargs}))


@pytest.fixture(scope='module')
def reference():
    """timm's network with random weights that give every parameter an effect."""
    torch.manual_seed(0)
    network = ConvNeXt(depths=DEPTHS, dims=DIMS, num_classes=5).eval()
    for param in network.parameters():
        nn.init.normal_(param, mean=float(param.ndim == 1), std=0.3)
    return network


def to_original(weights):
    """timm's names to those of the original release."""
    renamed = {}
    for name, tensor in weights.items():
        name = name.replace('stem.', 'downsample_layers.0.')
        name = re.sub(r'stages\.(\d)\.downsample', r'downsample_layers.\1', name)
        name = name.replace('.blocks.', '.').replace('conv_dw', 'dwconv')
        name = name.replace('mlp.fc', 'pwconv').replace('head.norm', 'norm')
        renamed[name.replace('head.fc', 'head')] = tensor
    return renamed


def to_hugging_face(weights, prefix=''):
    """timm's names to those of Hugging Face's ConvNextModel."""
    renamed = {}
    for name, tensor in weights.items():
        name = name.replace('stem.0', 'embeddings.patch_embeddings')
        name = name.replace('stem.1', 'embeddings.layernorm')
        name = name.replace('.downsample.', '.downsampling_layer.')
        name = name.replace('.blocks.', '.layers.').replace('conv_dw', 'dwconv')
        name = name.replace('mlp.fc', 'pwconv').replace('.norm.', '.layernorm.')
        name = name.replace('gamma', 'layer_scale_parameter')
        name = name.replace('stages.', 'encoder.stages.')
        name = name.replace('head.layernorm', 'layernorm')
        is_head = name.startswith('head.fc')
        name = name.replace('head.fc', 'classifier') if is_head else prefix + name
        renamed[name] = tensor
    return renamed


DIALECTS = {
    'timm': (dict, ['head.fc.bias', 'head.fc.weight', 'head.norm.bias']),
    'original': (to_original, ['head.bias', 'head.weight', 'norm.bias']),
    'hugging_face': (to_hugging_face, ['classifier.bias', 'classifier.weight']),
    'hugging_face_head': (
        lambda weights: to_hugging_face(weights, 'convnext.'),
        ['classifier.bias', 'classifier.weight', 'convnext.layernorm.bias'],
    ),
}


def save(weights, path):
    torch.save({'model': weights}, path)
    return str(path)


def stage_maps(network, image):
    """Maps of a branch after the last block of each stage."""
    tokens, grid = network.embed(image)
    maps, start = [], 0
    for block in LAST_BLOCKS:
        tokens, grid = network.run(tokens, grid, start, block + 1)
        maps.append(tokens.transpose(1, 2).unflatten(2, grid))
        start = block + 1
    return maps


@pytest.mark.parametrize('dialect', DIALECTS)
def test_pretrained_weights_give_the_maps_of_timm(dialect, reference, tmp_path):
    renamed, dropped = DIALECTS[dialect]
    path = save(renamed(reference.state_dict()), tmp_path / 'convnext.pth')
    loaded = branch(init_cfg=dict(type='Pretrained', checkpoint=path)).eval()
    loaded.init_weights()
    report = load_pretrained(loaded, path)
    assert not report.missing and not report.resized
    assert len(report.dropped) == 4 and set(dropped) <= set(report.dropped)
    image = torch.randn(2, 3, *IMAGE)
    with torch.no_grad():
        expected = reference.forward_intermediates(image, intermediates_only=True)
        for ours, theirs in zip(stage_maps(loaded, image), expected, strict=True):
            assert golden.Sampled.of(theirs).deviation(ours) < golden.OUTPUT_TOLERANCE


def test_names_of_hugging_face_are_those_of_the_recording():
    case = golden.load('p5_hybrid_convnext_vit_regular_fpn')
    arch = case.convnext_archs['toy/convnext-a']
    network = ConvNeXt(depths=arch['depths'], dims=arch['hidden_sizes'], num_classes=0)
    names = to_hugging_face(network.state_dict(), 'branch3.convnext_model.')
    recorded = {k: v for k, v in case.state_dict.items() if k.startswith('branch3')}
    assert {k: v.shape for k, v in names.items()} == {
        k: v.shape for k, v in recorded.items()
    }


def test_flat_blocks():
    tiny = MODELS.build(dict(type='PIIPConvNeXt', arch='convnext_tiny', img_size=224))
    widths, strides = tiny.dims, tiny.strides
    assert len(tiny.blocks) == tiny.depth == 21
    kinds = [isinstance(block, ConvNeXtBlock) for block in tiny.blocks]
    assert [i for i, is_block in enumerate(kinds) if not is_block] == [3, 7, 17]
    assert strides == (4,) * 3 + (8,) * 4 + (16,) * 10 + (32,) * 4
    assert widths == (96,) * 3 + (192,) * 4 + (384,) * 10 + (768,) * 4
    with torch.device('meta'):
        base = MODELS.build(dict(type='PIIPConvNeXt', arch='convnext_base', img_size=224))
    assert base.depth == 39 and base.dims[-1] == 1024


def test_grids_are_floored():
    network = branch()
    tokens, grid = network.embed(torch.randn(1, 3, *IMAGE))
    assert grid == (34, 26) and tokens.shape == (1, 34 * 26, 32)
    grids = []
    for block in range(network.depth):
        tokens, grid = network.run(tokens, grid, block, block + 1)
        assert tokens.shape == (1, grid[0] * grid[1], network.dims[block])
        grids.append(grid)
    assert [grids[block] for block in LAST_BLOCKS] == [(34, 26), (17, 13), (8, 6), (4, 3)]
    assert grids[1] != grids[2] == grids[3]


def test_formulas_where_eps_matters():
    """In float64 and at a scale at which the eps of each norm matters."""
    network = branch(layer_scale_init_value=0.5).double()
    for param in network.parameters():
        nn.init.normal_(param, std=0.3)

    def norm(layer, x):
        scaled = (x - x.mean(1, keepdim=True)) * (
            x.var(1, keepdim=True, unbiased=False) + 1e-6
        ).rsqrt()
        return scaled * layer.weight[:, None, None] + layer.bias[:, None, None]

    image = 1e-3 * torch.randn(1, 3, 24, 24, dtype=torch.float64)
    conv, stem_norm = network.stem
    nn.init.zeros_(conv.bias)
    tokens, grid = network.embed(image)
    expected = norm(stem_norm, F.conv2d(image, conv.weight, stride=4))
    torch.testing.assert_close(tokens.transpose(1, 2).unflatten(2, grid), expected)

    x = 1e-3 * torch.randn(1, 32, 6, 6, dtype=torch.float64)
    down_norm, conv = network.blocks[2]
    tokens, grid = network.run(x.flatten(2).transpose(1, 2), (6, 6), 2, 3)
    expected = F.conv2d(norm(down_norm, x), conv.weight, conv.bias, stride=2)
    torch.testing.assert_close(tokens.transpose(1, 2).unflatten(2, grid), expected)

    block = network.blocks[0]
    nn.init.zeros_(block.conv_dw.bias)
    tokens, grid = network.run(x.flatten(2).transpose(1, 2), (6, 6), 0, 1)
    hidden = norm(block.norm, F.conv2d(x, block.conv_dw.weight, padding=3, groups=32))
    hidden = hidden.flatten(2).transpose(1, 2) @ block.mlp.fc1.weight.T
    hidden = F.gelu(hidden + block.mlp.fc1.bias, approximate='none')
    hidden = block.gamma * (hidden @ block.mlp.fc2.weight.T + block.mlp.fc2.bias)
    torch.testing.assert_close(tokens, x.flatten(2).transpose(1, 2) + hidden)


def test_drop_path_grows_over_the_blocks_but_down_sampling():
    network = branch(drop_path_rate=0.3)
    blocks = [block for block in network.blocks if isinstance(block, ConvNeXtBlock)]
    rates = [getattr(block.drop_path, 'drop_prob', 0.0) for block in blocks]
    assert rates == pytest.approx([0.05 * i for i in range(7)])


def test_initial_layer_scale():
    assert branch().blocks[0].gamma.tolist() == pytest.approx([1e-6] * 32)
    assert branch(layer_scale_init_value=None).blocks[0].gamma is None


def test_checkpointing_recomputes_the_blocks(monkeypatch):
    image = torch.randn(1, 3, 64, 64)
    plain, recomputed = branch(), branch(with_cp=True)
    recomputed.load_state_dict(plain.state_dict())
    calls = []
    original = ConvNeXtBlock.forward
    monkeypatch.setattr(
        ConvNeXtBlock, 'forward', lambda *args: calls.append(1) or original(*args)
    )
    for network, expected in ((plain, 7), (recomputed, 14)):
        calls.clear()
        stage_maps(network, image)[-1].square().mean().backward()
        assert len(calls) == expected
    for ours, theirs in zip(plain.parameters(), recomputed.parameters(), strict=True):
        assert ours.grad.any()
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_all_parameters_have_the_top_layer_id():
    network = branch()
    ids = {network.get_layer_depth(f'x.{n}', 'x.') for n, _ in network.named_parameters()}
    assert ids == {(11, 12)}


def test_frozen_stages_and_truncate():
    network = branch(frozen_stages=3).train()
    frozen = [n for n, p in network.named_parameters() if not p.requires_grad]
    assert frozen == [
        n
        for n, _ in network.named_parameters()
        if n.startswith(('stem', 'blocks.0.', 'blocks.1.', 'blocks.2.'))
    ]
    assert not network.blocks[2].training and network.blocks[3].training
    network.truncate(4)
    assert len(network.blocks) == network.depth == 4
    assert (network.dims[-1], network.strides[-1], network.min_size) == (32, 8, 8)
    tokens, grid = network.embed(torch.randn(1, 3, 9, 15))
    assert network.run(tokens, grid, 0, 4)[1] == (1, 1)


def test_cut_blocks_of_a_file_are_dropped(reference, tmp_path):
    network = branch()
    network.truncate(4)
    path = save(to_original(reference.state_dict()), tmp_path / 'convnext.pth')
    report = load_pretrained(network, path)
    assert not report.missing
    assert 'downsample_layers.2.0.weight' in report.dropped
    assert 'stages.2.0.dwconv.weight' in report.dropped
    assert 'stages.1.0.dwconv.weight' not in report.dropped


@pytest.mark.parametrize(
    ('depths', 'message'),
    [
        ((2, 1, 4, 1), r"lacks 8 tensors of .*'blocks.8.conv_dw.weight'"),
        ((2, 1, 2, 1), r'has stages.2.blocks.2.gamma, which the branch does not have'),
    ],
)
def test_weights_of_another_depth_are_refused(depths, message, reference, tmp_path):
    path = save(reference.state_dict(), tmp_path / 'convnext.pth')
    with pytest.raises(ValueError, match=message):
        load_pretrained(branch(arch=dict(depths=depths, dims=DIMS)), path)


def test_weights_of_another_family_are_refused(reference, tmp_path):
    second = {
        'stages.0.0.grn.gamma': torch.zeros(1),
        **to_original(reference.state_dict()),
    }
    path = save(second, tmp_path / 'convnext_v2.pth')
    with pytest.raises(
        ValueError, match=r'has stages.0.0.grn.gamma, which does not occur'
    ):
        load_pretrained(branch(), path)
    path = save(reference.state_dict(), tmp_path / 'convnext.pth')
    wide = branch(arch=dict(depths=DEPTHS, dims=(64, 64, 64, 96)))
    with pytest.raises(ValueError, match=r'\(32, 3, 4, 4\) in the file, \(64, 3, 4, 4\)'):
        load_pretrained(wide, path)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(img_size=31), r'img_size 31 is smaller .* 32 pixels'),
        (dict(arch='convnext_nano'), r"unknown arch 'convnext_nano'.*'convnext_tiny'"),
        (dict(arch=7), r'arch=7: expected the name of a preset or a dict'),
        (
            dict(arch=dict(depths=DEPTHS)),
            r"missing keys \['dims'\]",
        ),
        (
            dict(arch=dict(depth=1)),
            r"unknown keys \['depth'\], missing keys \['depths', ",
        ),
        (
            dict(arch=dict(depths=(1, 2, 3), dims=DIMS)),
            r'arch.depths=\(1, 2, 3\): expected one value for each of the 4 stages',
        ),
        (
            dict(arch=dict(depths=DEPTHS, dims=(8, 0, 8, 8))),
            r'arch.dims\[1\]=0: expected an integer of at least 1',
        ),
        (dict(drop_path_rate=1.0), r'drop_path_rate=1.0: expected a probability'),
        (dict(frozen_stages=11), r'frozen_stages=11: expected -1 \(none\) to 10'),
    ],
)
def test_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        branch(**kwargs)


ARCHS = {'toy/convnext-x': dict(depths=list(DEPTHS), hidden_sizes=list(DIMS))}
SINGLE = dict(pretrained='toy/convnext-x', real_size=64, single_branch=True)


def test_published_baseline(reference):
    config = migrate_config('det.ConvNextHFWrapper', SINGLE, ARCHS)
    assert (config['out_strides'], config['out_blocks']) == ([4, 8, 16, 32], LAST_BLOCKS)
    published = to_hugging_face(reference.state_dict(), 'convnext_model.')
    del published['classifier.weight'], published['classifier.bias']
    network = MODELS.build(config).eval()
    network.load_state_dict(migrate_state_dict(published, config), strict=True)
    image = torch.randn(1, 3, *IMAGE)
    with torch.no_grad():
        expected = reference.forward_intermediates(image, intermediates_only=True)
        for ours, theirs in zip(network(image), expected, strict=True):
            assert golden.Sampled.of(theirs).deviation(ours) < golden.OUTPUT_TOLERANCE


def test_published_baseline_by_name():
    kwargs = {**SINGLE, 'pretrained': 'facebook/convnext-base-224-22k', 'real_size': 1024}
    config = migrate_config('det.ConvNextHFWrapper', kwargs)
    assert config['branch']['arch'] == 'convnext_base'
    assert config['branch']['img_size'] == 1024
    assert config['out_blocks'] == [2, 6, 34, 38]


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(single_branch=False), r'single_branch=False: .* with single_branch=True'),
        (dict(with_simple_fpn=True), r'with_simple_fpn=True cannot be migrated'),
        (dict(pretrained='toy/convnext-y'), r"'toy/convnext-y': expected a name like"),
        (dict(pretrained='facebook/convnextv2-tiny-1k-224'), r'expected a name like'),
        (dict(pretrained='facebook/convnext-nano-224'), r"unknown arch 'convnext_nano'"),
        (dict(downsample_ratios=[4, 8, 16, 32]), r'do not fit .* \[4, 4, 8, 8, 16, 16, '),
        (dict(depth=3), r"arguments of a ConvNeXt branch .* \{'depth': 3\}"),
    ],
)
def test_published_baseline_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        migrate_config('det.ConvNextHFWrapper', {**SINGLE, **kwargs}, ARCHS)


def test_published_names_without_an_architecture():
    archs = {'toy/convnext-x': dict(depths=DEPTHS)}
    with pytest.raises(ValueError, match=r'expected depths and hidden_sizes'):
        migrate_config('det.ConvNextHFWrapper', SINGLE, archs)


def test_published_branch_has_to_run_to_its_end():
    vit = dict(real_size=32, depth=2, embed_dim=32, num_heads=2, pretrained='deit.pth')
    groups = [[0, 0], [1, 1]]
    convnext = dict(pretrained='toy/convnext-x', real_size=64)
    kwargs = dict(
        branch1=dict(**vit, interaction_indexes=groups),
        branch2=dict(**vit, interaction_indexes=groups),
        branch3=dict(**convnext, interaction_indexes=[[0, 4], [5, 7]]),
        deform_num_heads=2,
        with_simple_fpn=False,
    )
    with pytest.raises(ValueError, match=r'8 blocks of .* only all 10 of them can be'):
        migrate_config('det.PIIPThreeBranch', kwargs, ARCHS)


@pytest.mark.parametrize(
    ('arch', 'size', 'params', 'flops'),
    [
        ('convnext_tiny', 1024, 27820128, 93152083968),
        ('convnext_small', 672, 49454688, 78183076608),
        ('convnext_base', 448, 87566464, 61436497920),
        ('convnext_base', 1024, 87566464, 320974356480),
    ],
)
def test_published_counts(arch, size, params, flops):
    """Counts of the branches of the released models and of the baseline."""
    network = build_on_meta(
        dict(
            type='ViTPyramid',
            branch=dict(type='PIIPConvNeXt', arch=arch, img_size=size),
            out_strides=(32,),
        )
    )
    # The published count includes a final norm that nothing reads.
    expected = Count(params - 2 * network.branch.dims[-1], flops)
    parts = count_backbone(network)['as released']
    assert parts['branch'] == expected
    assert parts['self-attention'] == Count()


def test_counts_as_run():
    """PyTorch's counter measures products; hooks measure norms and convolution biases."""
    config = migrate_config('det.ConvNextHFWrapper', SINGLE, ARCHS)
    network = MODELS.build(config).eval()
    extra = []

    def add(module, inputs, output):
        is_norm = isinstance(module, nn.LayerNorm)
        extra.append(2 * inputs[0].numel() if is_norm else output.numel())

    for module in network.modules():
        if isinstance(module, (nn.LayerNorm, nn.Conv2d)):
            module.register_forward_hook(add)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, *IMAGE))
    parts = count_backbone(build_on_meta(config), IMAGE)['as run']
    assert parts['branch'].flops == counter.get_total_flops() // 2 + sum(extra)
    assert parts['branch'].params == sum(p.numel() for p in network.parameters())
