# PIIP-TSB 1120/896/448: in every interaction, features flow from low to high resolution
# and from the first branch back to the last. Inferred, since the papers show it in a
# figure only; see piip_mm/models/directions.py.
_base_ = '../piip_tsb_maskrcnn_1x_1120-896-448.py'

_base_.model.backbone.interaction.direction = 'reverse_cycle'
