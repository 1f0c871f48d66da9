# The branches of the published ConvNeXt models (arXiv 2201.03545), pretrained on
# ImageNet-1k; configs add img_size. The published recipe names the copies of these files
# on Hugging Face, facebook/convnext-{tiny,small,base}-224.
convnext_tiny = dict(
    type='PIIPConvNeXt',
    arch='convnext_tiny',
    drop_path_rate=0.3,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://dl.fbaipublicfiles.com/convnext/convnext_tiny_1k_224_ema.pth',
    ),
)
convnext_small = dict(
    type='PIIPConvNeXt',
    arch='convnext_small',
    drop_path_rate=0.3,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://dl.fbaipublicfiles.com/convnext/convnext_small_1k_224_ema.pth',
    ),
)
convnext_base = dict(
    type='PIIPConvNeXt',
    arch='convnext_base',
    drop_path_rate=0.4,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://dl.fbaipublicfiles.com/convnext/convnext_base_1k_224_ema.pth',
    ),
)
# Last block of each of the 12 groups. The first two stages form one group each, and the
# third is split into nine. A down-sampling layer is the first block of the group after
# it.
convnext_tiny_ends = [2, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 20]
convnext_small_ends = [2, 6, 10, 13, 16, 19, 22, 25, 28, 31, 34, 38]
convnext_base_ends = convnext_small_ends
vit_ends = list(range(12))
