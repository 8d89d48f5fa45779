"""Sampling: replicas that hold the base and draw videos of any version.

deltas       versions' deltas and inverted latents, loaded on demand
tiers        what of them is kept, in host memory and on the device
deployment   the Ray Serve deployment
client       how the gateway asks it
"""
