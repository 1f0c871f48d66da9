# DINO is trained with gradient clipping.
_base_ = 'piip_1x_bs32.py'

optim_wrapper = dict(clip_grad=dict(max_norm=0.1, norm_type=2))
