"""Networks as one graph for torch.compile, and models compiled part by part."""

import pytest
import torch
from test_fuse import BRANCHES, DINO, MASK_RCNN, VIT, build, piip
from torch import nn
from torch.export import Dim, export

from piip_mm.deploy import compile as compile_module_file
from piip_mm.deploy import compile_model, fuse

TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture
def quick_compiler(monkeypatch):
    """The graphs of forward and backward, but run operator by operator."""
    compile_module = nn.Module.compile

    def quickly(module, *, mode, **options):
        compile_module(module, backend='aot_eager', **options)

    monkeypatch.setattr(nn.Module, 'compile', quickly)
    # It needs none.
    monkeypatch.setattr(compile_module_file, 'which', lambda name: name)


def assert_equal(ours, expected):
    for a, b in zip(ours, expected, strict=True):
        assert (a - b).abs().max() <= TOLERANCE * b.abs().max()


@pytest.mark.parametrize(
    ('name', 'dynamic', 'training'),
    [
        *((name, False, True) for name in BRANCHES),
        ('ViT', False, False),
        ('ViT', True, False),
        ('ConvNeXt', True, False),
    ],
)
def test_one_graph(name, dynamic, training):
    """Without a break, and for dynamic sizes, too."""
    network = piip(BRANCHES[name]).train(training)
    for module in network.modules():
        if hasattr(module, 'drop_prob'):
            module.drop_prob = 0.0
    compiled = torch.compile(network, fullgraph=True, dynamic=dynamic, backend='eager')
    with torch.set_grad_enabled(training):
        for size in ((101, 123), (112, 96)) if dynamic else ((101, 123),):
            image = torch.randn(1, 3, *size)
            assert_equal(compiled(image), network(image))


def test_one_graph_of_other_interactions():
    options = dict(num_heads=4, direction='all_pairs', attn='regular')
    network = piip(BRANCHES['ViT'], interaction=options)
    compiled = torch.compile(network, fullgraph=True, backend='eager')
    image = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        assert_equal(compiled(image), network(image))


@pytest.mark.parametrize(
    ('branch', 'sizes'),
    [
        (dict(VIT, img_size=96), [(1, 96, 112), (3, 100, 140), (2, 210, 180)]),
        # As many windows, or more, that are cut off at both edges.
        (BRANCHES['ViT'], [(2, 208, 224), (3, 288, 310)]),
    ],
    ids=['global', 'windows'],
)
def test_export_for_several_sizes(branch, sizes):
    network = piip(branch)
    names = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    with torch.no_grad():
        program = export(
            network,
            (torch.randn(2, 3, 197, 213),),
            dynamic_shapes={'image': names},
            strict=False,
        )
        for batch, height, width in sizes:
            image = torch.randn(batch, 3, height, width)
            assert_equal(program.module()(image), network(image))


@pytest.mark.parametrize(
    ('name', 'fused', 'mode'),
    [
        (MASK_RCNN, True, 'default'),
        (DINO, False, 'default'),
        (MASK_RCNN, False, 'reduce-overhead'),
    ],
)
def test_compiled_models(name, fused, mode, quick_compiler):
    """Part by part, or as one graph for a CUDA graph; and one of the neck."""
    model = build(name)
    # For one small image and a single thread PyTorch mistakes the memory format of
    # convolutions.
    image = torch.randn(2, 3, 128, 160)
    with torch.no_grad():
        expected = model.extract_feat(image)
        names = list(model.state_dict())
        compile_model(model, mode)
        assert list(model.state_dict()) == names
        if fused:
            fuse(model)
            expected = model.extract_feat(image)
        assert_equal(model.extract_feat(image), expected)
    graphs = torch._dynamo.utils.counters['stats']['unique_graphs']
    assert graphs == 2 if mode == 'reduce-overhead' else graphs >= 5


def test_gradients_of_a_compiled_network(quick_compiler):
    gradients = []
    for compiled in (False, True):
        network = piip(BRANCHES['ViT']).train()
        for module in network.modules():
            if hasattr(module, 'drop_prob'):
                module.drop_prob = 0.0
        if compiled:
            compile_model(network)
        torch.manual_seed(0)
        image = torch.randn(1, 3, 101, 123)
        sum(x.square().mean() for x in network(image)).backward()
        gradients.append({n: p.grad for n, p in network.named_parameters()})
    plain, compiled = gradients
    largest = max(x.abs().max() for x in plain.values())
    for name, expected in plain.items():
        # Those of key biases are zero but for rounding.
        limit = TOLERANCE * (expected.abs().max() + 1e-3 * largest)
        assert (compiled[name] - expected).abs().max() <= limit, name


def test_without_a_compiler(monkeypatch):
    monkeypatch.setattr(compile_module_file, 'which', lambda name: None)
    monkeypatch.setattr(compile_module_file, 'get_device', lambda: 'cpu')
    with pytest.raises(FileNotFoundError, match='apt install g'):
        compile_model(piip(BRANCHES['ViT']))


def test_models_of_others():
    with pytest.raises(ValueError, match='PIIP or ViTPyramid'):
        compile_model(nn.Linear(2, 2))
