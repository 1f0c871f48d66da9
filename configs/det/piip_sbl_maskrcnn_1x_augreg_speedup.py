# PIIP-SBL from AugReg weights in the published speed-up variant: interactions without
# projections and norms, and the tanh approximation of GELU, which its fused MLP computes.
_base_ = 'piip_sbl_maskrcnn_1x_augreg.py'

_base_.model.backbone.interaction.update(proj=False, norm=None)
_base_.model.backbone.branches[0].mlp_act = 'gelu_tanh'
_base_.model.backbone.branches[1].mlp_act = 'gelu_tanh'
_base_.model.backbone.branches[2].mlp_act = 'gelu_tanh'
