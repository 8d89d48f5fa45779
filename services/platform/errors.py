"""What can go wrong with the stack.

PlatformError            its message says what to do
├── PortInUse            another program listens on the port of a part
├── PartFailed           a part died, or was not ready in time; the message ends with its log
└── LeftBehind           a process of the stack survived SIGKILL
"""

from tav.errors import TavError


class PlatformError(TavError):
    """Base of the tree; its message says what to do."""

    code = "invalid_config"


class PortInUse(PlatformError):
    """Another program listens on the port of a part."""


class PartFailed(PlatformError):
    """A part died, or was not ready in time."""


class LeftBehind(PlatformError):
    """A process of the stack survived SIGKILL."""
