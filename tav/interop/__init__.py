"""Tuned clips in other people's formats: the public Tune-A-Video implementation's folders and diffusers pipelines."""

from tav.interop.exporting import export_diffusers, export_tune_a_video
from tav.interop.importing import Facts, Imported, extract_base, import_checkpoint

__all__ = ["Facts", "Imported", "export_diffusers", "export_tune_a_video", "extract_base", "import_checkpoint"]
