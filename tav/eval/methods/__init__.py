"""What a suite compares: the tuned model, its ablations, per-frame baselines on the same base, a text-to-video model.

catalogue       all methods by name
workbench       a base with a warm tuner and sampler, and what has been made of each clip
tuned           the method itself, and what is left of it without one of its parts
frames          per-frame baselines: a clip edited as so many pictures
text_to_video   a model that never sees the clip
"""

from tav.eval.methods.catalogue import METHODS, Method
from tav.eval.methods.workbench import Workbench

__all__ = ["METHODS", "Method", "Workbench"]
