# The schedule of DINO extended to 24 epochs.
_base_ = 'piip_dino_1x.py'

_base_.train_cfg.max_epochs = 24
_base_.param_scheduler[1].update(end=24, milestones=[16, 22])
