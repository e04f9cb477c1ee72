"""The file of a map: one HTML page with everything that it shows, and with what an update of the map reads again.

The page holds a head (JSON with a seal) and blocks (numbers or JSON, gzip, base64) whose SHA-256 the head names. All
text of users is in the blocks or in the head, so it can neither close a tag nor run.
"""

import base64
import gzip
import hashlib
import html
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from textcl.data.formats import check_file
from textcl.errors import InputError
from textcl.files import atomic_write, content_hash
from textcl.report.page import script_digest
from textcl.terminal import printable
from textcl.texts import json_value

SCHEMA = 1
_HEAD = re.compile(r'<script type="application/json" id="head">(.*?)</script>', re.DOTALL)
_TAG = '<script type="text/plain" id="block-{}">{}</script>'
_FOLDER = Path(__file__).parent


def write_map_file(
    path: str | os.PathLike[str], title: str, head: Mapping[str, Any], blocks: Mapping[str, Any]
) -> None:
    """Writes a page, atomically.

    Args:
        path: The file.
        title: The title of the page.
        head: What JSON can hold.
        blocks: For each name an array, or a value that JSON can hold.
    """
    packed = {name: _packed(value) for name, value in blocks.items()}
    sealed = {"schema": SCHEMA, **json_value(head), "blocks": {name: _hash(text) for name, text in packed.items()}}
    sealed["sha256"] = content_hash(sealed)
    script = (_FOLDER / "map.js").read_text(encoding="utf-8")
    parts = {
        "title": html.escape(printable(title)),
        "style": (_FOLDER / "map.css").read_text(encoding="utf-8"),
        "head": json.dumps(sealed, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c"),
        "blocks": "\n".join(_TAG.format(name, text) for name, text in packed.items()),
        "digest": script_digest(script),
        "script": script,
    }  # fmt: skip
    page = (_FOLDER / "map.html").read_text(encoding="utf-8")
    page = re.sub(r"\{\{ (\w+) \}\}", lambda found: parts[found[1]], page)
    with atomic_write(path) as temporary:
        temporary.write_bytes(page.encode("utf-8"))


@dataclass(frozen=True)
class MapFile:
    """A map that was read again.

    Attributes:
        path: The file.
        head: The settings and the text columns of the map, as its JSON part holds them.
    """

    path: Path
    head: dict[str, Any]
    _page: str

    def array(self, name: str, kind: Any, columns: int) -> np.ndarray:
        """A block of numbers, (rows, columns).

        Raises:
            InputError: It is damaged.
        """
        raw = self._block(name)
        if len(raw) % (np.dtype(kind).itemsize * columns):
            raise self._damaged()
        return np.frombuffer(raw, kind).reshape(-1, columns)

    def values(self, name: str) -> Any:
        """A block of JSON.

        Raises:
            InputError: It is damaged.
        """
        return json.loads(self._block(name))

    def _block(self, name: str) -> bytes:
        found = re.search(_TAG.format(name, "([^<]*)"), self._page)
        if not found or _hash(found[1]) != self.head["blocks"].get(name):
            raise self._damaged()
        return gzip.decompress(base64.b64decode(found[1]))

    def _damaged(self) -> InputError:
        return InputError(f"{self.path} is damaged: it does not have the content that textcl map wrote. Make it again.")


def read_map_file(path: str | os.PathLike[str]) -> MapFile:
    """Reads the file of a map.

    Raises:
        InputError: There is no such file, textcl map did not write it, it has another schema, or it is damaged.
    """
    check_file(Path(path))
    page = Path(path).read_bytes().decode("utf-8", "replace")
    found = _HEAD.search(page)
    if not found:
        raise InputError(f"{path} is not a map that textcl map wrote.")
    try:
        head = json.loads(found[1])
    except ValueError:
        head = None
    if not isinstance(head, dict) or head.pop("sha256", None) != content_hash(head):
        raise InputError(f"{path} is damaged: it does not have the content that textcl map wrote. Make it again.")
    if head["schema"] != SCHEMA:
        raise InputError(f"{path} was written by another version of textcl, whose maps this one cannot read.")
    return MapFile(Path(path), head, page)


def _packed(value: Any) -> str:
    if isinstance(value, np.ndarray):
        raw = np.ascontiguousarray(value, value.dtype.newbyteorder("<")).tobytes()
    else:
        raw = json.dumps(json_value(value), ensure_ascii=False, allow_nan=False).encode()
    return base64.b64encode(gzip.compress(raw, 6, mtime=0)).decode()


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
