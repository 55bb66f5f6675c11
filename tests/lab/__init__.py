"""Test hosts for holdfast.backup: small Debian systems that boot in seconds."""

from .api import Lab
from .shell import LabError

__all__ = ["Lab", "LabError"]
