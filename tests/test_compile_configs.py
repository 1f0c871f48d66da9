"""The backbone of every shipped config is one graph for torch.compile.

Backbones are traced on the meta device, where nothing is computed. By default one config
of each kind is traced, with fewer blocks; all configs, which take hours, are marked slow.
For several sizes even these have fewer blocks, because tracing solves equations of sizes.
"""

from dataclasses import asdict
from itertools import product

import pytest
import torch
import zoo
from mmengine.registry import MODELS, DefaultScope

from piip_mm.models.branches import CONVNEXT_ARCHS, ConvNeXtArch, PIIPConvNeXt
from piip_mm.models.branches.geometry import resolve_arch

#: Networks of at most so many blocks are traced as they are.
SMALL = 15


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield
    torch._dynamo.reset()


def config_of(name):
    return zoo.load(name).model.backbone


def branches_of(backbone):
    return backbone.branches if 'branches' in backbone else [backbone.branch]


def regular(backbone):
    """Whether every level of the pyramid has a map of its own."""
    return 'out_interactions' in backbone or 'out_blocks' in backbone


def kind_of(backbone):
    """What decides which code is run, rather than how often and at which size."""
    branches = branches_of(backbone)
    return (
        backbone.type,
        backbone.get('out_type'),
        regular(backbone),
        len(branches),
        tuple(sorted({branch.type for branch in branches})),
        backbone.get('num_interactions') == 0,
        backbone.get('interaction', {}).get('attn'),
    )


def one_of_each_kind():
    return sorted({kind_of(config_of(name)): name for name in zoo.CONFIGS}.values())


def build(backbone):
    with DefaultScope.overwrite_default_scope('mmengine'), torch.device('meta'):
        return MODELS.build(backbone)


def shortened(backbone):
    """A config of the same parts with fewer blocks and interactions, unless small."""
    branches = branches_of(backbone)
    if sum(branch.depth for branch in build(backbone).branch_list) <= SMALL:
        return backbone
    groups = 4 if regular(backbone) else 2
    ends = []
    for branch in branches:
        kind = MODELS.get(branch.type)
        if kind is PIIPConvNeXt:
            dims = resolve_arch(branch.arch, ConvNeXtArch, CONVNEXT_ARCHS).dims
            branch.arch = dict(depths=(1, 1, 1, 1), dims=dims)
            # With the down-sampling layers there are seven.
            ends.append([*range(0, 2 * groups - 2, 2), 6])
        else:
            arch = asdict(resolve_arch(branch.arch, kind.arch_type, kind.presets))
            branch.arch = dict(arch, num_layers=groups)
            if 'global_attn_indexes' in branch:
                branch.global_attn_indexes = [groups - 1]
            if isinstance(branch.get('window_size'), (list, tuple)):
                # Windows first, global attention last.
                windows = sorted(branch.window_size, key=lambda x: (x is None, x))
                branch.window_size = [windows[0]] * (groups - 1) + [windows[-1]]
            ends.append(list(range(groups)))
    if backbone.get('num_interactions'):
        backbone.update(num_interactions=groups, interaction_ends=ends)
    if 'out_interactions' in backbone:
        backbone.out_interactions = tuple(range(len(backbone.out_interactions)))
    if 'out_blocks' in backbone:
        backbone.out_blocks = ends[0]
    return backbone


def cut(network, size):
    """Which windows of the branches are full and which are cut off.

    For a compiler none, one and several of them on a side are three cases.
    """
    cases = []
    for branch in network.branch_list:
        ratio = branch.img_size / network.branch_list[0].img_size
        for window in {*getattr(branch, 'windows', ())} - {None}:
            for side in size:
                tokens = int(side * ratio) // branch.min_size
                cases += [min(count, 2) for count in divmod(tokens, window)]
    return tuple(cases)


def sizes_of(network):
    """Two sizes that differ in both sides, but not in the cases of their windows.

    They are far from squares, because positions are not resized for the square image that
    they are stored for, which is another case.
    """
    side = network.branch_list[0].img_size
    found = {}
    heights, widths = range(side, 0, -16), range(side * 5 // 4, 2 * side, 16)
    for height, width in product(heights, widths):
        first = found.setdefault(cut(network, (height, width)), (height, width))
        if height != first[0] and width != first[1]:
            return first, (height, width)
    raise AssertionError('no such sizes')


def trace(network, *, training=False, dynamic=False):
    """Compile for one size, or for two that have to share the graph."""
    network.train(training)
    compiled = torch.compile(network, fullgraph=True, dynamic=dynamic, backend='eager')
    with torch.set_grad_enabled(training):
        for size in sizes_of(network)[: 1 + dynamic]:
            compiled(torch.empty(2, 3, *size, device='meta'))
    assert torch._dynamo.utils.counters['stats']['unique_graphs'] == 1


@pytest.mark.parametrize('name', one_of_each_kind())
def test_one_graph_of_each_kind(name):
    trace(build(shortened(config_of(name))), training=True)


@pytest.mark.slow
@pytest.mark.parametrize('training', [False, True], ids=['inference', 'training'])
@pytest.mark.parametrize('name', zoo.CONFIGS)
def test_one_graph_of_each_config(name, training):
    trace(build(config_of(name)), training=training)


@pytest.mark.slow
@pytest.mark.parametrize('name', zoo.CONFIGS)
def test_one_graph_for_several_sizes(name):
    trace(build(shortened(config_of(name))), dynamic=True)
