"""The model `demo:react`: reasons by rules over a conversation and acts through the tools it is given."""

from treadle_server.models.demo.model import DemoModel

__all__ = ["DemoModel"]
