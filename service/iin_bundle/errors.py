"""What is raised when a bundle cannot be trusted."""

__all__ = ["BundleError"]


class BundleError(ValueError):
    """A bundle that is missing, incomplete, altered or inconsistent; the message says which and the remedy."""
