# Fine-tuning: 20 epochs at batch size 1024 (8 GPUs x 128 images) with AdamW. The
# interactions have ten times the learning rate of the pretrained branches, and all
# parameters have weight decay.
max_epochs = 20

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1 / 30,
        by_epoch=True,
        begin=0,
        end=5,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        begin=5,
        end=max_epochs,
        T_max=max_epochs - 5,
        eta_min=1e-5,
        convert_to_iter_based=True,
    ),
]

optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',
    # bfloat16 needs no loss scaling.
    loss_scale=1.0,
    optimizer=dict(type='AdamW', lr=3e-5, betas=(0.9, 0.999), weight_decay=0.1),
    paramwise_cfg=dict(custom_keys={'backbone.interactions': dict(lr_mult=10.0)}),
)
auto_scale_lr = dict(enable=False, base_batch_size=1024)
