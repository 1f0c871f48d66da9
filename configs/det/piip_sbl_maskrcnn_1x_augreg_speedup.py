# PIIP-SBL from AugReg weights as the published code speeds it up: interactions without
# projections and norms, and a fused MLP, whose GELU is the tanh approximation.
_base_ = 'piip_sbl_maskrcnn_1x_augreg.py'

_base_.model.backbone.interaction.update(proj=False, norm=None)
_base_.model.backbone.branches[0].mlp_act = 'gelu_tanh'
_base_.model.backbone.branches[1].mlp_act = 'gelu_tanh'
_base_.model.backbone.branches[2].mlp_act = 'gelu_tanh'
