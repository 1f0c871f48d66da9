# PIIP-SBL 384/192/128 as released: the first patch of every branch is classified in
# place of its class token, and the interactions after the last blocks are there.
_base_ = 'piip_sbl_384-192-128_in1k.py'

model = dict(backbone=dict(out_type='maps'), head=dict(token='first_patch'))
