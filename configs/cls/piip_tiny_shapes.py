# The example: a small PIIP trained from scratch on generated shapes, in minutes on a CPU.
_base_ = [
    '_base_/models/piip_tiny.py',
    '_base_/datasets/shapes_classification.py',
    '_base_/schedules/tiny.py',
    '_base_/default_runtime.py',
]

model = dict(data_preprocessor=dict(num_classes=3), head=dict(num_classes=3))
# Colour carries no information about the class.
_base_.train_dataloader.dataset.pipeline.insert(
    -1, dict(type='RandomGrayscale', prob=0.5, keep_channels=True)
)
