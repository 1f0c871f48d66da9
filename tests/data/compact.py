"""Make the compact recordings of this folder from complete ones.

Usage: python tests/data/compact.py [GOLDEN_FOLDER]

Weights and inputs are kept as they are. Of outputs and gradients every n-th value is
kept, about 2,000 per tensor, and of the unit recordings only those that the tests read.
"""

import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import golden
import torch

CASES = ('p1_three_branch_deit', 'p6_three_branch_fractional_sizes')
UNITS = (
    'msdeform',
    'injector_deform',
    'injector_normal',
    'unit_proj_True',
    'unit_proj_False',
    'deit_windowed_flash',
    'deit_windowed_naive',
    'internvit_block_rms_qknorm',
    'internvit_block_ln_windowed_fused',
    'beit_block',
    'uniperceiver_layer',
)
KEPT_VALUES = 2000


def thinned(sampled: golden.Sampled) -> dict:
    step = max(sampled.values.numel() // KEPT_VALUES, 1)
    return asdict(golden.Sampled.of(sampled.values.view(sampled.shape), step))


def main() -> None:
    if len(sys.argv) > 1:
        golden.FULL = Path(sys.argv[1])
    for name in CASES:
        case = golden.load_full(name)
        stored = vars(case) | dict(
            outputs=[thinned(output) for output in case.outputs],
            grads={key: thinned(grad) for key, grad in case.grads.items()},
        )
        torch.save(stored, golden.DATA / f'{name}.pt')
    units = torch.load(golden.FULL / 'units/units.pt', weights_only=True)
    torch.save({name: units[name] for name in UNITS}, golden.DATA / 'units.pt')


if __name__ == '__main__':
    main()
