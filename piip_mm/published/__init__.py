"""From the published PIIP code to this package: constructor arguments, whole files."""

from .migrate import migrate_config, migrate_state_dict

__all__ = ['migrate_config', 'migrate_state_dict']
