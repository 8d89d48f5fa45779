"""Operators of the network in kernels of our own, each beside the plain torch version that it replaces.

switch                 which operators run as kernels: `TAV_KERNELS`, and what the machine has
group_norm             GroupNorm over a video or a frame, with SiLU after it and a shift before it (Triton)
geglu                  GEGLU (Triton)
softmax                what the two attentions in Triton share
temporal_attention     attention over the frames of each position (Triton)
cross_attention        attention to the prompt, whose backward is for the queries alone (Triton)
sparse_attention       sparse-causal attention (flash-attn-4)
small_head_attention   attention with heads of 4 or 8 channels on a CPU (C++, compiled at first use)

A module gives a pair: `can_use_x(...)` tells whether the kernel takes these tensors, `x(...)` computes. `plain_x(...)` beside
them is the same function in torch, and the reference of the tests. None of the Triton kernels uses atomics, so each gives
the same bits for the same tensors.
"""
