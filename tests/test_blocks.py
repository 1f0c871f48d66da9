"""Properties of blocks, injectors and pyramids that outputs alone hardly reveal."""

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import nn

from piip_mm.models import merging
from piip_mm.models.init import init_new_layers
from piip_mm.models.interaction import Injector
from piip_mm.models.layers import Block, DeformableCrossAttention, SelfAttention
from piip_mm.models.pyramid import Pyramid
from piip_mm.weights.report import compare
from piip_mm.weights.resize import resize_rows


def branch(**kwargs):
    arch = dict(embed_dims=32, num_layers=4, num_heads=4)
    defaults = dict(type='PIIPViT', arch=arch, img_size=64, pretrain_img_size=64)
    return MODELS.build({**defaults, **kwargs})


def test_windows_and_global_blocks():
    built = branch(window_size=3, global_attn_indexes=[1, 3])
    assert [b.attn.window_size for b in built.blocks] == [3, None, 3, None]
    built = branch(window_size=[3, 2, None, 4], global_attn_indexes=[0])
    assert [b.attn.window_size for b in built.blocks] == [None, 2, None, 4]


def test_a_block_against_its_formula():
    """In float64 and at a scale at which the eps of the norms matters."""
    block = Block(16, SelfAttention(16, 2), init_values=0.5).double()
    x = 1e-3 * torch.randn(2, 12, 16, dtype=torch.float64)

    def norm(layer, x):
        scaled = (x - x.mean(-1, keepdim=True)) * (
            x.var(-1, keepdim=True, unbiased=False) + 1e-6
        ).rsqrt()
        return scaled * layer.weight + layer.bias

    expected = x + 0.5 * block.attn(norm(block.norm1, x), (3, 4))
    hidden = F.gelu(block.mlp.fc1(norm(block.norm2, expected)), approximate='none')
    expected = expected + 0.5 * block.mlp.fc2(hidden)
    torch.testing.assert_close(block(x, (3, 4)), expected)


def test_tanh_gelu():
    block = Block(16, SelfAttention(16, 2), mlp_act='gelu_tanh').double()
    x = torch.randn(1, 4, 16, dtype=torch.float64)
    tanh = F.gelu(block.mlp.fc1(x), approximate='tanh')
    torch.testing.assert_close(block.mlp(x), block.mlp.fc2(tanh))
    exact = block.mlp.fc2(F.gelu(block.mlp.fc1(x)))
    assert (block.mlp(x) - exact).abs().max() > 1e-6


def test_drop_path_is_constant_over_the_blocks():
    built = branch(drop_path_rate=0.3)
    assert [b.drop_path.drop_prob for b in built.blocks] == [0.3] * 4


def test_drop_path_skips_both_parts_of_a_block():
    block = Block(16, SelfAttention(16, 2), drop_path_rate=0.999).train()
    x = torch.randn(64, 4, 16)
    torch.manual_seed(0)
    assert torch.equal(block(x, (2, 2)), x)
    assert not torch.equal(block.eval()(x, (2, 2)), x)


def test_drop_path_scales_what_it_keeps():
    """By 1 / (1 - rate), so that the expected sum is that of the evaluation."""
    block = Block(16, SelfAttention(16, 2), drop_path_rate=0.5)
    injector = Injector(16, 16, num_heads=2, drop_path_rate=0.5)
    nn.init.zeros_(block.ls2.gamma)
    nn.init.ones_(injector.gamma_ffn)
    x = torch.randn(64, 4, 16)
    for module, args in ((block, (x, (2, 2))), (injector, (x, x, (2, 2), (2, 2)))):
        added = module.eval()(*args) - x
        ratio = (module.train()(*args) - x).flatten(1).norm(dim=1)
        ratio = ratio / added.flatten(1).norm(dim=1)
        kept = ratio > 0
        assert 10 < kept.sum() < 54
        torch.testing.assert_close(ratio[kept], torch.full_like(ratio[kept], 2))


@pytest.mark.parametrize('attn', ['deform', 'regular'])
def test_drop_path_of_interactions_is_on_the_ffn_only(attn):
    injector = Injector(32, 32, attn=attn, num_heads=4, drop_path_rate=0.999).train()
    nn.init.ones_(injector.gamma_attn)
    nn.init.ones_(injector.gamma_ffn)
    query, feat = torch.randn(32, 4, 32), torch.randn(32, 9, 32)
    torch.manual_seed(0)
    out = injector(query, feat, (2, 2), (3, 3))
    projected = injector.feat_norm(injector.proj(feat))
    attended = injector.attn(injector.query_norm(query), projected, (2, 2), (3, 3))
    torch.testing.assert_close(out, query + attended)


