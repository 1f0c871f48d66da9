"""Runs a tool of an installed package: ``python -m piip_mm train CONFIG`` is what
``python tools/train.py CONFIG`` is in a checkout."""

from __future__ import annotations

import runpy
import sys

from piip_mm.engine.launch import shipped


def main() -> None:
    """Run the tool that the first argument names."""
    tools = {
        path.stem: path
        for path in sorted(shipped('tools').rglob('*.py'))
        if not path.name.startswith('_')
    }
    if len(sys.argv) < 2 or sys.argv[1] not in tools:
        raise SystemExit(f'usage: python -m piip_mm {{{",".join(tools)}}} [ARGUMENTS]')
    tool = tools[sys.argv[1]]
    sys.argv = [f'piip_mm {sys.argv[1]}', *sys.argv[2:]]
    runpy.run_path(str(tool), run_name='__main__')


if __name__ == '__main__':
    main()
