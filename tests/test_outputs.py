"""Outputs of a network: regular pyramids, and maps or class tokens of the branches."""

import pytest
import torch
from gradients import check_gradients, enliven
from mmengine.registry import MODELS

CONVNEXT = dict(
    type='PIIPConvNeXt', arch=dict(depths=(1, 1, 2, 1), dims=(16, 24, 32, 64))
)


def vit(dims, img_size, **kwargs):
    arch = dict(embed_dims=dims, num_layers=4, num_heads=4)
    return dict(
        type='PIIPViT', arch=arch, img_size=img_size, pretrain_img_size=64, **kwargs
    )


def build(*branches, **kwargs):
    torch.manual_seed(0)
    branches = branches or (vit(32, 96), vit(64, 64))
    defaults = dict(interaction=dict(num_heads=4), num_interactions=4)
    return enliven(
        MODELS.build(dict(type='PIIP', branches=branches, **defaults | kwargs))
    )


def backward(outputs):
    sum((x * torch.randn_like(x)).sum() for x in outputs).backward()


def cls_branches():
    return [vit(32, 96, with_cls_token=True), vit(64, 64, with_cls_token=True)]


@pytest.mark.parametrize('hierarchical', [False, True])
def test_regular_pyramid(hierarchical):
    """Each level is merged after a different interaction."""
    low = vit(64, 64)
    if hierarchical:
        ends = [[0, 2, 5, 7], [0, 1, 2, 3]]
        network = build(
            dict(CONVNEXT, img_size=96), low, interaction_ends=ends,
            out_interactions=[0, 1, 2],
        )  # fmt: skip
        assert not any(True for _ in network.pyramid.parameters())
    else:
        network = build(vit(32, 96), low, out_interactions=[0, 1, 2])
    maps = network(torch.randn(2, 3, 96, 128))
    sizes = [(24, 32), (12, 16), (6, 8), (3, 4)]
    assert [tuple(x.shape) for x in maps] == [(2, 64, *size) for size in sizes]
    assert len(network.merges) == 4
    backward(maps)
    check_gradients(network)


def test_an_early_map_does_not_see_later_blocks():
    network = build(out_interactions=[0, 1, 2]).eval()
    image = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        before = network(image)
        network.branches[0].blocks[2].mlp.fc2.weight.add_(1)
        after = network(image)
    unchanged = [torch.equal(x, y) for x, y in zip(before, after, strict=True)]
    assert unchanged == [True, True, False, False]


def test_light_merge_has_no_convolution_for_the_last_branch():
    network = build(out_interactions=[0, 1, 2])
    for merge in network.merges:
        kinds = {
            name: [type(layer).__name__ for layer in layers]
            for name, layers in merge.branches.items()
        }
        assert kinds == {'0': ['Conv2d', 'GroupNorm', 'ReLU'], '1': ['GroupNorm', 'ReLU']}


def test_interactions_that_only_an_early_map_reads_are_built():
    """Branch 1 is merged early; nothing reads what it receives afterwards."""
    one_way = [[[(0, 1)]], [[(1, 0)]], [[(0, 1)]], [[(0, 1)]]]
    options = dict(interaction=dict(num_heads=4, direction=one_way), merge_branches=[0])
    late = build(**options)
    assert [len(stage.injectors) for stage in late.interactions] == [1, 1, 0, 0]
    tapped = build(**options, out_interactions=[0, 1, 2])
    assert [len(stage.injectors) for stage in tapped.interactions] == [1, 1, 0, 0]
    backward(tapped(torch.randn(1, 3, 96, 96)))
    check_gradients(tapped)


