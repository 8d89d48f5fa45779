"""What can go wrong in the method.

TavError                 `code` is stable; the text is one sentence that says what to do
├── InvalidClip          the clip cannot be decoded or does not fit the configuration
├── InvalidConfig        the parameters contradict each other or the base
│   ├── ScoreModelUnavailable   a model to score with cannot be loaded
│   └── CaptionerUnavailable    a captioner cannot be loaded
├── BaseUnavailable      the base cannot be loaded
├── BaseMismatch         a delta or latents made with another base
├── CorruptVersion       a stored file is incomplete or is not what it should be
├── InvalidCheckpoint    a checkpoint of another implementation that cannot be read or does not fit
├── NanLoss              the loss stopped being a finite number
├── OutOfMemory          frames × size do not fit the device
└── Cancelled            the caller asked to stop
"""

import errno


class TavError(Exception):
    """Base of the tree; `code` names the kind for machines."""

    code = "internal"


class InvalidClip(TavError):
    """The clip cannot be decoded or does not fit the configuration."""

    code = "invalid_clip"


class InvalidConfig(TavError):
    """The parameters contradict each other or the base."""

    code = "invalid_config"


class ScoreModelUnavailable(InvalidConfig):
    """A model to score with cannot be loaded."""


class CaptionerUnavailable(InvalidConfig):
    """A captioner cannot be loaded."""


class BaseUnavailable(TavError):
    """The base cannot be loaded."""

    code = "base_unavailable"


class BaseMismatch(TavError):
    """A delta or latents were made with another base."""

    code = "base_mismatch"


class CorruptVersion(TavError):
    """A stored file is incomplete or is not what it should be."""

    code = "corrupt_version"


class InvalidCheckpoint(TavError):
    """A checkpoint of another implementation cannot be read or does not fit."""

    code = "invalid_checkpoint"


class NanLoss(TavError):
    """The loss stopped being a finite number."""

    code = "nan_loss"


class OutOfMemory(TavError):
    """Frames × size do not fit the device."""

    code = "out_of_memory"


class Cancelled(TavError):
    """The caller asked to stop."""

    code = "cancelled"


def is_disk_full(error: BaseException) -> bool:
    """Say whether the system found no room left, or none within the quota."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
