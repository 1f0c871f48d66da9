"""Sources of pretrained weights."""

import hashlib
import logging
import re
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import timm
import torch
from mmengine.registry import MODELS
from safetensors.torch import save_file

from piip_mm.weights import source
from piip_mm.weights.pretrained import load_pretrained


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Use an empty download folder."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'hub'))
    return tmp_path / 'hub/hub/checkpoints'


def served(path, checksum=None):
    """URL of a new file, whose name may contain a checksum."""
    torch.save({'model': {'weight': torch.ones(2)}}, path)
    digest = checksum or hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    return path.rename(path.with_name(f'deit-{digest}.pth')).as_uri()


def test_download_with_a_checksum(hub, tmp_path):
    url = served(tmp_path / 'new.pth')
    assert source.load_weights(url)['weight'].tolist() == [1, 1]
    assert [path.name for path in hub.iterdir()] == [url.rsplit('/', 1)[1]]


def test_processes_do_not_download_at_once(hub, tmp_path, monkeypatch):
    url = served(tmp_path / 'new.pth')
    download, started = torch.hub.download_url_to_file, []

    def slow_download(*args):
        started.append(args)
        time.sleep(0.3)
        download(*args)

    monkeypatch.setattr(torch.hub, 'download_url_to_file', slow_download)
    with ThreadPoolExecutor(4) as pool:
        for content in pool.map(source.load_weights, [url] * 4):
            assert content['weight'].tolist() == [1, 1]
    assert len(started) == 1


def test_damaged_download_leaves_nothing_behind(hub, tmp_path):
    url = served(tmp_path / 'new.pth', checksum='0badbeef')
    with pytest.raises(ValueError, match=r'deit-0badbeef.pth is damaged: invalid hash'):
        source.load_weights(url)
    assert list(hub.iterdir()) == []


def test_unreachable(hub, tmp_path):
    with pytest.raises(ConnectionError, match=r'cannot download file:.*set init_cfg'):
        source.load_weights((tmp_path / 'gone.pth').as_uri())
    assert list(hub.iterdir()) == []


def test_code_in_a_file_is_not_executed(tmp_path):
    path = tmp_path / 'code.pth'
    for content in ({'model': logging.Formatter()}, torch.nn.Linear(1, 1)):
        torch.save(content, path)
        with pytest.raises(ValueError, match=r'code.pth .* is not executed; save the st'):
            source.load_weights(path)
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), path)
    with pytest.raises(ValueError, match=r'code.pth .* is not executed; save the state'):
        source.load_weights(path)


@pytest.mark.parametrize(
    'name, side',
    [('deit3_small_patch16_384', 24), ('deit_tiny_distilled_patch16_224', 14)],
)
def test_timm_models_become_branches(monkeypatch, name, side):
    original = timm.create_model
    asked = []

    def create_model(name, pretrained):
        asked.append((name, pretrained))
        return original(name)

    # Weights cannot be downloaded here.
    monkeypatch.setattr(timm, 'create_model', create_model)
    arch = 'deit3_small' if 'small' in name else 'deit_tiny'
    cfg = dict(type='PIIPViT', arch=arch, img_size=224, pretrain_img_size=16 * side)
    branch = MODELS.build(cfg)
    report = load_pretrained(branch, f'timm://{name}')
    assert asked == [(name, True)]
    scales = [name for name in report.missing if '.ls' in name]
    assert report.missing == scales and bool(scales) == ('tiny' in name)
    assert branch.pos_embed.shape[1] == side**2
    assert {'norm.weight', 'cls_token', 'head.weight'} <= set(report.dropped)


def test_missing_files_say_where_to_get_them():
    url = 'https://dl.fbaipublicfiles.com/deit/deit_3_base_224_21k.pth'
    with pytest.raises(FileNotFoundError, match=f'download it from {url}'):
        source.load_weights('gone/deit_3_base_224_21k.pth')


def test_unknown_timm_model():
    with pytest.raises(ValueError, match=r"no model 'deit_tiny'; .*'deit_tiny_patch16"):
        source.load_weights('timm://deit_tiny')


def test_timm_without_a_network(monkeypatch):
    def create_model(name, pretrained):
        raise OSError('offline')

    monkeypatch.setattr(timm, 'create_model', create_model)
    with pytest.raises(ConnectionError, match=r"weights of 'deit_tiny.*\(offline\)"):
        source.load_weights('timm://deit_tiny_patch16_224')


