# PIIP-TSB 368/192/128 as released: the first patch token of every branch is classified
# instead of its class token, and the interactions after the last blocks are built.
_base_ = 'piip_tsb_368-192-128_in1k.py'

model = dict(backbone=dict(out_type='maps'), head=dict(token='first_patch'))
