# PIIP-TSB 1120/896/448: every interaction works both ways between all pairs of branches.
# Inferred, since the papers show it in a figure only; see piip_mm/models/directions.py.
_base_ = '../piip_tsb_maskrcnn_1x_1120-896-448.py'

_base_.model.backbone.interaction.direction = 'all_pairs'
