"""The embedded example data: scenes of textured shapes.

``python -m piip_mm.datasets.shapes`` writes them as a COCO-format data set.
"""

# `shapes` itself is left out: it is run with `python -m`, and a module that its
# own package has already imported would be executed twice.
from .scene import SHAPES_METAINFO, Instance, draw_scene

__all__ = ['SHAPES_METAINFO', 'Instance', 'draw_scene']
