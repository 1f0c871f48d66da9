"""Models of timm as branches, compared with timm's own forward pass."""

import pytest
import timm
import torch
from gradients import check_gradients
from mmengine.registry import MODELS
from timm_models import CLASSES, HIERARCHICAL, PLAIN, SMALL, branch, run
from torch import nn

from piip_mm.analysis import RELEASED, RUN, build_on_meta, count_backbone
from piip_mm.models.branches.timm import ADAPTERS, PIIPTimm
from piip_mm.weights.pretrained import load_pretrained

SIZE = (160, 224)


def original(built, **kwargs):
    """timm's model with the weights of a branch, without heads."""
    model = timm.create_model(built.model, **{**built.options, **kwargs}).eval()
    rest = model.load_state_dict(built.net.state_dict(), strict=False)
    assert not rest.unexpected_keys
    return model


def to_map(tokens, grid):
    return tokens.transpose(1, 2).unflatten(2, grid)


def assert_splits(built, image, whole):
    for ends in ([1, built.depth], range(1, built.depth + 1)):
        torch.testing.assert_close(run(built, image, ends)[0], whole)


def assert_trains(built, image):
    """Check that every parameter gets a gradient."""
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    run(built, image)[0].square().sum().backward()
    check_gradients(built)


@pytest.mark.parametrize('mechanism', PLAIN)
def test_plain(mechanism):
    name, kwargs, num_prefix = PLAIN[mechanism]
    built = branch(name, kwargs).eval()
    patch = 14 if 'patch14' in name else 16
    assert built.dims == (48,) * 3 and built.strides == (patch,) * 3
    assert built.num_prefix_tokens == num_prefix and built.min_size == patch

    # A timm model of this one size, for which timm resamples its positions.
    grid = SIZE[0] // patch, SIZE[1] // patch
    size = grid[0] * patch, grid[1] * patch
    reference = original(built, dynamic_img_size=False)
    reference.set_input_size(img_size=size)
    image = torch.randn(2, 3, *SIZE)
    with torch.no_grad():
        found = reference.forward_intermediates(
            image[..., : size[0], : size[1]],
            indices=1,
            return_prefix_tokens=num_prefix > 0,
            intermediates_only=True,
        )[0]
        tokens, built_grid = run(built, image)
    expected, prefix = found if num_prefix else (found, tokens[:, :0])
    assert built_grid == grid
    torch.testing.assert_close(tokens[:, :num_prefix], prefix)
    torch.testing.assert_close(to_map(tokens[:, num_prefix:], grid), expected)
    assert_splits(built, image, tokens)
    assert_trains(built, image)


