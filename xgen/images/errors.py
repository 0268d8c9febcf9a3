"""What can go wrong with an image. The text is all that a person sees: value, place, and what to do instead."""

from __future__ import annotations


class ImageError(Exception):
    """An image could not be fetched, converted or stored; nothing half-made is left under a name."""


class RegistryError(ImageError):
    """A registry did not say what an image is."""


class NotFoundError(RegistryError):
    """The registry answers, and has no such tag or repository."""


class UnauthorizedError(RegistryError):
    """The registry wants a login, or refuses the one that it got."""


class UnreachableError(RegistryError):
    """No answer from the registry: no network here, a wrong name, or a registry in trouble."""
