# The network of the example with boxes only, for any data set in COCO format; see
# `custom` in _base_/datasets/custom_detection.py.
_base_ = [
    '_base_/models/piip_tiny.py',
    '_base_/datasets/custom_detection.py',
    '_base_/schedules/tiny.py',
    '_base_/default_runtime.py',
]

model = dict(
    type='FasterRCNN',
    data_preprocessor=dict(pad_mask=False),
    roi_head=dict(mask_roi_extractor=None, mask_head=None),
)

max_epochs = 18
train_cfg = dict(max_epochs=max_epochs, val_interval=6)
_base_.param_scheduler[1].update(end=max_epochs, T_max=max_epochs)
