# For networks with ConvNeXt branches, whose parameters have no layer-wise decay. The
# learning rate is the published one, that of batch size 32; the number of GPUs was not
# published.
_base_ = 'piip_1x_bs32.py'

optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.8))
