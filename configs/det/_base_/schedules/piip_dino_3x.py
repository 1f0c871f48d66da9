# The schedule of DINO extended to 36 epochs.
_base_ = 'piip_dino_1x.py'

_base_.train_cfg.max_epochs = 36
_base_.param_scheduler[1].update(end=36, milestones=[27, 33])
