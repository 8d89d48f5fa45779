"""The client's version, sent as its user agent."""

__version__ = "0.2.0"
