"""What can go wrong with the stack.

PlatformError            the sentence says what to do
├── PortInUse            somebody else listens where a part should
├── PartFailed           a part died, or was not ready in time; its log's end is in the text
└── LeftBehind           a process of the stack survived SIGKILL
"""

from tav.errors import TavError


class PlatformError(TavError):
    """Base of the tree; the text is a sentence that says what to do."""

    code = "invalid_config"


class PortInUse(PlatformError):
    """Somebody else listens where a part should."""


class PartFailed(PlatformError):
    """A part died, or was not ready in time."""


class LeftBehind(PlatformError):
    """A process of the stack survived SIGKILL."""
