"""Compiles DeepSpeed's CPU communication into torch's extension cache: `python -m services.tuning.prebuild`."""

import os

os.environ["DS_ACCELERATOR"] = "cpu"

from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder

ShareMemCommBuilder().load(verbose=False)
