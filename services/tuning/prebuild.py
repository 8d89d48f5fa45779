"""Compiles DeepSpeed's CPU communication into torch's extension cache: `python -m services.tuning.prebuild`."""

import os

os.environ["DS_ACCELERATOR"] = "cpu"

from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder  # noqa: E402 - reads the variable at import

ShareMemCommBuilder().load(verbose=False)
