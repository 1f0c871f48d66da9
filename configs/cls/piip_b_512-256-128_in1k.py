# PIIP-B 512/256/128 from scratch: ImageNet-1k, 300 epochs.
_base_ = [
    '_base_/models/piip_b.py',
    '_base_/datasets/imagenet.py',
    '_base_/schedules/scratch_300e.py',
    '_base_/default_runtime.py',
]

_base_.train_dataloader.sampler = dict(type='RepeatAugSampler')
_base_.train_dataloader.dataset.pipeline.insert(-1, _base_.random_erasing)
_base_.train_dataloader.dataset.pipeline[1].scale = 512
_base_.val_dataloader.dataset.pipeline[1].scale = 512
_base_.val_dataloader.dataset.pipeline[2].crop_size = 512
_base_.test_dataloader.dataset.pipeline[1].scale = 512
_base_.test_dataloader.dataset.pipeline[2].crop_size = 512
