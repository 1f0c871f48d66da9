"""Migration from the published PIIP code: constructor arguments and checkpoints."""

from .migrate import migrate_config, migrate_state_dict

__all__ = ['migrate_config', 'migrate_state_dict']
