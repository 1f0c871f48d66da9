# The branches of the published Uni-Perceiver models (arXiv 2112.01522), from files
# converted by ViT-Adapter; configs add img_size and window_size.
uniperceiver_base = dict(
    type='PIIPUniPerceiver',
    arch='uniperceiver_base',
    drop_path_rate=0.15,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://github.com/czczup/ViT-Adapter/releases/download/v0.3.1/'
        'uni-perceiver-base-L12-H768-224size-torch-pretrained_converted.pth',
    ),
)
uniperceiver_large = dict(
    type='PIIPUniPerceiver',
    arch='uniperceiver_large',
    drop_path_rate=0.4,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://github.com/czczup/ViT-Adapter/releases/download/v0.3.1/'
        'uni-perceiver-large-L24-H1024-224size-pretrained_converted.pth',
    ),
)
