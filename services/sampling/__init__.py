"""Sampling: replicas that hold the base and draw videos of any version.

deltas       versions' deltas and inverted latents in host memory
deployment   the Ray Serve deployment
client       how the gateway asks it
"""
