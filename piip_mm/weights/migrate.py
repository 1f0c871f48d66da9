"""Former location of :mod:`piip_mm.published`, kept for code that imports it."""

from piip_mm.published import migrate_config, migrate_state_dict

__all__ = ['migrate_config', 'migrate_state_dict']
