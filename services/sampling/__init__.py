"""Sampling: replicas that hold a base and sample videos of any of its versions, and the gateway's side that asks them.

In the gateway:

driver       the open videos, from their creation or an earlier gateway to their end
open_video   one of them
attempts     asks a sampler, and another one where it is lost
turns        whose video is next, and how many may wait
client       the samplers of every base, by Ray Serve
storage      calls of the registry, repeated while it is away

Between the two:

messages     what they send each other
errors       why a video is not sampled
estimates    whether a sampler has memory and time for a video

In a sampler:

deployment   the Ray Serve deployment: one video at a time
engine       the base, its network and the deltas; samples, scores and encodes
deltas       the versions' deltas and inverted latents, loaded on demand
tiers        which of them stay in host memory and on the device
"""
