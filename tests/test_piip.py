"""The N-branch backbone: construction, shapes, gradients, precision, errors."""

import copy

import pytest
import torch
from gradients import check_gradients, enliven
from mmengine.registry import MODELS
from torch import nn
from torch.overrides import TorchFunctionMode

import piip_mm
from piip_mm.models.directions import DIRECTIONS
from piip_mm.weights.resize import resize_rows


def branch(embed_dims=32, img_size=64, num_layers=4, num_heads=4, **kwargs):
    arch = dict(embed_dims=embed_dims, num_layers=num_layers, num_heads=num_heads)
    return dict(
        type='PIIPViT', arch=arch, img_size=img_size, pretrain_img_size=64, **kwargs
    )


def config(num_branches=3, **kwargs):
    """A tiny PIIP; its first branch has 96 pixels and 32 channels."""
    branches = [
        branch(32 * (i + 1), 96 - 16 * i, 4 if i < 2 else 8, window_size=3)
        for i in range(num_branches)
    ]
    defaults = dict(
        type='PIIP',
        branches=branches,
        num_interactions=4,
        interaction=dict(num_heads=4),
    )
    return {**defaults, **kwargs}


def build(**kwargs):
    torch.manual_seed(0)
    return MODELS.build(config(**kwargs))


def test_is_in_the_root_registry():
    for name in ('PIIP', 'PIIPViT', 'ViTPyramid'):
        assert MODELS.get(name).__module__.startswith('piip_mm.')


@pytest.mark.parametrize('num_branches', [2, 3, 4, 5])
def test_any_number_of_branches(num_branches):
    network = build(num_branches=num_branches)
    maps = network(torch.randn(2, 3, 96, 128))
    dims = 32 * num_branches
    sizes = [(24, 32), (12, 16), (6, 8), (3, 4)]
    assert [tuple(m.shape) for m in maps] == [(2, dims, *size) for size in sizes]


@pytest.mark.parametrize('attn', ['deform', 'regular'])
@pytest.mark.parametrize('direction', list(DIRECTIONS))
@pytest.mark.parametrize('num_interactions', [2, 4])
def test_every_parameter_gets_a_gradient(attn, direction, num_interactions):
    interaction = dict(attn=attn, direction=direction, num_heads=4)
    network = build(interaction=interaction, num_interactions=num_interactions)
    enliven(network)
    sum(m.square().mean() for m in network(torch.randn(1, 3, 96, 96))).backward()
    check_gradients(network)


@pytest.mark.parametrize(
    'kwargs',
    [
        dict(num_interactions=0),
        dict(num_interactions=2),
        dict(merge_branches=[2]),
        dict(merge_branches=[0]),
        dict(merge_branches=[0, 2]),
        dict(out_strides=(8, 16, 32)),
        dict(out_strides=(16,)),
        dict(interaction=dict(num_heads=4, ffn_ratio=None)),
        dict(interaction=dict(num_heads=4, proj=False, norm=None)),
    ],
    ids=str,
)
def test_parameters_that_nothing_reads_do_not_exist(kwargs):
    network = enliven(build(**kwargs))
    maps = network(torch.randn(1, 3, 96, 96))
    assert len(maps) == len(kwargs.get('out_strides', (4, 8, 16, 32)))
    sum(m.square().mean() for m in maps).backward()
    check_gradients(network)


def test_a_new_network_starts_as_its_branches_alone():
    """All scales of the interactions start at zero."""
    together = build().eval()
    alone = build(num_interactions=0).eval()
    missing = alone.load_state_dict(together.state_dict(), strict=False)
    assert not missing.missing_keys
    image = torch.randn(1, 3, 96, 96)
    for ours, theirs in zip(together(image), alone(image), strict=True):
        torch.testing.assert_close(ours, theirs)
    changed = enliven(together)(image)[0]
    assert (changed - alone(image)[0]).abs().max() > 1e-3


