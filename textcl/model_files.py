"""Which files make a folder a model, and which of them hold its weights."""

from pathlib import Path

from textcl.errors import InputError
from textcl.files import read_json


def is_model(folder: Path) -> bool:
    """Whether a folder has a model: of transformers, of sentence-transformers, or an adapter of peft."""
    return any((folder / name).is_file() for name in ("config.json", "modules.json", "adapter_config.json"))


def safetensors_files(folder: Path) -> list[Path]:
    """The files of a model's weights: model.safetensors, or those that model.safetensors.index.json names; else none.

    Raises:
        InputError: If the index cannot be read, or names a file that is not a safetensors file of the same folder.
    """
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file() or not index.is_file():
        return [whole] if whole.is_file() else []
    content = read_json(index)
    files = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(files, dict):
        raise InputError(f"{index} is damaged: it must hold an object with a weight_map.")
    for name in files.values():
        if not isinstance(name, str) or not name.endswith(".safetensors") or Path(name).name != name or "\\" in name:
            raise InputError(
                f"{index} names the file {name!r}. Weights are loaded only from .safetensors files of the same folder, "
                "for safety."
            )
    return [folder / name for name in sorted(set(files.values()))]
