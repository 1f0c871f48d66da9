"""What holds for the branches of every family, and what is refused of a new one."""

import copy

import pytest
import torch
import torch.distributed
from mmengine.registry import MODELS
from mmengine.runner.activation_checkpointing import turn_on_activation_checkpointing
from timm_models import ALL
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.fsdp.wrap import CustomPolicy

from piip_mm.models.branches import Branch

ARCH = dict(embed_dims=32, num_layers=3, num_heads=2)
FAMILIES = {
    'ViT': dict(type='PIIPViT', arch=ARCH),
    'BEiT': dict(type='PIIPBEiT', arch=ARCH, window_size=4),
    'Uni-Perceiver': dict(type='PIIPUniPerceiver', arch=ARCH),
    'ConvNeXt': dict(
        type='PIIPConvNeXt', arch=dict(depths=(1, 1, 2, 1), dims=(8, 16, 24, 32))
    ),
    **{
        name: dict(type='PIIPTimm', model=model, model_kwargs=kwargs)
        for name, (model, kwargs) in ALL.items()
    },
}
SOME = [
    *('ViT', 'BEiT', 'Uni-Perceiver', 'ConvNeXt', 'class token', 'RoPE of each block'),
    *('shifted windows', 'shifted windows, v2', 'mask units', 'SAM 2', 'DINOv3'),
    *('ByobNet', 'DaVit'),
]


def network(name, **options):
    """The branch of a family and a small ViT, with random weights."""
    torch.manual_seed(0)
    cfg = {**FAMILIES[name], 'img_size': 96}
    depth = MODELS.build(dict(cfg)).depth
    built = MODELS.build(
        dict(
            type='PIIP',
            branches=[cfg, {**FAMILIES['ViT'], 'img_size': 64}],
            num_interactions=1,
            interaction_ends=[[depth - 1], [2]],
            interaction=dict(num_heads=1),
            **{'out_type': 'maps', **options},
        )
    )
    for parameter in built.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return built.eval()


def blocks(built):
    """Modules of all blocks with parameters, by name."""
    modules = {
        id(module)
        for branch in built.branches
        for block in branch.block_modules()
        for module in block
        if [*module.parameters()]
    }
    return {name: m for name, m in built.named_modules() if id(m) in modules}


def backward(built, image):
    """Maps, and gradients by name."""
    maps = built(image)
    sum(x.square().mean() for x in maps).backward()
    return maps, {n: p.grad for n, p in built.named_parameters() if p.grad is not None}


def assert_same(found, expected):
    """Up to rounding, relative to the largest gradient of each parameter."""
    torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=1e-4)
    assert found[1].keys() == expected[1].keys()
    for name, grad in expected[1].items():
        other = getattr(found[1][name], 'full_tensor', lambda name=name: found[1][name])()
        assert (other - grad).abs().max() <= 1e-4 * grad.abs().max() + 1e-9, name


# --- Blocks ---------------------------------------------------------------------------


@pytest.mark.parametrize('name', FAMILIES)
def test_every_block_is_called_once(name):
    built, calls = network(name), []
    for block in blocks(built):
        module = built.get_submodule(block)
        module.register_forward_hook(lambda *_, block=block: calls.append(block))
    built(torch.randn(1, 3, 96, 128))
    assert sorted(calls) == sorted(blocks(built))


@pytest.mark.parametrize('name', SOME)
def test_activation_checkpointing_by_mmengine(name):
    built, image = network(name), torch.randn(1, 3, 96, 128)
    expected = backward(built, image)
    saving, calls = network(name), []
    names = blocks(saving)
    turn_on_activation_checkpointing(saving, list(names))
    for name, block in names.items():
        parts = [m for m in block.modules() if [*m.parameters(recurse=False)]]
        part = next(m for m in parts if m is not block)
        part.register_forward_hook(lambda *_, name=name: calls.append(name))
    assert_same(backward(saving, image), expected)
    # A part may be called several times in one pass, and twice as often in two.
    assert all(calls.count(name) % 2 == 0 and name in calls for name in names)


@pytest.fixture
def mesh(tmp_path):
    if not hasattr(torch.cpu.Stream, 'record_event'):
        pytest.skip('FSDP of this PyTorch does not run on the CPU')
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1
    )
    yield init_device_mesh('cpu', (1,))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize('name', SOME)
