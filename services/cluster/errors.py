"""What can go wrong with a cluster."""

from tav.errors import TavError


class ClusterError(TavError):
    """The settings, a cluster file or the head is not as it must be; the sentence says what to do."""

    code = "invalid_config"