@pytest.mark.parametrize('new_format', [True, False])
@pytest.mark.parametrize('part', [0.1, 0.6, 0.99])
def test_an_interrupted_download_is_an_error_and_is_not_kept(
    hub, tmp_path, new_format, part
):
    path = tmp_path / 'weights.pth'
    tensors = {'weight': torch.randn(1000)}
    torch.save(tensors, path, _use_new_zipfile_serialization=new_format)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(ValueError, match=r'weights.pth is damaged or incomplete'):
        source.load_weights(path.as_uri())
    assert list(hub.iterdir()) == []
    with pytest.raises(ValueError, match=r'weights.pth is damaged or incomplete'):
        source.load_weights(str(path))
    assert path.exists(), 'a file of the user is not ours to remove'


@pytest.mark.parametrize('content', ['<!DOCTYPE html>', 'hello'])
def test_a_page_instead_of_a_file_is_not_kept(hub, tmp_path, content):
    path = tmp_path / 'page.pth'
    path.write_text(content)
    with pytest.raises(ValueError, match=r'page.pth is .*; download it again'):
        source.load_weights(path.as_uri())
    assert list(hub.iterdir()) == []


@pytest.mark.parametrize(
    ('name', 'write', 'message'),
    [
        ('a.pth', lambda p: p.write_bytes(b''), 'is damaged or incomplete .EOFError'),
        ('a.pth', lambda p: p.write_text('hello world'), 'is damaged or incomplete'),
        ('a.pth', lambda p: p.write_text('{"a": 1}'), 'is not a file of PyTorch'),
        ('a.pth', lambda p: p.mkdir(), 'are a folder .*: put the file there'),
        ('a.safetensors', lambda p: p.write_text('text'), 'is damaged or incomplete'),
        ('a.npz', lambda p: p.write_bytes(b''), 'is damaged or incomplete'),
        ('a.npz', lambda p: p.write_text('hello world'), 'does not hold the arrays of a'),
        ('a.npz', lambda p: np.savez(p, a=np.ones(3)), "has no array 'embedding/kernel'"),
        (
            'a.npz',
            lambda p: np.savez(p, a=np.array([{}], object)),
            'does not hold the arrays of .* release .Object arrays cannot be loaded',
        ),
        (
            'a.npz',
            lambda p: zipfile.ZipFile(p, 'w').writestr('a.txt', 'text'),
            'does not hold the arrays of a vision transformer of the AugReg release',
        ),
        (
            'a.npz',
            lambda p: np.savez(p, **jax_arrays() | {'cls': np.ones((1, 1, 24), int)}),
            'does not hold the arrays of .* release .cls has the type int64, not float',
        ),
        (
            'a.npz',
            lambda p: np.savez(p, **jax_arrays() | {'cls': np.ones((1, 1, 23))}),
            'does not hold the arrays of a vision transformer of the AugReg release',
        ),
    ],
)
def test_files_of_another_kind(tmp_path, name, write, message):
    path = tmp_path / name
    write(path)
    with pytest.raises((ValueError, FileNotFoundError), match=rf'{path}.* {message}'):
        source.load_weights(path)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = tmp_path / 'a.pth'
    path.write_bytes(b'')

    def refuse(*_, **__):
        raise PermissionError(13, 'Permission denied', path)

    monkeypatch.setattr(torch, 'load', refuse)
    with pytest.raises(ValueError, match=rf'{path} cannot be read \(Permission denied\)'):
        source.load_weights(path)


@pytest.mark.parametrize(
    'location', ['', None, 5, ['a.pth'], {'path': 'a.pth'}, b'a.pth']
)
def test_locations_that_are_none(location):
    message = f'init_cfg.checkpoint={location!r}: expected a path, a URL or timm://'
    with pytest.raises(ValueError, match=re.escape(message)):
        source.load_weights(location)


@pytest.mark.parametrize(
    'url', ['http://', 'https://host/', 'http://[1/a.pth', '://a.pth']
)
def test_addresses_that_are_none(hub, url):
    with pytest.raises(ValueError, match=re.escape(f'{url}: ')):
        source.load_weights(url)
    with pytest.raises(ConnectionError, match='cannot download http://a b/c.pth'):
        source.load_weights('http://a b/c.pth')