def test_edges_of_one_unit_read_what_was_before_it():
    """Reading the first edge's result in the second one would change the outputs."""
    network = enliven(build(num_branches=2)).eval()
    simultaneous = network.interactions[0]
    in_turn = copy.deepcopy(simultaneous)
    in_turn.pattern = tuple((edge,) for step in in_turn.pattern for edge in step)
    tokens = [torch.randn(1, 36, 32), torch.randn(1, 25, 64)]
    grids = [(6, 6), (5, 5)]
    ours, other = simultaneous(tokens, grids), in_turn(tokens, grids)
    torch.testing.assert_close(ours[0], other[0])
    assert (ours[1] - other[1]).abs().max() > 1e-4


@pytest.mark.parametrize('size', [(96, 96), (97, 111), (70, 50), (41, 64)])
def test_sizes_that_do_not_divide(size):
    maps = build()(torch.randn(1, 3, *size))
    height, width = (side // 16 for side in size)
    assert [tuple(m.shape[2:]) for m in maps] == [
        (height * 4, width * 4),
        (height * 2, width * 2),
        (height, width),
        (height // 2, width // 2),
    ]


def test_pixels_that_fill_no_patch_do_not_count():
    """Both branches have the same size, so that resampling does not mix pixels."""
    branches = [branch(32, 64), branch(64, 64)]
    network = build(branches=branches).eval()
    image = torch.randn(1, 3, 71, 79)
    cropped = image[..., :64, :64]
    for ours, theirs in zip(network(image), network(cropped), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_input_too_small_for_a_branch():
    message = (
        r'branch 2 sees the 20 x 96 input at 13 x 64 pixels, too small for patches of '
        r'16 and output strides \(4,\); use inputs of at least 24 pixels per side'
    )
    network = build(out_strides=(4,)).eval()
    with pytest.raises(ValueError, match=message):
        network(torch.randn(1, 3, 20, 96))
    network(torch.randn(1, 3, 24, 24))


def test_input_too_small_for_an_output_map():
    message = (
        r'branch 0 sees the 96 x 31 input at 96 x 31 pixels, .* strides \(4, 8, 16, 32\);'
        r' use inputs of at least 32 pixels per side'
    )
    network = build().eval()
    with pytest.raises(ValueError, match=message):
        network(torch.randn(1, 3, 96, 31))
    assert network(torch.randn(1, 3, 32, 32))[3].shape == (1, 96, 1, 1)


def test_the_position_embedding_is_left_alone_on_its_own_grid():
    vit = MODELS.build(branch())
    assert resize_rows(vit.pos_embed, (4, 4), (4, 4)) is vit.pos_embed
    assert resize_rows(vit.pos_embed, (4, 4), (3, 5)).shape == (1, 15, 32)


@pytest.mark.parametrize('drop_path_rate', [0.0, 0.3])
def test_checkpointing_gives_equal_gradients(drop_path_rate):
    gradients = []
    for with_cp in (False, True):
        cfg = config(num_branches=2)
        cfg['interaction'].update(with_cp=with_cp, drop_path_rate=drop_path_rate)
        for branch_cfg in cfg['branches']:
            branch_cfg.update(with_cp=with_cp, drop_path_rate=drop_path_rate)
        torch.manual_seed(0)
        network = enliven(MODELS.build(cfg)).train()
        torch.manual_seed(1)
        sum(m.sum() for m in network(torch.ones(2, 3, 96, 96))).backward()
        gradients.append({n: p.grad for n, p in network.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_bfloat16_autocast():
    network = enliven(build()).eval()
    image = torch.randn(1, 3, 96, 96)
    exact = network(image)
    with torch.autocast('cpu', torch.bfloat16):
        rounded = network(image)
    for ours, theirs in zip(rounded, exact, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - theirs).abs().mean() < 0.05 * theirs.abs().mean()
        assert (ours - theirs).abs().max() > 0


@pytest.mark.parametrize('kind', ['PIIPViT', 'PIIPUniPerceiver'])
@pytest.mark.parametrize('image_size', [64, 96])
def test_positions_are_not_rounded_under_autocast(kind, image_size):
    cfg = branch()
    vit = MODELS.build({**cfg, 'type': kind, 'arch': dict(cfg['arch'], init_values=None)})
    # Only positions are left of the tokens, and nothing of the blocks.
    for module in (vit.patch_embed, *vit.blocks.modules()):
        for parameter in module.parameters():
            nn.init.zeros_(parameter)
    image = torch.randn(1, 3, image_size, image_size)
    exact, _ = vit.embed(image)
    assert not torch.equal(exact, exact.bfloat16().float())
    with torch.autocast('cpu', torch.bfloat16):
        tokens, _ = vit.run(*vit.embed(image), 0, 4)
    torch.testing.assert_close(tokens, exact, rtol=0, atol=0)


class _HostCopies(TorchFunctionMode):
    """Records calls that make a tensor of Python numbers or move one between devices."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **kwargs or {})
        constructors = (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor)
        moved = isinstance(out, torch.Tensor) and {
            x.device for x in args if isinstance(x, torch.Tensor)
        } - {out.device}
        if func in constructors or moved:
            self.found.append(func)
        return out


@pytest.mark.parametrize('attn', ['deform', 'regular'])
def test_nothing_is_copied_from_the_host(attn):
    """On a GPU each copy would make the host wait; the meta device stands for one."""
    with torch.device('meta'):
        network = build(interaction=dict(num_heads=4, attn=attn))
        image = torch.randn(2, 3, 96, 128)
    with _HostCopies() as copies:
        network(image)
        assert not copies.found
        image.new_tensor([1.0])
        torch.ones(1, device='cpu').to(image.device)
    assert len(copies.found) == 2


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_weights_of_16_bits(dtype):
    """Every rounding is off by up to half of eps. Some 60 of them follow each other on
    the way to a map, and random ones add up like their square root."""
    network = enliven(build()).eval()
    image = torch.randn(1, 3, 96, 96)
    exact = network(image)
    outputs = network.to(dtype)(image.to(dtype))
    for ours, theirs in zip(outputs, exact, strict=True):
        assert ours.dtype == dtype
        error = (ours.float() - theirs).abs().mean() / theirs.abs().mean()
        assert error < 60**0.5 * torch.finfo(dtype).eps / 2


def test_float64():
    network = enliven(build()).eval()
    image = torch.randn(1, 3, 96, 96)
    exact = network.double()(image.double())
    for ours, theirs in zip(network.float()(image), exact, strict=True):
        assert theirs.dtype == torch.float64
        torch.testing.assert_close(ours, theirs.float(), rtol=1e-4, atol=1e-4)


def test_frozen_stages():
    cfg = config(num_branches=2)
    cfg['branches'][0]['frozen_stages'] = 2
    network = MODELS.build(cfg)
    trained = {
        name.removeprefix('branches.0.').rsplit('.', 1)[0]
        for name, parameter in network.named_parameters()
        if parameter.requires_grad and name.startswith('branches.0.')
    }
    assert {name.split('.')[1] for name in trained} == {'2', '3'}
    network.train()
    assert not network.branches[0].blocks[1].training
    assert network.branches[0].blocks[2].training


def test_frozen_stages_of_blocks_that_are_not_built():
    built = MODELS.build(branch(frozen_stages=4))
    built.truncate(2)
    built.train()
    trained = {name for name, p in built.named_parameters() if p.requires_grad}
    assert not trained and not any(block.training for block in built.blocks)


def test_blocks_that_nothing_reads_are_not_built():
    """Only the first branch is merged, so the last one is read up to the third stage."""
    network = enliven(build(merge_branches=[0]))
    assert [branch.depth for branch in network.branches] == [4, 4, 6]
    assert network.ends[2] == (1, 3, 5)
    layer_id, layers = network.get_layer_depth('branches.2.blocks.5.ls1.gamma')
    assert (layer_id, layers) == (6, 10)


def test_layer_depth():
    """Layer ids of a network whose deepest branch has 8 blocks, and the others 4."""
    network = build()
    ids = {
        name: network.get_layer_depth(f'backbone.{name}', 'backbone.')
        for name, _ in network.named_parameters()
    }
    assert {layers for _, layers in ids.values()} == {10}
    assert ids['branches.0.pos_embed'][0] == 0
    assert ids['branches.2.patch_embed.weight'][0] == 0
    blocks = [ids[f'branches.0.blocks.{i}.ls1.gamma'][0] for i in range(4)]
    assert blocks == [2, 4, 6, 8]
    deep = [ids[f'branches.2.blocks.{i}.ls1.gamma'][0] for i in range(8)]
    assert deep == list(range(1, 9))
    rest = {ids[n][0] for n in ids if not n.startswith('branches.')}
    assert rest == {9}


def test_layer_depth_is_rounded_down():
    branches = [branch(32, 64, 4), branch(64, 64, 6)]
    network = build(branches=branches, num_interactions=2)
    blocks = [
        network.get_layer_depth(f'branches.0.blocks.{i}.ls1.gamma')[0] for i in range(4)
    ]
    assert blocks == [1, 3, 4, 6]


def test_interaction_ends():
    ends = [[0, 3], [1, 3], [3, 7]]
    network = build(interaction_ends=ends, num_interactions=2)
    assert network.ends == [(0, 3), (1, 3), (3, 7)]
    runs = []
    for index, part in enumerate(network.branches):
        original = part.run

        def run(tokens, grid, start, stop, index=index, original=original):
            runs.append((index, start, stop))
            return original(tokens, grid, start, stop)

        part.run = run
    network(torch.randn(1, 3, 96, 96))
    assert runs == [(0, 0, 1), (1, 0, 2), (2, 0, 4), (0, 1, 4), (1, 2, 4), (2, 4, 8)]


BUILD_ERRORS = {
    r'at least two branches, got 1.*ViTPyramid': dict(branches=[branch()]),
    r'4 blocks of branch 0 cannot be split evenly into num_interactions=3': dict(
        num_interactions=3
    ),
    r'groups \[2, 1, 2\] for 3 branches and num_interactions=2': dict(
        interaction_ends=[[1, 3], [3], [3, 7]], num_interactions=2
    ),
    r'interaction_ends \(3, 1\) of branch 0: expected increasing': dict(
        interaction_ends=[[3, 1], [1, 3], [3, 7]], num_interactions=2
    ),
    r'interaction_ends \(1, 2\) of branch 1: .* end with its last block, 3': dict(
        interaction_ends=[[1, 3], [1, 2], [3, 7]], num_interactions=2
    ),
    r'img_size increases from 64 \(branch 0\) to 96 \(branch 1\)': dict(
        branches=[branch(32, 64), branch(64, 96)]
    ),
    r'width 30 is not divisible by num_heads 4': dict(branches=[branch(30), branch(64)]),
    r'merged width 48 is not divisible by GroupNorm groups 32': dict(
        branches=[branch(32), branch(48)]
    ),
    r'value width .*int\(32 \* 0\.5\).* 16 is not divisible by num_heads 5': dict(
        interaction=dict(num_heads=5)
    ),
    r"unknown interaction attn 'window'; choose one of 'deform', 'regular'": dict(
        interaction=dict(attn='window')
    ),
    r"unknown direction 'up'; choose one of 'neighbours', 'alternating', 'cycle'": dict(
        interaction=dict(direction='up')
    ),
    r"backend 'triton'; choose one of 'auto', 'mmcv', 'deformops', 'torch'": dict(
        interaction=dict(num_heads=4, backend='triton')
    ),
    r"unknown interaction norm 'BN'; choose one of 'LN', None": dict(
        interaction=dict(num_heads=4, norm='BN')
    ),
    r"unknown arch 'deit_xs'; choose one of 'deit_tiny'": dict(
        branches=[dict(type='PIIPViT', arch='deit_xs', img_size=64), branch()]
    ),
    r"unknown keys \['width'\], missing keys \['num_layers', 'num_heads'\]": dict(
        branches=[
            dict(type='PIIPViT', arch=dict(embed_dims=8, width=8), img_size=64),
            branch(),
        ]
    ),
    r'stride 2 cannot be reached from a map of stride 16; choose from 4, 8, 16, 32': dict(
        out_strides=(2, 4)
    ),
    r'out_strides is empty': dict(out_strides=()),
    r'merge_branches \[3\]: expected different branches from 0 to 2': dict(
        merge_branches=[3]
    ),
    r'img_size 8 is smaller than one patch of 16': dict(
        branches=[branch(), branch(64, 8)]
    ),
    r'window_size has 2 values for 4 blocks': dict(
        branches=[branch(window_size=[3, 3]), branch(64)]
    ),
    r'global_attn_indexes \(4,\): block 4 does not exist, there are blocks 0 to 3': dict(
        branches=[branch(global_attn_indexes=[4]), branch(64)]
    ),
    r'frozen_stages=9: expected -1 \(none\) to 4': dict(
        branches=[branch(frozen_stages=9), branch(64)]
    ),
    r"unknown mlp_act 'relu'; choose one of 'gelu', 'gelu_tanh'": dict(
        branches=[branch(mlp_act='relu'), branch(64)]
    ),
    r"img_size='64': expected an integer of at least 1": dict(
        branches=[branch(img_size='64'), branch(64)]
    ),
    r'patch_size=0: expected an integer of at least 1': dict(
        branches=[branch(patch_size=0), branch(64)]
    ),
    r'pretrain_img_size=8: expected an integer of at least 16': dict(
        branches=[{**branch(), 'pretrain_img_size': 8}, branch(64)]
    ),
    r'arch.num_layers=0: expected an integer of at least 1': dict(
        branches=[branch(num_layers=0), branch(64)]
    ),
    r'drop_path_rate=1.0: expected a probability from 0 to below 1': dict(
        branches=[branch(drop_path_rate=1.0), branch(64)]
    ),
    r'window_size=3.5: expected an integer of at least 1': dict(
        branches=[branch(window_size=3.5), branch(64)]
    ),
    r"unknown keys \['heads'\] of interaction; choose from direction, attn, num": dict(
        interaction=dict(heads=4), num_interactions=0
    ),
    r"\['num_points'\] belong to attn='deform', not to 'regular'": dict(
        interaction=dict(attn='regular', num_points=4)
    ),
    r'num_points=0: expected an integer of at least 1': dict(
        interaction=dict(num_points=0)
    ),
    r'ffn_ratio=0: expected a number above 0': dict(
        interaction=dict(num_heads=4, ffn_ratio=0)
    ),
    r'direction 5: expected one of .*, or a list of patterns': dict(
        interaction=dict(direction=5)
    ),
    r'num_interactions=2.0: expected an integer of at least 0': dict(
        num_interactions=2.0
    ),
    r"branches='ab': expected a list": dict(branches='ab'),
    r'out_strides=16: expected a list': dict(out_strides=16),
    r"out_strides\[0\]='4': expected a number above 0": dict(out_strides=['4']),
    r'merge_branches \[0, 0\]: expected different branches': dict(merge_branches=[0, 0]),
    r'interaction_ends are given, but num_interactions=0': dict(
        interaction_ends=[[3], [3], [7]], num_interactions=0
    ),
}


@pytest.mark.parametrize('message', BUILD_ERRORS, ids=lambda m: m[:40])
def test_errors_when_built(message):
    with pytest.raises(ValueError, match=message):
        build(**BUILD_ERRORS[message])


def test_builds_without_memory():
    with torch.device('meta'):
        network = build()
    assert all(p.is_meta for p in network.parameters())


def test_version():
    assert piip_mm.__version__.count('.') == 2
