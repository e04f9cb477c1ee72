"""Builds the source distribution, compares it with the files that git knows, and runs a small part of its own tests.

The tests run in the unpacked archive, in a folder elsewhere: a file that is missing from MANIFEST.in makes them fail.
Called by `make sdist-test`.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
OF_SETUPTOOLS = {"PKG-INFO", "setup.cfg"}
TESTS = (
    "tests/test_package.py",
    "tests/test_files.py",
    "tests/test_docs.py::test_links_resolve",
    "tests/losses/test_ranking.py",
    "tests/losses/test_redundancy.py",
)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        build = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
        subprocess.run([sys.executable, "-c", build, folder], cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(folder).glob("*.tar.gz")
        with tarfile.open(archive) as tape:
            tape.extractall(folder, filter="data")
        unpacked = Path(folder) / archive.name.removesuffix(".tar.gz")
        packed = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
        packed = {name for name in packed if name not in OF_SETUPTOOLS and ".egg-info/" not in name}
        known = known_to_git()
        for name in sorted(known ^ packed):
            print(f"{name} is in {'the archive' if name in packed else 'git'} only", file=sys.stderr)
        if known != packed:
            return 1
        print(
            f"{archive.name}: {archive.stat().st_size / 1e6:.1f} MB, {len(packed)} files; running its tests", flush=True
        )
        paths = {"PYTHONPATH": str(unpacked)}  # before the package that is installed here
        command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", *TESTS]
        return subprocess.run(command, cwd=unpacked, env=os.environ | paths).returncode


def known_to_git() -> set[str]:
    """Tracked files, and new ones that are not ignored, but for those that are of no use outside the repository."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listing, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
    return {
        name for name in names.split("\0") if name and not name.startswith(".ci/") and Path(name).name != ".gitignore"
    }


if __name__ == "__main__":
    sys.exit(main())
