"""Bases that ship with the package."""

from pathlib import Path

OFFLINE = Path(__file__).parent / "offline"
"""The folder that the name `offline` stands for."""