@pytest.mark.parametrize(
    ('cfg', 'eps'),
    [
        (dict(type='PIIPViT'), 1e-6),
        (dict(type='PIIPViT', norm='RMS', qk_norm=True), 1e-6),
        (dict(type='PIIPBEiT'), 1e-6),
        (dict(type='PIIPUniPerceiver'), 1e-5),
        (dict(type='PIIPConvNeXt', arch=dict(depths=(1,) * 4, dims=(8,) * 4)), 1e-6),
    ],
)
def test_eps_of_the_norms_of_a_family(cfg, eps):
    """Outputs of ordinary size hardly depend on it, pretrained weights do."""
    arch = dict(embed_dims=32, num_layers=2, num_heads=2)
    arch |= {name: cfg.pop(name) for name in ('norm', 'qk_norm') if name in cfg}
    window = {'window_size': 4} if cfg['type'] == 'PIIPBEiT' else {}
    built = MODELS.build(dict(arch=arch, img_size=64) | window | cfg)
    found = [module.eps for module in built.modules() if hasattr(module, 'eps')]
    assert len(found) >= 4 and set(found) == {eps}


def test_widths_inside_an_injector_are_truncated():
    injector = Injector(32, 32, num_heads=3, ffn_ratio=0.3, value_ratio=0.49)
    assert injector.ffn.fc1.out_features == 9
    assert injector.attn.value_proj.out_features == 15


def test_norms_of_interactions():
    injector = Injector(32, 64, num_heads=4)
    norms = [m for m in injector.modules() if isinstance(m, nn.LayerNorm)]
    assert len(norms) == 3 and {norm.eps for norm in norms} == {1e-6}
    bare = Injector(32, 64, num_heads=4, proj=False, norm=None)
    assert not [m for m in bare.modules() if isinstance(m, nn.LayerNorm)]
    assert bare.attn.value_proj.in_features == 64


@pytest.mark.parametrize(
    ('layer', 'std'),
    [
        (nn.Linear(256, 128), 0.02),
        (nn.Conv2d(32, 128, 3), (2 / (9 * 128)) ** 0.5),
        (nn.Conv2d(512, 512, 3, groups=512), (2 / 9) ** 0.5),
        (nn.ConvTranspose2d(64, 128, 2, 2), (2 / (4 * 128)) ** 0.5),
    ],
    ids=str,
)
def test_initial_values_of_layers_without_pretrained_weights(layer, std):
    torch.manual_seed(0)
    init_new_layers(nn.Sequential(layer))
    assert layer.weight.std().item() == pytest.approx(std, rel=0.05)
    assert abs(layer.weight.mean().item()) < 0.05 * std
    assert not layer.bias.any()


def test_interactions_of_a_network_keep_their_initial_offsets():
    cfg = dict(type='PIIPViT', img_size=64, pretrain_img_size=64)
    cfg['arch'] = dict(embed_dims=32, num_layers=2, num_heads=4)
    interaction = dict(num_heads=4)
    network = MODELS.build(
        dict(type='PIIP', branches=[cfg] * 2, num_interactions=2, interaction=interaction)
    )
    alone = DeformableCrossAttention(32, 32, num_heads=4)
    modules = [m for m in network.modules() if isinstance(m, DeformableCrossAttention)]
    assert len(modules) == 4
    for module in modules:
        assert torch.equal(module.sampling_offsets.bias, alone.sampling_offsets.bias)
        assert not module.sampling_offsets.weight.any()


def test_checkpointing_recomputes_the_blocks(monkeypatch):
    calls = []
    original = Block.forward
    monkeypatch.setattr(
        Block, 'forward', lambda *args: calls.append(1) or original(*args)
    )
    built = branch(with_cp=True)
    tokens, grid = built.embed(torch.randn(1, 3, 64, 64))
    tokens, _ = built.run(tokens, grid, 0, 4)
    assert len(calls) == 4
    tokens.sum().backward()
    assert len(calls) == 8


def test_baseline_pyramid_against_its_formula():
    """Channels-first LayerNorm with eps 1e-6, at a scale at which the eps matters."""
    cfg = dict(type='PIIPViT', img_size=64, pretrain_img_size=64)
    cfg['arch'] = dict(embed_dims=32, num_layers=1, num_heads=4)
    network = MODELS.build(dict(type='ViTPyramid', branch=cfg))
    up4 = network.pyramid.levels[0]
    nn.init.normal_(up4[0].weight, std=1e-4)
    x = torch.randn(1, 32, 4, 4)
    x1, x2, x3, x4 = network.pyramid([x] * 4)
    hidden = up4[0](x)
    centred = hidden - hidden.mean(1, keepdim=True)
    hidden = centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(x1, up4[3](F.gelu(hidden)))
    torch.testing.assert_close(x2, network.pyramid.levels[1](x))
    torch.testing.assert_close(x3, x)
    torch.testing.assert_close(x4, F.max_pool2d(x, 2))