def test_a_download_without_weights_names_its_address(hub, tmp_path):
    path = tmp_path / 'code.pth'
    torch.save({'model': logging.Formatter()}, path)
    with pytest.raises(ValueError, match=rf'{path.as_uri()}: .*GLOBAL logging.Formatter'):
        source.load_weights(path.as_uri())


def test_safetensors(tmp_path):
    path = str(tmp_path / 'model.safetensors')
    save_file({'weight': torch.ones(2)}, path)
    assert source.load_weights(path)['weight'].tolist() == [1, 1]


def jax_arrays(dims=24, heads=3, layers=2, patch=8, side=4):
    """The arrays of an AugReg release, with random values."""
    rng = np.random.default_rng(0)

    def dense(name, *shape, outputs=1):
        return {
            f'{name}/kernel': rng.normal(size=shape).astype('float32'),
            f'{name}/bias': rng.normal(size=shape[-outputs:]).astype('float32'),
        }

    def norm(name):
        return {f'{name}/{leaf}': rng.normal(size=dims) for leaf in ('scale', 'bias')}

    arrays = {
        'cls': rng.normal(size=(1, 1, dims)),
        'Transformer/posembed_input/pos_embedding': rng.normal(
            size=(1, side**2 + 1, dims)
        ),
        **dense('embedding', patch, patch, 3, dims),
        **norm('Transformer/encoder_norm'),
        **dense('head', dims, 10),
    }
    for layer in range(layers):
        block = f'Transformer/encoderblock_{layer}'
        attn = f'{block}/MultiHeadDotProductAttention_1'
        arrays |= norm(f'{block}/LayerNorm_0') | norm(f'{block}/LayerNorm_2')
        arrays |= dense(f'{block}/MlpBlock_3/Dense_0', dims, 4 * dims)
        arrays |= dense(f'{block}/MlpBlock_3/Dense_1', 4 * dims, dims)
        for part in ('query', 'key', 'value'):
            head_dims = dims // heads
            arrays |= dense(f'{attn}/{part}', dims, heads, head_dims, outputs=2)
        arrays |= dense(f'{attn}/out', heads, head_dims, dims)
    return arrays


def test_arrays_of_jax(tmp_path):
    """Kernels have their outputs last; query, key and value are stacked."""
    path = str(tmp_path / 'S_16-i21k-300ep.npz')
    arrays = jax_arrays()
    np.savez(path, **arrays)
    weights = source.load_weights(path)
    attn = 'Transformer/encoderblock_1/MultiHeadDotProductAttention_1'
    parts = [arrays[f'{attn}/{part}/kernel'] for part in ('query', 'key', 'value')]
    expected = {
        'pos_embed': arrays['Transformer/posembed_input/pos_embedding'],
        'cls_token': arrays['cls'],
        'patch_embed.proj.weight': arrays['embedding/kernel'].transpose(3, 2, 0, 1),
        'blocks.1.attn.qkv.weight': np.concatenate([p.reshape(24, 24).T for p in parts]),
        'blocks.1.attn.proj.weight': arrays[f'{attn}/out/kernel'].reshape(24, 24).T,
        'blocks.1.mlp.fc1.weight': arrays[
            'Transformer/encoderblock_1/MlpBlock_3/Dense_0/kernel'
        ].T,
        'norm.weight': arrays['Transformer/encoder_norm/scale'],
        'head.bias': arrays['head/bias'],
    }
    for name, value in expected.items():
        value = torch.from_numpy(value).float()
        torch.testing.assert_close(weights[name], value, msg=name)
    arch = dict(embed_dims=24, num_layers=2, num_heads=3, cls_pos_row=True)
    branch = MODELS.build(
        dict(type='PIIPViT', arch=arch, img_size=32, patch_size=8, pretrain_img_size=32)
    )
    report = load_pretrained(branch, path)
    torch.testing.assert_close(branch.pos_embed.data, weights['pos_embed'])
    assert all('.ls' in name for name in report.missing) and len(report.missing) == 4
    np.savez(path, **{n: a for n, a in arrays.items() if 'encoderblock_0' not in n})
    with pytest.raises(ValueError, match=r'npz has no array .*encoderblock_0'):
        source.load_weights(path)
