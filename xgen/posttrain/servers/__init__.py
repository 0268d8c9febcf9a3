"""Generation by OpenAI-compatible servers: the engine that asks them, their weights, and what runs each of them.

No torch on import: the image of a server has no trainer in it.
"""

from xgen.posttrain.servers.engine import HttpEngine
from xgen.posttrain.servers.serve import run_server

__all__ = ["HttpEngine", "run_server"]
