"""timm models as branches."""

from .adapters import Adapter
from .branch import PIIPTimm
from .table import ADAPTERS

__all__ = ['ADAPTERS', 'Adapter', 'PIIPTimm']
