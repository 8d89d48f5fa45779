"""The client's version, sent as its user agent."""

__version__ = "0.1.0"
