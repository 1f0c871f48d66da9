"""The table of all published detectors continues where it was interrupted."""

import json
from pathlib import Path

import zoo

ROOT = Path(__file__).parents[1]
NAME = 'piip_vt-vs-cb_maskrcnn_1x_1024-672-448'


def run(*args):
    return zoo.run_analysis_tool('benchmark_zoo', *args)


def test_table(tmp_path):
    options = ['--shape', '128', '--repeats', '1', '--device', 'cpu']
    (tmp_path / f'{NAME}.json').write_text('{"runs": []}')
    done = run(tmp_path, '--only', NAME, *options)
    assert done.returncode == 0, done.stderr
    header, _, row = done.stdout.splitlines()
    cells = [cell.strip() for cell in row.strip('|').split('|')]
    assert cells[:2] == [NAME, '193'] and cells[-1] == '44.8'
    assert len(cells) == len(header.strip('|').split('|'))

    file = tmp_path / f'{NAME}.json'
    report = json.loads(file.read_text())
    report['runs'][0]['rows'][0]['median'] = 12.345
    file.write_text(json.dumps(report))
    again = run(tmp_path, '--only', NAME, *options)
    assert '| 12,345 |' in again.stdout and '==' not in again.stderr


def test_what_cannot_be_measured_is_left_out(tmp_path):
    done = run(tmp_path, '--only', NAME, '--shape', '1', '--device', 'cpu')
    assert len(done.stdout.splitlines()) == 2
    assert f'{NAME}: failed' in done.stderr and 'too small' in done.stderr
    assert '==' not in run(tmp_path, '--only', NAME, '--max-params', '1').stderr
    wrong = run(tmp_path, '--only', 'resnet')
    assert wrong.returncode == 2 and '--only resnet: no published' in wrong.stderr
