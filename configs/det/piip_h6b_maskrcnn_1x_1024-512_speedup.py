# PIIP-H6B 1024/512 as the published code speeds it up: interactions without projections
# and norms, and a fused MLP, whose GELU is the tanh approximation.
_base_ = 'piip_h6b_maskrcnn_1x_1024-512.py'

_base_.model.backbone.interaction.update(proj=False, norm=None)
_base_.model.backbone.branches[0].mlp_act = 'gelu_tanh'
_base_.model.backbone.branches[1].mlp_act = 'gelu_tanh'
