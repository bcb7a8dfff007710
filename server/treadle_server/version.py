"""The version of the distribution, of which the client is the other half."""

from importlib.metadata import version

__version__ = version("treadle")
