"""Presets of the branches: each has documented weights and their geometry."""

import re
from pathlib import Path

import pytest
import timm
import torch
from mmengine.registry import MODELS

from piip_mm.models.branches import (
    BEIT_ARCHS,
    CONVNEXT_ARCHS,
    UNIPERCEIVER_ARCHS,
    VIT_ARCHS,
)
from piip_mm.weights.pretrained import load_pretrained

DOCS = Path(__file__).parents[1] / 'docs/branches.md'
CLASSES = {
    'PIIPViT': VIT_ARCHS,
    'PIIPBEiT': BEIT_ARCHS,
    'PIIPUniPerceiver': UNIPERCEIVER_ARCHS,
    'PIIPConvNeXt': CONVNEXT_ARCHS,
}
ROWS = re.findall(r'^\|[^|]*\| `(\w+)` \| (\S+(?:, \S+)*) \|$', DOCS.read_text(), re.M)


def test_every_preset_has_a_source():
    presets = [preset for archs in CLASSES.values() for preset in archs]
    assert sorted(preset for preset, _ in ROWS) == sorted(presets)
    for _, sources in ROWS:
        for source in sources.split(', '):
            assert source.startswith(('https://', 'timm://'))


IN_TIMM = [
    (preset, source.removeprefix('timm://'))
    for preset, sources in ROWS
    for source in sources.split(', ')
    if source.startswith('timm://')
] + [
    # The documented weights are not timm's, but timm has models of the same shape.
    ('deit_tiny', 'deit_tiny_patch16_224.fb_in1k'),
    ('deit_small', 'deit_small_patch16_224.fb_in1k'),
    ('deit_base', 'deit_base_patch16_224.fb_in1k'),
    ('deit3_small', 'deit3_small_patch16_224.fb_in22k_ft_in1k'),
    ('deit3_base', 'deit3_base_patch16_224.fb_in22k_ft_in1k'),
    ('deit3_large', 'deit3_large_patch16_224.fb_in22k_ft_in1k'),
]


@pytest.mark.parametrize('preset, name', IN_TIMM)
def test_weights_of_timm_fit(preset, name, monkeypatch):
    """Compare names and shapes with timm's model, without downloading its weights."""
    assert timm.is_model_pretrained(name)
    kind = next(kind for kind, archs in CLASSES.items() if preset in archs)
    with torch.device('meta'):
        branch = MODELS.build(dict(type=kind, arch=preset, img_size=224))
        weights = timm.create_model(name).state_dict()
    monkeypatch.setattr('piip_mm.weights.pretrained.load_weights', lambda _: weights)
    report = load_pretrained(branch, f'timm://{name}')
    assert all(re.fullmatch(r'blocks\.\d+\.ls[12]\.gamma', n) for n in report.missing)
