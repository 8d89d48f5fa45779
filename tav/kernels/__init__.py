"""Operators of our own, each with the plain version as its reference and where it cannot run.

small_head_attention   attention with heads of 4 or 8 channels on a CPU (C++, compiled at first use)
"""
