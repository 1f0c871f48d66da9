# DINO trained from scratch on generated shapes, in minutes on a CPU.
_base_ = [
    '_base_/models/piip_tiny_dino.py',
    '_base_/datasets/shapes_detection.py',
    '_base_/schedules/tiny.py',
    '_base_/default_runtime.py',
]

model = dict(bbox_head=dict(num_classes=3))

max_epochs = 7
train_cfg = dict(max_epochs=max_epochs, val_interval=7)
_base_.param_scheduler[1].update(end=max_epochs, T_max=max_epochs)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
