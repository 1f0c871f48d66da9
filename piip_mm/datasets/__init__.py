"""The embedded example data: scenes of textured shapes.

``python -m piip_mm.datasets.shapes`` writes them as a data set for detection,
segmentation or classification.
"""

# `shapes` itself is left out: it is run with `python -m`, and a module that its
# own package has already imported would be executed twice.
from .layouts import LAYOUTS, SEMANTIC_METAINFO, Layout
from .scene import SHAPES_METAINFO, Instance, draw_scene

__all__ = [
    'LAYOUTS',
    'SEMANTIC_METAINFO',
    'SHAPES_METAINFO',
    'Instance',
    'Layout',
    'draw_scene',
]