@pytest.mark.parametrize('mechanism', HIERARCHICAL)
def test_hierarchical(mechanism):
    name, kwargs = HIERARCHICAL[mechanism]
    built = branch(name, kwargs).eval()
    # timm would shrink windows that are larger than the grid, with different tables.
    sizes = [(256, 320), (288, 256)] if 'swin' in name else [SIZE, (64, 96)]
    for size in sizes:
        # A timm model of this one size, with its own windows.
        own = {'img_size': size} if 'hiera_' in name and 'sam2' not in name else {}
        if name.startswith('swin'):
            windows = [stage.blocks[0].window_size for stage in built.net.layers]
            own = {'img_size': size, 'window_size': windows, 'strict_img_size': True}
        if mechanism == 'mask units':
            reference = timm.create_model(name, **{**built.options, **own}).eval()
            state = built.net.state_dict()
            state['pos_embed'] = timm.layers.resample_abs_pos_embed(
                state['pos_embed'],
                new_size=[side // 4 for side in size],
                num_prefix_tokens=0,
            )
            assert not reference.load_state_dict(state, strict=False).unexpected_keys
        else:
            reference = original(built, **own)
        image = torch.randn(2, 3, *size)
        with torch.no_grad():
            stages = reference.forward_intermediates(image, intermediates_only=True)
            tokens, grid = run(built, image)
        assert (to_map(tokens, grid) - stages[-1]).abs().max() < 1e-5 * tokens.abs().max()
        assert_splits(built, image, tokens)
    ends = [
        sum(built.strides[i] <= 4 * 2**s for i in range(built.depth)) for s in range(4)
    ]
    for end, stage in zip(ends, stages, strict=True):
        tokens, grid = run(built, image, [end])
        assert to_map(tokens, grid).shape == stage.shape
        torch.testing.assert_close(to_map(tokens, grid), stage)
        assert built.strides[end - 1] == image.shape[2] / grid[0]
    assert_trains(built, image)


@pytest.mark.parametrize('name', CLASSES)
def test_further_classes(name):
    model, kwargs = CLASSES[name]
    built = branch(model, kwargs).eval()
    assert type(built.net).__name__ == name
    image = torch.randn(1, 3, 64, 96)
    reference = original(built)
    reference.prune_intermediate_layers(1, prune_norm=True)
    with torch.no_grad():
        expected = reference.forward_intermediates(image, intermediates_only=True)[-1]
        tokens, grid = run(built, image)
    assert (to_map(tokens, grid) - expected).abs().max() < 1e-5 * expected.abs().max()
    assert_splits(built, image, tokens)
    assert_trains(built, image)


def test_every_class_of_the_table_is_tested():
    tested = {'VisionTransformer', 'VisionTransformerDistilled', 'Eva', 'Hiera'}
    tested |= {'HieraDet', 'SwinTransformer', 'SwinTransformerV2'}
    assert set(ADAPTERS) == tested | set(CLASSES)


@pytest.mark.parametrize('mechanism', HIERARCHICAL)
@pytest.mark.parametrize('size', [(32, 32), (75, 213)])
def test_any_size(mechanism, size):
    name, kwargs = HIERARCHICAL[mechanism]
    built = branch(name, kwargs).eval()
    assert built.min_size == 32
    with torch.no_grad():
        tokens, grid = run(built, torch.randn(1, 3, *size))
    assert tokens.shape == (1, grid[0] * grid[1], built.dims[-1])
    for side, length in zip(size, grid, strict=True):
        assert abs(length - side / 32) < 1


def test_a_remainder_of_pixels_is_dropped():
    built = branch(*PLAIN['RoPE'][:2]).eval()
    image = torch.randn(1, 3, 41, 30)
    tokens, grid = run(built, image)
    assert grid == (2, 2)
    torch.testing.assert_close(tokens, run(built, image[..., :28, :28])[0])


def test_nothing_is_kept_from_the_last_image():
    for name, kwargs in [*HIERARCHICAL.values(), PLAIN['RoPE of each block'][:2]]:
        built = branch(name, kwargs).eval()
        first, second = torch.randn(1, 3, 64, 96), torch.randn(1, 3, 128, 160)
        with torch.no_grad():
            tokens, grid = built.embed(first)
            alone, _ = built.run(tokens, grid, 0, built.depth)
            run(built, second)
            after, _ = built.run(tokens, grid, 0, built.depth)
        assert torch.equal(alone, after)


def test_coordinates_are_not_augmented():
    """Groups of blocks see the same image, so positions must not change between them."""
    built = branch(*PLAIN['RoPE, registers'][:2]).train()
    augmented = branch(
        PLAIN['RoPE, registers'][0], {**SMALL, 'rope_rescale_coords': 2.0}
    ).train()
    image = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(run(augmented, image)[0], run(built, image)[0])


@pytest.mark.parametrize('mechanism', HIERARCHICAL)
def test_truncated(mechanism):
    name, kwargs = HIERARCHICAL[mechanism]
    built, cut = branch(name, kwargs).eval(), branch(name, kwargs).eval()
    image = torch.randn(1, 3, 128, 128)
    for depth in (4, 1):
        cut.truncate(depth)
        assert cut.depth == depth and len(cut.adapter.blocks()) == depth
        assert cut.min_size == cut.strides[-1] == built.strides[depth - 1]
        with torch.no_grad():
            expected = run(built, image, [depth])[0]
            assert torch.equal(run(cut, image)[0], expected)
    assert_trains(cut, image)


@pytest.mark.parametrize('name, kwargs', [PLAIN['RoPE'][:2], HIERARCHICAL['DINOv3']])
def test_layers_and_frozen_stages(name, kwargs):
    built = branch(name, kwargs, frozen_stages=2)
    layers = {n: built.get_layer_depth(f'x.{n}', 'x.') for n in built.state_dict()}
    assert {total for _, total in layers.values()} == {built.depth + 2}
    assert {layer for layer, _ in layers.values()} == set(range(built.depth + 1))
    frozen = {n for n, p in built.named_parameters() if not p.requires_grad}
    assert frozen == {n for n, (layer, _) in layers.items() if layer <= 2}
    for part in ('net.patch_embed.proj.weight', 'net.pos_embed', 'net.stem.0.weight'):
        assert layers.get(part, (0, 0))[0] == 0
    assert layers.get('net.stages.1.downsample.0.weight', (2, 0))[0] == 2


def test_checkpointing():
    windows = HIERARCHICAL['shifted windows']
    for name, kwargs in [PLAIN['RoPE'][:2], windows, HIERARCHICAL['mask units']]:
        plain, saving = branch(name, kwargs), branch(name, kwargs, with_cp=True)
        image = torch.randn(1, 3, 64, 64)
        for built in (plain, saving):
            tokens, _ = run(built, image)
            # Images of other sizes in between do not affect the backward pass.
            built.eval()
            run(built, torch.randn(1, 3, 96, 160))
            tokens.square().sum().backward()
        for expected, found in zip(plain.parameters(), saving.parameters(), strict=True):
            torch.testing.assert_close(found.grad, expected.grad)


def test_drop_path_and_initialisation():
    built = branch('vit_tiny_patch16_224', SMALL, drop_path_rate=0.2)
    rates = [getattr(block.drop_path1, 'drop_prob', 0) for block in built.net.blocks]
    assert rates == pytest.approx([0, 0.1, 0.2])
    built.init_weights()
    assert built.net.blocks[0].norm1.weight.eq(1).all()


def piip(timm_branch, **kwargs):
    arch = dict(embed_dims=64, num_layers=4, num_heads=4)
    vit = dict(type='PIIPViT', arch=arch, img_size=64, pretrain_img_size=64)
    torch.manual_seed(0)
    return MODELS.build(
        dict(
            type='PIIP',
            branches=[timm_branch, vit],
            interaction=dict(num_heads=4),
            **{'num_interactions': 2, **kwargs},
        )
    )


def test_prefix_tokens_do_not_interact():
    kwargs = dict(embed_dim=64, depth=4, num_heads=2)
    cfg = dict(
        type='PIIPTimm',
        model='vit_small_patch16_dinov3',
        img_size=128,
        model_kwargs=kwargs,
    )
    network = piip(cfg)
    for stage in network.interactions:
        for parameter in stage.parameters():
            nn.init.normal_(parameter, std=0.1)
    built, seen = network.branches[0], []
    original_run = built.run

    def watched(tokens, *args):
        out = original_run(tokens, *args)
        seen.append((tokens, out[0]))
        return out

    built.run = watched
    maps = network(torch.randn(2, 3, 128, 192))
    assert [tuple(x.shape[2:]) for x in maps] == [
        (128 // s, 192 // s) for s in (4, 8, 16, 32)
    ]
    (_, before), (after, _) = seen
    assert before.shape == (2, 5 + 8 * 12, 64)
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.equal(before[:, 5:], after[:, 5:])
    sum(x.square().sum() for x in maps).backward()
    check_gradients(network)


@pytest.mark.parametrize('mechanism', ['shifted windows', 'mask units', 'DINOv3'])
def test_hierarchical_models_interact(mechanism):
    name, kwargs = HIERARCHICAL[mechanism]
    kwargs = {**kwargs, **({'dims': (16, 32, 64, 96)} if 'dims' in kwargs else {})}
    cfg = dict(type='PIIPTimm', model=name, img_size=128, model_kwargs=kwargs)
    depth = len(branch(name, kwargs).dims)
    network = piip(cfg, interaction_ends=[[2, depth - 1], [1, 3]], out_strides=(16, 32))
    maps = network(torch.randn(1, 3, 128, 192))
    assert [tuple(x.shape) for x in maps] == [(1, 64, 8, 12), (1, 64, 4, 6)]


def test_pretrained(monkeypatch, tmp_path):
    """A file with timm's names, another size, a head and blocks that are not built."""
    name, kwargs, _ = PLAIN['class token']
    source = timm.create_model(name, **{**kwargs, 'img_size': 96})
    for parameter in source.parameters():
        nn.init.normal_(parameter)
    path = tmp_path / 'weights.pth'
    torch.save(source.state_dict(), path)

    built = branch(name, kwargs)
    built.truncate(2)
    report = load_pretrained(built, str(path))
    assert report.missing == []
    assert set(report.dropped) == {
        n for n in source.state_dict() if n.startswith(('head.', 'norm.', 'blocks.2.'))
    }
    target = timm.create_model(name, **kwargs, dynamic_img_size=True)
    target.load_state_dict(
        timm.models.vision_transformer.checkpoint_filter_fn(source.state_dict(), target)
    )
    for key, value in built.net.state_dict().items():
        assert torch.equal(value, target.state_dict()[key])


@pytest.mark.parametrize('mechanism', {**PLAIN, **HIERARCHICAL})
def test_weights_of_every_mechanism(mechanism, monkeypatch):
    name, kwargs = {**PLAIN, **HIERARCHICAL}[mechanism][:2]
    source = timm.create_model(name, num_classes=7, **kwargs)
    monkeypatch.setattr(
        'piip_mm.weights.pretrained.load_weights', lambda location: source.state_dict()
    )
    init_cfg = dict(type='Pretrained', checkpoint=f'timm://{name}')
    built = branch(name, kwargs, init_cfg=init_cfg)
    built.init_weights()
    for key, value in built.net.state_dict().items():
        assert torch.equal(value, source.state_dict()[key])


def test_weights_that_do_not_fit(monkeypatch):
    name, kwargs, _ = PLAIN['class token']
    built = branch(name, kwargs)

    def load(weights):
        monkeypatch.setattr(
            'piip_mm.weights.pretrained.load_weights', lambda location: weights
        )
        load_pretrained(built, 'file.pth')

    state = timm.create_model(name, **kwargs).state_dict()
    with pytest.raises(ValueError, match=r"lacks 1 tensors .*\['net.cls_token'\]"):
        load({key: value for key, value in state.items() if key != 'cls_token'})
    with pytest.raises(ValueError, match='has net.blocks.3.norm1.weight, which the'):
        load({**state, 'blocks.3.norm1.weight': torch.ones(48)})
    assert built.weights_title == f'timm model {name}'


def counts(shape, **kwargs):
    """By column, of a branch alone."""
    network = dict(
        type='ViTPyramid', branch=dict(img_size=224, **kwargs), out_type='maps'
    )
    return count_backbone(build_on_meta(network), shape)


def test_flops_are_those_of_the_same_vit():
    vit = dict(type='PIIPViT', arch='deit_tiny', with_cls_token=True)
    timm_vit = dict(type='PIIPTimm', model='deit_tiny_patch16_224')
    counted, expected = counts((224, 330), **timm_vit), counts((224, 330), **vit)
    for part in ('branch', 'self-attention'):
        assert counted[RUN][part].flops == expected[RUN][part].flops
    # No such branch is published, so that there is nothing to correct.
    square = counts((224, 224), **timm_vit)
    assert counted[RELEASED] == square[RELEASED] == square[RUN]
    assert counted[RUN]['branch'].params == sum(
        p.numel() for p in PIIPTimm('deit_tiny_patch16_224', 224).parameters()
    )


@pytest.mark.parametrize('mechanism', {**PLAIN, **HIERARCHICAL})
def test_counted_on_the_meta_device(mechanism):
    name, kwargs = {**PLAIN, **HIERARCHICAL}[mechanism][:2]
    counted = counts(SIZE, type='PIIPTimm', model=name, model_kwargs=kwargs)[RUN]
    assert counted['branch'].flops > 0
    assert bool(counted['self-attention'].flops) == (mechanism != 'DINOv3')
    assert set(counted) == {'branch', 'self-attention'}


def test_unsupported_models_say_why():
    with pytest.raises(ValueError, match=r"'resnet18' is a ResNet.*not known how to run"):
        PIIPTimm('resnet18', 224)
    with pytest.raises(ValueError, match=r'Supported classes[^$]*Hiera: hiera_\*'):
        PIIPTimm('resnet18', 224)
    with pytest.raises(ValueError, match='use PIIPBEiT'):
        PIIPTimm('beit_base_patch16_224', 224)
    with pytest.raises(ValueError, match=r'one size of 256 x 256 pixels'):
        PIIPTimm('botnet26t_256', 224)


def test_wrong_options():
    with pytest.raises(
        ValueError, match=r"no model 'vit_tiny_patch16'.*'vit_tiny_patch16_224'"
    ):
        PIIPTimm('vit_tiny_patch16', 224)
    with pytest.raises(ValueError, match=r"model_kwargs sets \['num_classes'\]"):
        PIIPTimm('test_vit', 224, model_kwargs=dict(num_classes=3))
    with pytest.raises(ValueError, match='drop_path_rate=1.5: expected a probability'):
        PIIPTimm('test_vit', 224, drop_path_rate=1.5)
    with pytest.raises(ValueError, match='img_size 15 is smaller than one patch of 16'):
        PIIPTimm('test_vit', 15)
