"""The versions of textcl and of the libraries that affect scores."""

import platform
from importlib.metadata import version

__version__ = "0.1.0"

_LIBRARIES = ("torch", "transformers", "sentence-transformers", "numpy", "scipy", "scikit-learn")


def library_versions() -> dict[str, str]:
    """The versions of textcl, Python and the libraries that affect scores, by name."""
    return {"textcl": __version__, "python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}}