def test_pyramid_against_its_formula():
    """GroupNorm with eps 1e-5, at a scale at which the eps matters."""
    up4 = Pyramid([64], [16], [4]).levels[0]
    nn.init.normal_(up4[0].weight, std=1e-4)
    x = torch.randn(1, 64, 4, 3)
    hidden = up4[0](x).unflatten(1, (32, 2))
    centred = hidden - hidden.mean((2, 3, 4), keepdim=True)
    hidden = centred / (centred.square().mean((2, 3, 4), keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(up4(x), up4[3](F.gelu(hidden.flatten(1, 2))))


def test_merge_against_its_formula():
    """3 x 3 convolution, GroupNorm with eps 1e-5 and ReLU, twice, on small maps."""
    merge = merging.BranchMerge({0: 64, 1: 32}, 64, light=False, main=1)
    tokens = [torch.randn(1, 12, 64) * 1e-3, torch.randn(1, 6, 32) * 1e-3]
    grids = [(4, 3), (3, 2)]
    nn.init.constant_(merge.scales['1'], 0.3)
    expected = 0
    for layers, x, grid in zip(merge.branches.values(), tokens, grids, strict=True):
        x = x.transpose(1, 2).unflatten(2, grid)
        for conv in (layers[0], layers[3]):
            x = F.conv2d(x, conv.weight, padding=1).unflatten(1, (32, 2))
            x = x - x.mean((2, 3, 4), keepdim=True)
            x = x / (x.square().mean((2, 3, 4), keepdim=True) + 1e-5).sqrt()
            x = x.flatten(1, 2).relu()
        scale = 1 if grid == grids[0] else 0.3
        x = F.interpolate(x, grids[0], mode='bilinear', align_corners=False)
        expected = expected + scale * x
    torch.testing.assert_close(merge(tokens, grids, (4, 3)), expected)


@pytest.mark.parametrize('shape', [(), (1,)])
@pytest.mark.parametrize('assign', [True, False])
def test_files_of_the_weights_of_a_merge(shape, assign):
    """Scalars, as in published files, or vectors of one number."""
    scales = nn.ModuleDict({'scales': merging.BranchScales([0, 2])})
    file = {f'scales.{i}': torch.full(shape, i + 0.5) for i in (0, 2)}
    scales.load_state_dict(file, assign=assign)
    assert [(x.shape, x.item()) for x in scales.parameters()] == [
        (torch.Size([1]), 0.5),
        (torch.Size([1]), 2.5),
    ]
    assert {name: x.item() for name, x in scales.state_dict().items()} == {
        'scales.0': 0.5,
        'scales.2': 2.5,
    }
    assert {x.ndim for x in scales.state_dict().values()} == {0}
    assert compare(file, scales).misfits == []


@pytest.mark.parametrize('ffn_ratio', [0.25, None])
@pytest.mark.parametrize('attn', ['deform', 'regular'])
def test_injectors_keep_the_tokens_in_float32_under_autocast(attn, ffn_ratio):
    """What is added has 16 bits, but not what it is added to."""
    injector = Injector(32, 32, attn=attn, num_heads=4, ffn_ratio=ffn_ratio)
    query, feat = torch.randn(1, 4, 32), torch.randn(1, 9, 32)
    with torch.autocast('cpu', torch.bfloat16):
        out = injector(query, feat, (2, 2), (3, 3))
    # The scales start at zero, so that a rounded sum would show.
    assert out.dtype == torch.float32
    assert torch.equal(out, query)


def test_maps_and_position_embeddings_are_interpolated_in_float32(monkeypatch):
    seen = []
    original = F.interpolate

    def interpolate(x, *args, **kwargs):
        seen.append(x.dtype)
        return original(x, *args, **kwargs)

    monkeypatch.setattr(merging.F, 'interpolate', interpolate)
    merge = merging.BranchMerge({0: 32, 1: 32}, 32, light=False, main=1).bfloat16()
    tokens = [torch.randn(1, n, 32).bfloat16() for n in (16, 9)]
    merge(tokens, [(4, 4), (3, 3)], (4, 4))
    assert seen == [torch.float32]
    rows = torch.randn(1, 16, 8).bfloat16()
    assert resize_rows(rows, (4, 4), (3, 5)).dtype == torch.float32
