"""Tuned clips in other people's formats: the public Tune-A-Video implementation's folders and diffusers pipelines.

reference   the public implementation's files: names, configs, weights
compare     is a checkpoint tuned on this base?
importing   a public checkpoint as a delta and inverted latents
exporting   a delta as a folder of theirs, or as a diffusers pipeline
older       the base's parts as the public implementation's old libraries read them
pipeline/   the code that an exported diffusers pipeline carries
"""

from tav.interop.exporting import export_diffusers, export_tune_a_video
from tav.interop.importing import Facts, Imported, extract_base, import_checkpoint

__all__ = ["Facts", "Imported", "export_diffusers", "export_tune_a_video", "extract_base", "import_checkpoint"]
