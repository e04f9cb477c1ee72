"""Files of a directory of vectors, and of its corpus."""

from pathlib import Path


def corpus_file(folder: Path, texts: list[str]) -> Path:
    path = folder / "corpus.txt"
    path.write_bytes("".join(text + "\n" for text in texts).encode())
    return path


def parts(directory: Path) -> list[Path]:
    return sorted(directory.glob("part-*.parquet"))


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def modified(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in parts(directory)}
