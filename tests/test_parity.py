"""The published networks, rebuilt through migration, give the recorded outputs."""

import golden
import pytest
import torch
from mmengine.registry import MODELS

import piip_mm  # noqa: F401
from piip_mm.published import migrate_config, migrate_state_dict

CASES = [
    'p1_three_branch_deit',
    'p2_two_branch_internvit_mae',
    'p3_four_branch',
    'p3b_four_branch_as_coded',
    'p4_cls_separate_head',
    'p5_hybrid_convnext_vit_regular_fpn',
    'p6_three_branch_fractional_sizes',
    'p7_eps_sensitive',
]


def build(case: golden.Case):
    config = migrate_config(case.kind, case.kwargs, case.convnext_archs)
    network = MODELS.build(config).eval()
    network.load_state_dict(migrate_state_dict(case.state_dict, config), strict=True)
    return network, config


@pytest.mark.parametrize('name', CASES)
def test_outputs(name):
    case = golden.load(name)
    network, _ = build(case)
    with torch.no_grad():
        outputs = network(case.image)
    # A classifier returns a single tensor of logits.
    outputs = [outputs] if isinstance(outputs, torch.Tensor) else outputs
    assert len(outputs) == len(case.outputs)
    for output, recorded in zip(outputs, case.outputs, strict=True):
        assert recorded.deviation(output) < golden.OUTPUT_TOLERANCE


@pytest.mark.parametrize('name', CASES[:2])
def test_gradients(name):
    case = golden.load(name)
    network, config = build(case)
    loss = golden.loss_of(network(case.image))
    loss.backward()
    assert loss.item() == pytest.approx(case.loss, rel=1e-4)
    parameters = dict(network.named_parameters())
    assert len(case.grads) == 11
    for published, recorded in case.grads.items():
        (ours,) = migrate_state_dict({published: None}, config)
        # Scalars of the published code are vectors of one number here.
        gradient = parameters[ours].grad.view(recorded.shape)
        assert recorded.deviation(gradient) < golden.GRAD_TOLERANCE


@pytest.mark.parametrize('attribute', ['scale_factor', 'pixels'])
def test_recordings_notice_another_resampling(attribute, monkeypatch):
    """Resizing by output size instead of scale factor must not pass unnoticed."""
    case = golden.load('p6_three_branch_fractional_sizes')
    network, _ = build(case)
    original = torch.nn.functional.interpolate

    def by_size(image, size=None, scale_factor=None, **kwargs):
        if scale_factor is None:
            return original(image, size, **kwargs)
        rounding = int if attribute == 'scale_factor' else round
        size = [rounding(side * scale_factor) for side in image.shape[2:]]
        return original(image, size, **kwargs)

    monkeypatch.setattr(torch.nn.functional, 'interpolate', by_size)
    with torch.no_grad():
        output = network(case.image)[0]
    if attribute == 'pixels':
        assert output.shape[2:] == case.outputs[0].shape[2:]
    assert case.outputs[0].deviation(output) > 10 * golden.OUTPUT_TOLERANCE
