"""Weights from elsewhere: the published PIIP code and pretrained branches."""

from .migrate import migrate_config, migrate_state_dict

__all__ = ['migrate_config', 'migrate_state_dict']
