# The 1x schedule with the learning rate for batch size 32 (16 GPUs x 2 images).
_base_ = 'piip_1x.py'

optim_wrapper = dict(optimizer=dict(lr=2e-4))
auto_scale_lr = dict(base_batch_size=32)
