"""Bases: what they are called, and how their files become networks.

names         names of bases, and which lie on this machine
configs       the JSON files of a base's folder, with the settings that it recommends
hub           bases on the Hugging Face hub: download, or say what there is instead
loading       from a folder or a single file to filled networks
single_file   bases in the original LDM layout

`offline/` is the base that ships with this package. Neither `names` nor `configs` imports torch.
"""

from tav.bases.configs import recommended
from tav.bases.names import MOVED, OFFLINE, local_folder, parse

__all__ = ["MOVED", "OFFLINE", "local_folder", "parse", "recommended"]
