"""Generation of answers: the protocol and its engines. No torch on import."""

from xgen.posttrain.engine.protocol import (
    Completion,
    Engine,
    EngineError,
    Partial,
    Request,
    Sampling,
    Versions,
)

__all__ = ["Completion", "Engine", "EngineError", "Partial", "Request", "Sampling", "Versions"]