def test_strides_of_a_first_branch_whose_last_blocks_are_removed():
    """Nothing reads the last stage of the ConvNeXt, which would halve its grid."""
    convnext = dict(
        type='PIIPConvNeXt',
        arch=dict(depths=(1, 1, 1, 1), dims=(32, 32, 32, 32)),
        img_size=128,
    )
    vits = [vit(32, 96), vit(64, 64)]
    options = dict(
        branches=[convnext, *vits],
        num_interactions=2,
        interaction=dict(num_heads=4, direction='alternating'),
        interaction_ends=[[2, 6], [1, 3], [1, 3]],
        merge_branches=[2],
    )
    with pytest.raises(ValueError, match=r'stride 32 .* from a map of stride 8; choose'):
        MODELS.build(dict(type='PIIP', out_strides=(32,), **options))
    network = MODELS.build(dict(type='PIIP', out_strides=(4, 8), **options))
    maps = network(torch.randn(1, 3, 128, 128))
    assert [x.shape[2] for x in maps] == [32, 16]


def test_maps_of_the_branches():
    network = build(out_type='maps')
    maps = network(torch.randn(2, 3, 96, 128))
    assert [tuple(x.shape) for x in maps] == [(2, 32, 6, 8), (2, 64, 4, 5)]
    backward(maps)
    check_gradients(network)


@pytest.mark.parametrize('alone', [False, True])
@pytest.mark.parametrize('out_type', ['maps', 'cls_tokens', 'pyramid'])
def test_type_of_the_outputs(out_type, alone):
    """Float32 under autocast, otherwise that of the model."""
    network = build(*cls_branches(), out_type=out_type, num_interactions=0)
    if alone:
        branch = cls_branches()[0]
        network = MODELS.build(dict(type='ViTPyramid', branch=branch, out_type=out_type))
    image = torch.randn(1, 3, 96, 96)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        outputs = network.to(dtype)(image.to(dtype))
        assert {x.dtype for x in outputs} == {dtype}
    # The tokens of a family whose blocks end in a convolution have 16 bits there.
    for branch in network.branch_list:
        branch.blocks[-1].register_forward_hook(lambda *args: args[-1].bfloat16())
    with torch.autocast('cpu', torch.bfloat16):
        assert {x.dtype for x in network(image)} == {torch.float32}


@pytest.mark.parametrize('out_type', ['maps', 'cls_tokens', 'pyramid'])
def test_class_tokens_travel_along(out_type):
    network = build(*cls_branches(), out_type=out_type)
    outputs = network(torch.randn(2, 3, 96, 96))
    if out_type == 'cls_tokens':
        assert [tuple(x.shape) for x in outputs] == [(2, 32), (2, 64)]
    backward(outputs)
    check_gradients(network)


def test_units_leave_class_tokens_alone():
    network = build(*cls_branches(), out_type='cls_tokens')
    tokens = [torch.randn(1, 37, 32), torch.randn(1, 17, 64)]
    for old in tokens:
        old.requires_grad_()
    updated = network._interact(0, tokens, [(6, 6), (4, 4)])
    for old, new in zip(tokens, updated, strict=True):
        assert torch.equal(old[:, 0], new[:, 0])
        assert not torch.equal(old[:, 1:], new[:, 1:])
        (grad,) = torch.autograd.grad(new[:, 0].sum(), old)
        assert (grad[:, 0] == 1).all() and not grad[:, 1:].any()


def test_nothing_reads_the_last_stage_of_a_class_token_network():
    network = build(*cls_branches(), out_type='cls_tokens')
    assert [len(stage.injectors) for stage in network.interactions] == [2, 2, 2, 0]
    assert [branch.depth for branch in network.branches] == [4, 4]
    kept = build(*cls_branches(), out_type='maps')
    assert [len(stage.injectors) for stage in kept.interactions] == [2, 2, 2, 2]


