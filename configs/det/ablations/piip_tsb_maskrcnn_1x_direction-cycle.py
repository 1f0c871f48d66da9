# PIIP-TSB 1120/896/448: in every interaction, features flow from high to low resolution
# and from the last branch back to the first. Inferred, since the papers show it in a
# figure only; see piip_mm/models/directions.py.
_base_ = '../piip_tsb_maskrcnn_1x_1120-896-448.py'

_base_.model.backbone.interaction.direction = 'cycle'
