# PIIP-TSB 1120/896/448: in an interaction features go from low to high
# resolution and from there to the last branch. The papers show
# this in a picture only; see piip_mm/models/directions.py.
_base_ = '../piip_tsb_maskrcnn_1x_1120-896-448.py'

_base_.model.backbone.interaction.direction = 'reverse_cycle'
