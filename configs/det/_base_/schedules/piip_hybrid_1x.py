# For networks with ConvNeXt branches, which take no part in the layer decay. The rate is
# the published one, that of batch 32; the number of GPUs was not published.
_base_ = 'piip_1x_bs32.py'

optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.8))
