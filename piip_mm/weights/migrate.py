"""Former place of :mod:`piip_mm.published`, for code that imports from here."""

from piip_mm.published import migrate_config, migrate_state_dict

__all__ = ['migrate_config', 'migrate_state_dict']