def test_position_of_the_class_token():
    arch = dict(embed_dims=32, num_layers=1, num_heads=4, cls_pos_row=True)
    cfg = dict(type='PIIPViT', arch=arch, img_size=64, pretrain_img_size=64)
    branch = MODELS.build(dict(cfg, with_cls_token=True, cls_pos=True))
    tokens, _ = branch.embed(torch.zeros(1, 3, 64, 64))
    expected = branch.cls_token[0, 0] + branch.pos_embed[0, 0]
    torch.testing.assert_close(tokens[0, 0], expected)
    branch = MODELS.build(dict(cfg, with_cls_token=True))
    tokens, _ = branch.embed(torch.zeros(1, 3, 64, 64))
    torch.testing.assert_close(tokens[0, 0], branch.cls_token[0, 0])
    torch.testing.assert_close(tokens[0, 1:], branch.pos_embed[0, 1:])


@pytest.mark.parametrize('out_type', ['maps', 'cls_tokens', 'pyramid'])
def test_a_branch_alone(out_type):
    branch = vit(32, 64, with_cls_token=True)
    network = MODELS.build(dict(type='ViTPyramid', branch=branch, out_type=out_type))
    outputs = network(torch.randn(2, 3, 64, 96))
    shapes = {'maps': [(2, 32, 4, 6)], 'cls_tokens': [(2, 32)]}
    if out_type in shapes:
        assert [tuple(x.shape) for x in outputs] == shapes[out_type]
    backward(outputs)
    check_gradients(network)


def test_blocks_of_a_branch_alone():
    branch = dict(CONVNEXT, img_size=64)
    cfg = dict(type='ViTPyramid', branch=branch, out_blocks=[0, 2, 5, 7])
    network = MODELS.build(cfg)
    outputs = network(torch.randn(1, 3, 64, 96))
    assert [x.shape[1] for x in outputs] == [16, 24, 32, 64]
    assert [x.shape[3] for x in outputs] == [24, 12, 6, 3]
    backward(outputs)
    check_gradients(network)


def test_blocks_after_the_last_level_are_not_built():
    cfg = dict(type='ViTPyramid', branch=vit(32, 64), out_blocks=[0, 1, 1, 2])
    network = MODELS.build(cfg)
    assert network.branch.depth == 3
    backward(network(torch.randn(1, 3, 64, 64)))
    check_gradients(network)


@pytest.mark.parametrize(
    'options, message',
    [
        (
            dict(out_type='logits'),
            r"unknown out_type 'logits'; choose one of 'pyramid', 'maps', 'cls_tokens'",
        ),
        (dict(out_type='cls_tokens'), r'branch 0 \(PIIPViT\) has no class token'),
        (
            dict(out_type='maps', merge_branches=[0]),
            r"'merge_branches': \[0\]\} are .* not of 'maps'",
        ),
        (dict(merge_branches=[True]), r'merge_branches\[0\]=True: expected an integer'),
        (
            dict(interaction_ends=[[0.0, 1, 2, 3]] * 2),
            r'interaction_ends\[0\]\[0\]=0.0: expected an integer',
        ),
        (dict(out_interactions=[0, 1]), r'\(0, 1\) for 4 out_strides; name one'),
        (dict(out_interactions=[0, 2, 1]), r'increasing numbers from 0 to 2'),
        (dict(out_interactions=[1, 2, 3]), r'increasing numbers from 0 to 2'),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(out_type='cls_tokens'), r'branch 0 \(PIIPViT\) has no class token'),
        (
            dict(out_blocks=[0, 1]),
            r'out_blocks \(0, 1\) for out_strides \(4, 8, 16, 32\)',
        ),
        (dict(out_blocks=[0, 1, 2, 4]), r'not decreasing, from 0 to 3'),
    ],
)
def test_errors_alone(options, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(dict(type='ViTPyramid', branch=vit(32, 64), **options))


def test_class_token_errors():
    with pytest.raises(ValueError, match='a class token does not belong to any window'):
        MODELS.build(vit(32, 64, with_cls_token=True, window_size=4))
    with pytest.raises(ValueError, match=r'an arch with cls_pos_row=True \(got False\)'):
        MODELS.build(vit(32, 64, with_cls_token=True, cls_pos=True))
