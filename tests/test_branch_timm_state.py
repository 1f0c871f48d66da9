"""State of timm's models: attributes, buffers, statistics of norms; options."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from mmengine.model import convert_sync_batchnorm, revert_sync_batchnorm
from mmengine.runner.checkpoint import load_state_dict
from timm.layers import convert_sync_batchnorm as timm_convert
from timm_models import ALL, CLASSES, HIERARCHICAL, PLAIN, SMALL, branch, run
from torch import nn

from piip_mm.models.branches.timm import PIIPTimm
from piip_mm.weights.pretrained import load_pretrained

NORMS = ('ByobNet', 'CspNet', 'FastVit', 'HighPerfGpuNet', 'MetaNeXt', 'VovNet')
NORM = CLASSES['ByobNet']


@torch.no_grad()
def tokens_of(built, image):
    return run(built, image)[0]


# --- Forward passes -------------------------------------------------------------------


def attributes(built):
    return {
        f'{name}.{key}': repr(value)
        for name, module in built.named_modules()
        for key, value in vars(module).items()
        if key != '_modules'
    }


@pytest.mark.parametrize('name', ALL)
def test_an_image_leaves_nothing_behind(name):
    built = branch(*ALL[name]).eval()
    before = attributes(built)
    tokens_of(built, torch.randn(1, 3, 64, 96))
    tokens_of(built, torch.randn(1, 3, 96, 32))
    assert attributes(built) == before


@pytest.mark.parametrize('name', HIERARCHICAL)
def test_images_of_different_sizes_at_the_same_time(name):
    built = branch(*HIERARCHICAL[name]).eval()
    images = [torch.randn(1, 3, *size) for size in ((64, 96), (224, 160))]
    expected = [tokens_of(built, image) for image in images]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda image: tokens_of(built, image), images * 10))
    for index, tokens in enumerate(found):
        assert torch.equal(tokens, expected[index % 2])


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('name', HIERARCHICAL)
def test_16_bit_weights(name, dtype):
    built, image = branch(*HIERARCHICAL[name]).eval(), torch.randn(1, 3, 96, 160)
    expected = tokens_of(built, image)
    built.to(dtype)
    if name == 'shifted windows, v2' and dtype == torch.float16:
        with pytest.raises(ValueError, match='float16 weights of a Swin V2 give NaN'):
            tokens_of(built, image)
        return
    found = tokens_of(built, image)
    assert found.dtype == dtype
    assert (found - expected).abs().max() < 0.1 * expected.abs().max()


# --- Weights --------------------------------------------------------------------------


@pytest.mark.parametrize('name', ALL)
def test_weights_complete_a_model_of_the_meta_device(name):
    expected = branch(*ALL[name]).eval()
    state, image = expected.state_dict(), torch.randn(1, 3, 64, 96)
    with torch.device('meta'):
        built, assigned = (branch(*ALL[name]).eval() for _ in range(2))
    built.to_empty(device='cpu')
    for tensor in (*built.parameters(), *built.buffers()):
        tensor.data.fill_(float('nan') if tensor.is_floating_point() else -1)
    by_mmengine = copy.deepcopy(built)
    built.load_state_dict(state)
    assigned.load_state_dict(state, assign=True)
    load_state_dict(by_mmengine, state)
    for model in (built, assigned, by_mmengine):
        assert torch.equal(tokens_of(model, image), tokens_of(expected, image))


def test_weights_for_other_channels(monkeypatch):
    name, kwargs, _ = PLAIN['class token']
    weights = branch(name, kwargs).net.state_dict()
    monkeypatch.setattr('piip_mm.weights.pretrained.load_weights', lambda _: weights)
    message = (
        r'check its arch and the channels of its image\. net\.patch_embed\.proj\.weight: '
        r'\(48, 3, 16, 16\) in the file, \(48, 4, 16, 16\) here'
    )
    with pytest.raises(ValueError, match=message):
        load_pretrained(branch(name, {**kwargs, 'in_chans': 4}), 'file.pth')


# --- Norms ----------------------------------------------------------------------------


def statistics(modules):
    return [
        buffer.clone()
        for module in modules
        for name, buffer in module.named_buffers()
        if name.endswith(('running_mean', 'running_var'))
    ]


def all_equal(first, second):
    return all(torch.equal(*pair) for pair in zip(first, second, strict=True))


@pytest.mark.parametrize('name', NORMS)
def test_frozen_statistics(name):
    model, kwargs = CLASSES[name]
    image = torch.randn(2, 3, 64, 64)
    for options, num_frozen in [
        ({}, 0),
        (dict(frozen_stages=1), 2),
        (dict(norm_eval=True), 5),
    ]:
        built = branch(model, kwargs, **options).eval().train()
        assert built.depth == 4 or name == 'MetaNeXt'
        parts = [built.embedding_modules(), *built.block_modules()]
        parts = [[m for m in part if isinstance(m, nn.Module)] for part in parts]
        before = [statistics(part) for part in parts]
        run(built, image)
        for index, (part, old) in enumerate(zip(parts, before, strict=True)):
            is_kept = all_equal(statistics(part), old)
            assert is_kept == (index < num_frozen or not old or num_frozen == 5)


def test_frozen_statistics_of_a_block_that_is_recomputed():
    branch(*NORM, with_cp=True, frozen_stages=4)  # All norms are frozen.
    image = torch.randn(2, 3, 64, 64)
    plain, saving = (branch(*NORM, norm_eval=True, with_cp=cp) for cp in (False, True))
    for built in (plain, saving):
        run(built, image)[0].square().sum().backward()
    for expected, found in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad)


def test_options_of_norms():
    with pytest.raises(ValueError, match='statistics of their BatchNorms twice'):
        branch(*NORM, with_cp=True)
    with pytest.raises(ValueError, match='this PIIPTimm has no BatchNorm; remove norm'):
        branch('test_vit', {}, norm_eval=True)
    with pytest.raises(ValueError, match='norm_eval=1: expected True or False'):
        branch(*NORM, norm_eval=1)


@pytest.mark.parametrize('name', NORMS)
def test_synchronised_norms(name):
    """MMEngine's conversions create layers that do not call timm's activations."""
    built, image = branch(*CLASSES[name]).eval(), torch.randn(2, 3, 64, 64)
    expected = tokens_of(built, image)
    network = nn.ModuleList([built])
    for convert in (
        convert_sync_batchnorm,
        copy.deepcopy,
        revert_sync_batchnorm,
        revert_sync_batchnorm,
        timm_convert,
    ):
        network = convert(network).eval()
        assert torch.equal(tokens_of(network[0], image), expected)
    assert network[0].state_dict().keys() == branch(*CLASSES[name]).state_dict().keys()


# --- Options --------------------------------------------------------------------------


@pytest.mark.parametrize('name', ALL)
def test_other_channels(name):
    model, kwargs = ALL[name]
    built = branch(model, {**kwargs, 'in_chans': 5})
    assert built.in_channels == 5
    assert tokens_of(built, torch.randn(2, 5, 64, 96)).isfinite().all()


@pytest.mark.parametrize('name', ALL)
def test_unknown_options_of_timm(name):
    model, kwargs = ALL[name]
    with pytest.raises(ValueError, match=r"model_kwargs {.*'foo': 1}: .*'foo'.*; change"):
        PIIPTimm(model, 224, model_kwargs={**kwargs, 'foo': 1})


@pytest.mark.parametrize(
    'option',
    [
        dict(num_classes=0),
        dict(global_pool='avg'),
        dict(features_only=True),
        dict(pretrained=True),
        dict(dynamic_img_size=False),
        dict(device='cpu'),
    ],
)
def test_options_that_the_branch_sets(option):
    ((key, value),) = option.items()
    with pytest.raises(
        ValueError,
        match=rf"model_kwargs sets \['{key}'\] to \[{value!r}\], which PIIPTimm sets",
    ):
        PIIPTimm('test_vit', 224, model_kwargs=option)


@pytest.mark.parametrize(
    'model, kwargs, message',
    [
        ('test_vit', dict(img_size=-16), 'img_size'),
        ('test_vit', dict(patch_size='x'), 'patch_size'),
        ('test_vit', dict(patch_size=500), 'patch_size'),
        ('swin_tiny_patch4_window7_224', dict(depths=3), 'depths'),
        ('swin_tiny_patch4_window7_224', dict(strict_img_size=True), 'strict_img_size'),
        ('test_vit', dict(in_chans=0), 'in_chans=0: expected an integer of at least 1'),
        ('test_vit', [], r'model_kwargs=\[\]: expected a dict'),
        ('test_vit', 'img_size', "model_kwargs='img_size': expected a dict"),
    ],
)
def test_wrong_options_of_timm(model, kwargs, message):
    with pytest.raises(ValueError, match=message):
        PIIPTimm(model, 224, model_kwargs=kwargs)


def test_another_patch_size():
    built = branch('vit_tiny_patch16_224', {**SMALL, 'patch_size': 8, 'img_size': 96})
    assert built.strides == (8,) * 3
    assert run(built, torch.randn(1, 3, 40, 64))[1] == (5, 8)
