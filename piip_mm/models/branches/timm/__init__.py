"""Models of timm as branches."""

from .adapters import Adapter
from .branch import PIIPTimm
from .table import ADAPTERS, check_timm_model

__all__ = ['ADAPTERS', 'Adapter', 'PIIPTimm', 'check_timm_model']