def test_fsdp_by_block(name, mesh):
    built, image = network(name), torch.randn(1, 3, 96, 128)
    sharded = copy.deepcopy(built)
    for block in blocks(sharded).values():
        fully_shard(block, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    assert_same(backward(sharded, image), backward(built, image))


@pytest.mark.parametrize('first', [True, False])
def test_fsdp_of_a_network_with_a_merge(first, mesh):
    built = network('ViT', out_type='pyramid', out_strides=[8, 16])
    image = torch.randn(1, 3, 96, 128)
    expected = backward(built, image)
    if first:
        own = set(blocks(built).values())
        policy = CustomPolicy(lambda module: module in own)
        sharded = FullyShardedDataParallel(
            built, mesh.get_group(), auto_wrap_policy=policy, device_id=mesh.device_type
        )
        torch.testing.assert_close(sharded(image), expected[0])
        return
    for block in blocks(built).values():
        fully_shard(block, mesh=mesh)
    fully_shard(built, mesh=mesh)
    built.zero_grad()
    assert_same(backward(built, image), expected)


@pytest.mark.parametrize('name', FAMILIES)
def test_parameters_may_be_plain_tensors(name):
    """The first version of FSDP replaces the parameters outside its units by tensors."""
    built, image = network(name), torch.randn(1, 3, 96, 128)
    expected = built(image)
    for module in built.branches[0].modules():
        for key, parameter in [*module.named_parameters(recurse=False)]:
            delattr(module, key)
            setattr(module, key, parameter.data)
    torch.testing.assert_close(built(image), expected)


def test_a_branch_is_not_called():
    branch = MODELS.build({**FAMILIES['ViT'], 'img_size': 64})
    with pytest.raises(NotImplementedError, match=r'PIIPViT cannot be called: .* embed'):
        branch(torch.randn(1, 3, 64, 64))


# --- Channels -------------------------------------------------------------------------


def test_images_of_four_channels():
    timm = dict(type='PIIPTimm', model='test_vit', model_kwargs=dict(in_chans=4))
    vit = {**FAMILIES['ViT'], 'in_channels': 4}
    cfg = dict(type='PIIP', num_interactions=1, interaction=dict(num_heads=1))
    cfg.update(out_type='maps', interaction_ends=[[5], [2]])
    branches = [{**timm, 'img_size': 96}, {**vit, 'img_size': 64}]
    built = MODELS.build({**cfg, 'branches': branches})
    maps = built(torch.randn(2, 4, 96, 128))
    assert [tuple(x.shape) for x in maps] == [(2, 64, 6, 8), (2, 32, 4, 5)]
    with pytest.raises(ValueError, match=r'\(2, 3, 96, 96\): expected images \(B, 4, H'):
        built(torch.randn(2, 3, 96, 96))
    del branches[1]['in_channels']
    with pytest.raises(ValueError, match=r'images of \[4, 3\] channels, .*in_channels'):
        MODELS.build({**cfg, 'branches': branches})


# --- New families ---------------------------------------------------------------------


class NewBranch(Branch):
    """Two linear blocks."""

    embedding = ('stem',)

    def __init__(self, num_blocks=2, dims=(8, 8), strides=(4, 4), norm=None, **kwargs):
        super().__init__(img_size=32, dims=dims, strides=strides, **kwargs)
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.blocks = nn.ModuleList(norm or nn.Linear(8, 8) for _ in range(num_blocks))

    def embed(self, image): ...

    def run(self, tokens, grid, start, stop): ...


def test_a_new_family_is_frozen_without_its_help():
    branch = NewBranch(frozen_stages=1)
    assert {n for n, p in branch.named_parameters() if p.requires_grad} == {
        'blocks.1.weight',
        'blocks.1.bias',
    }
    assert not branch.stem.training and branch.blocks[1].training


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(num_blocks=3), 'NewBranch has 3 blocks, but dims and strides for 2'),
        (dict(num_blocks=1), 'NewBranch has 1 blocks, but dims and strides for 2'),
        (dict(dims=(8,)), '1 dims and 2 strides: expected one of each'),
        (dict(dims=(), strides=()), '0 dims and 0 strides: expected one of each'),
        (dict(dims=(8, 0)), r'dims\[1\]=0: expected an integer of at least 1'),
        (dict(strides=4), 'strides=4: expected a list'),
        (dict(norm_eval=True), 'norm_eval=True, but this NewBranch has no BatchNorm'),
        (dict(norm=nn.BatchNorm1d(8), with_cp=True), 'set norm_eval=True or with_cp=Fal'),
    ],
)
def test_a_new_family_that_is_not_what_it_says(options, message):
    with pytest.raises(ValueError, match=message):
        NewBranch(**options)


def test_a_new_family_with_other_names():
    class OtherStem(NewBranch):
        embedding = ('stem', 'pos_embed')

    class OtherBlocks(NewBranch):
        def __init__(self):
            super().__init__()
            self.layers = self.blocks
            del self.blocks

    for cls, name in ((OtherStem, 'pos_embed'), (OtherBlocks, 'blocks')):
        with pytest.raises(
            ValueError, match=rf"{cls.__name__}' object has no attribute '{name}'; a br"
        ):
            cls()
