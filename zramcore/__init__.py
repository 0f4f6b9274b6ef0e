"""zramcore: Linux zram with idle and huge page writeback, in Python; every part is a plugin."""

from importlib.metadata import version

__version__ = version("zramcore")
