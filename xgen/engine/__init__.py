"""Generation of answers: the protocol and its engines. No torch on import."""

from xgen.engine.protocol import (
    Completion,
    Engine,
    EngineError,
    NoNumbersError,
    Partial,
    Request,
    Sampling,
    Versions,
)

__all__ = ["Completion", "Engine", "EngineError", "NoNumbersError", "Partial", "Request", "Sampling", "Versions"]
