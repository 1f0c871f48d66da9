"""Make the compact recordings of this folder from complete ones.

Usage: python tests/data/compact.py REFERENCE_FOLDER

Tensors that were drawn from a normal distribution, which are nearly all weights and
inputs, are replaced by the seed and position of the draw. Of outputs and gradients some
values are kept, and of the units only those that the tests read.
"""

import json
import lzma
import sys
from base64 import b64encode
from functools import lru_cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import golden
import numpy as np
import torch

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
#: Seeds of the weights and inputs of units, of pretrained files and of a table.
SMALL_SEEDS = (*range(1, 9), 11, 31, 77)
KEPT_OUTPUTS = 4000
KEPT_GRADS = 2000


class Encoder:
    """Encodes what ``golden.decode`` decodes."""

    def __init__(self, *seeds: int):
        self.seeds = seeds

    def __call__(self, node):
        if isinstance(node, golden.Sampled):
            return vars(node) | dict(values=raw(node.values))
        if isinstance(node, torch.Tensor):
            return self.find(node) or raw(node)
        if isinstance(node, dict):
            return {key: self(item) for key, item in node.items()}
        if isinstance(node, list):
            return [self(item) for item in node]
        return node

    def find(self, tensor):
        """Where a tensor was drawn, if it was; the seed that fits is tried first then."""
        if tensor.numel() < 16 or not tensor.is_floating_point():
            return None
        values = tensor.flatten().double().numpy()
        for seed in self.seeds:
            for offset in candidates(seed, values):
                drawn = golden.normal(seed, offset, values.size).astype(np.float64)
                std, mean = np.polyfit(drawn, values, 1)
                std, mean = float(f'{std:.8g}'), round(float(mean), 5) + 0.0
                if np.abs(mean + std * drawn - values).max() < 2e-6 * abs(std):
                    self.seeds = (seed, *(s for s in self.seeds if s != seed))
                    shape = list(tensor.shape)
                    offset = int(offset)
                    return dict(shape=shape, seed=seed, offset=offset, mean=mean, std=std)
        return None


@lru_cache(maxsize=32)
def pairs(seed):
    """Both normal values of every position, the second of which is 8 values on."""
    numbers = (golden.stream(seed) & 0xFFFFFF) / 2**24
    radius, angle = np.sqrt(-2 * np.log(1 - numbers[:-8])), 2 * np.pi * numbers[8:]
    cosine, sine = radius * np.cos(angle), radius * np.sin(angle)
    return cosine.astype(np.float32), sine.astype(np.float32)


def candidates(seed, values):
    """Positions in the stream that fit the first values, whatever mean and deviation."""
    cosine, sine = (part[: part.size - values.size - 16] for part in pairs(seed))
    left = np.float32(values[0] - values[8]) * (cosine[1:-1] - cosine[2:])
    right = np.float32(values[1] - values[2]) * (cosine[:-2] - sine[:-2])
    return np.nonzero(np.abs(left - right) < 2e-5 * np.ptp(values[:9]))[0]


def raw(tensor):
    array = tensor.contiguous().numpy()
    encoded = b64encode(array.tobytes()).decode()
    return dict(shape=list(tensor.shape), dtype=str(array.dtype), bytes=encoded)


def write(name, content):
    text = json.dumps(content, separators=(',', ':')).encode()
    packed = lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)
    (golden.DATA / f'{name}.json.xz').write_bytes(packed)
    print(f'{name}: {len(packed):,} bytes')


def read_json(path):
    return json.loads(path.read_text())


def read_tensors(path):
    return torch.load(path, weights_only=True)


def write_case(folder):
    config, io = read_json(folder / 'config.json'), read_tensors(folder / 'io.pt')
    case = golden.Case(
        kind=config['cls'],
        kwargs=config['kwargs'],
        state_dict=read_tensors(folder / 'state_dict.pt'),
        image=io['input'],
        outputs=[golden.Sampled.of(output, KEPT_OUTPUTS) for output in io['outputs']],
        grads={
            name: golden.Sampled.of(grad, KEPT_GRADS)
            for name, grad in io.get('grads', {}).items()
        },
        loss=float(io['loss']) if 'loss' in io else None,
        convnext_archs=config.get('convnext_configs'),
    )
    seed = config['seed']
    write(folder.name, Encoder(seed, 5000 + seed)(vars(case)))


def write_conversions(folders):
    """A tensor that a branch took over unchanged is encoded as in the file."""
    conversions = {}
    for folder in folders:
        config = read_json(folder / 'config.json')
        expected = read_tensors(folder / 'branch_state_dict.pt')
        # Other weights of the branch are its own random ones.
        kept = config['deterministic_keys']
        conversions[folder.name] = dict(
            kind=config['cls'],
            kwargs=config['kwargs'],
            pretrained=read_tensors(folder / 'pretrained.pt'),
            expected={name: expected[name] for name in kept},
        )
    table = read_tensors(folders[0] / 'table_14_to_28_windows.pt')
    encode = Encoder(*SMALL_SEEDS)
    write('pretrained', encode(conversions | dict(beit_table=table)))


def main() -> None:
    reference = Path(sys.argv[1])
    recordings = reference / 'golden'
    for folder in sorted(recordings.glob('p[0-9]*')):
        write_case(folder)
    write_conversions(sorted(recordings.glob('pretrained_*')))
    units = read_tensors(recordings / 'units/units.pt')
    write('units', Encoder(*SMALL_SEEDS)({name: units[name] for name in UNITS}))
    lists = {path.stem: read_json(path) for path in sorted(reference.glob('keys/*.json'))}
    names = {
        name: {key: shape for key, (shape, _) in content['keys'].items()}
        for name, content in lists.items()
        if 'keys' in content
    }
    write('names', names)
    write('dino_heads', read_json(reference / 'keys/mmdet2_to_mmdet3_dino_map.json'))
    write('recipes', read_json(reference / 'recipes.json'))
    write('flops', read_json(reference / 'flops_reference.json')['configs'])


if __name__ == '__main__':
    main()
