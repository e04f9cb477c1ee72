"""The version of textcl, and of the libraries that take part in a score."""

import platform
from importlib.metadata import version

__version__ = "0.1.0"

_LIBRARIES = ("torch", "transformers", "sentence-transformers", "numpy", "scipy", "scikit-learn")


def library_versions() -> dict[str, str]:
    """Versions of what takes part in a score."""
    return {"textcl": __version__, "python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}}
