"""Archives that are bombs, encrypted, or packed on Windows; what killed imports leave; sets whose bytes are others."""

import io
import logging
import os
import platform
import random
import resource
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from textcl.data.archives import import_archive
from textcl.data.catalogue import data_directory, load_manifest
from textcl.errors import InputError
from textcl.evaluation.suite import Suite

CONTENT = {"TOY/toy.txt": b"one\ntwo\n", "PAIR/a.csv": b"head\nrow\n"}
MANIFEST = {
    "sets": {
        name: {
            "kind": "transfer",
            "licence": "",
            "origin": [],
            "folder": name,
            "files": [{"name": file, "split": "all", "rows": 2, "bytes": 8}],
            "notices": ["LICENSE"],
        }
        for name, file in (("TOY", "toy.txt"), ("PAIR", "a.csv"))
    }
}


def packed(path: Path, content: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
            for name, data in content.items():
                bundle.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
        return path
    with tarfile.open(path, f"w:{path.suffix[1:]}") as tape:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tape.addfile(info, io.BytesIO(data))
    return path


def test_the_manifest_knows_the_size_of_each_file_whose_hash_it_knows() -> None:
    files = [file for entry in load_manifest()["sets"].values() for file in entry["files"]]
    assert all(file["bytes"] > 0 for file in files if "sha256" in file)
    assert len([file for file in files if "bytes" in file]) == 93


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tar.xz", "a.zip"])
def test_a_bomb_is_refused_before_it_fills_the_disk(tmp_path: Path, name: str) -> None:
    archive = packed(tmp_path / name, {**CONTENT, "TOY/toy.txt": bytes(5_000_000)})
    assert archive.stat().st_size < 500_000
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))  # writing more would be an OSError
    try:
        with pytest.raises(InputError, match=rf"TOY/toy\.txt in .*{name} is much larger than the known file"):
            import_archive(archive, tmp_path / "data", manifest=MANIFEST)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert not (tmp_path / "data").exists()


def test_twice_the_known_size_is_still_taken(tmp_path: Path) -> None:
    for size, taken in ((16, True), (17, False)):
        archive = packed(tmp_path / f"{size}.tar.gz", {**CONTENT, "TOY/toy.txt": b"x" * (size - 3) + b"\n2\n"})
        if taken:
            assert len(import_archive(archive, tmp_path / "data", manifest=MANIFEST)) == 2
        else:
            with pytest.raises(InputError, match="much larger"):
                import_archive(archive, tmp_path / "data", manifest=MANIFEST)


def test_what_a_user_has_in_the_folder_of_a_set_stays(tmp_path: Path) -> None:
    source, root = packed(tmp_path / "a.zip", CONTENT), tmp_path / "data"
    import_archive(source, root, manifest=MANIFEST)
    mine = {"TOY/notes.txt": b"mine", "TOY/deep/er/b.bin": b"\0\1", "PAIR/LICENSE": b"of an earlier import"}
    for name, content in mine.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (root / "TOY" / "link").symlink_to("notes.txt")
    (root / "TOY" / "toy.txt").write_bytes(b"damaged")
    (root / "PAIR" / "a.csv").unlink()
    (root / "PAIR" / "a.csv").symlink_to("LICENSE")  # a file of the set is replaced, whatever it is
    import_archive(source, root, manifest=MANIFEST)
    assert {name: (root / name).read_bytes() for name in (*CONTENT, *mine)} == {**CONTENT, **mine}
    assert (root / "TOY" / "link").readlink() == Path("notes.txt")
    assert sorted(each.name for each in root.iterdir()) == ["PAIR", "TOY"]


def test_sparse_members_are_refused(tmp_path: Path) -> None:
    sparse = tmp_path / "toy.txt"
    with sparse.open("wb") as handle:
        handle.truncate(8 << 30)
    archive = tmp_path / "sparse.tar"
    subprocess.run(["tar", "--sparse", "-cf", archive, "--transform", "s,^,TOY/,", "toy.txt"], cwd=tmp_path, check=True)
    assert archive.stat().st_size < 100_000
    with pytest.raises(InputError, match=r"has the sparse member 'TOY/toy\.txt'"):
        import_archive(archive, tmp_path / "data", manifest=MANIFEST)
    assert not (tmp_path / "data").exists()


def test_a_disk_that_takes_no_more_is_not_a_damaged_archive(tmp_path: Path) -> None:
    manifest = {"sets": {"TOY": {**MANIFEST["sets"]["TOY"], "files": [{"name": "toy.txt", "split": "all"}]}}}
    archive = packed(tmp_path / "good.tar.gz", {"TOY/toy.txt": random.Random(0).randbytes(200_000)})
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            import_archive(archive, tmp_path / "data", manifest=manifest)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert not isinstance(caught.value, InputError)
    assert not (tmp_path / "data").exists()


def test_encrypted_archives_and_unknown_compressions_are_a_sentence(tmp_path: Path) -> None:
    archive = packed(tmp_path / "a.zip", CONTENT)
    whole = archive.read_bytes()
    for offset, value, message in (
        (6, b"\x01\x00", "is encrypted, password required"),
        (8, b"\x63\x00", "compression"),
    ):
        changed = bytearray(whole)
        for mark, place in ((b"PK\x03\x04", offset), (b"PK\x01\x02", offset + 2)):  # local header, central directory
            start = changed.find(mark)
            changed[start + place : start + place + 2] = value
        archive.write_bytes(changed)
        with pytest.raises(InputError, match=rf"a\.zip cannot be unpacked: .*{message}.*Pack it again"):
            import_archive(archive, tmp_path / "data", manifest=MANIFEST)


def test_a_zip_with_backslashes_is_read(tmp_path: Path) -> None:
    archive = packed(tmp_path / "a.zip", {f"some\\{name}".replace("/", "\\"): data for name, data in CONTENT.items()})
    assert {status.name for status in import_archive(archive, tmp_path / "data", manifest=MANIFEST)} == {"TOY", "PAIR"}
    with pytest.raises(InputError, match="written outside the folder"):
        import_archive(packed(tmp_path / "b.zip", {"..\\TOY\\toy.txt": b"x"}), tmp_path / "data", manifest=MANIFEST)


def test_damaged_archives_are_imported_or_a_sentence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    draw = random.Random(0)
    sources = [packed(tmp_path / f"a.{form}", CONTENT).read_bytes() for form in ("zip", "tar.gz", "tar.xz", "tar.bz2")]
    sentences = 0
    for number in range(200):
        changed = bytearray(sources[number % len(sources)])
        for _ in range(draw.choice([1, 2, 10])):
            changed[draw.randrange(len(changed))] = draw.randrange(256)
        archive = tmp_path / "damaged"
        archive.write_bytes(changed)
        try:
            import_archive(archive, tmp_path / "data", manifest=MANIFEST)
        except InputError:
            sentences += 1
    assert sentences > 50


def test_folders_of_killed_imports_are_removed_and_others_stay(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    data = tmp_path / "data"
    names = {
        f".import-{platform.node()}-{ended.pid}-abc": False,
        f".import-{platform.node()}-{os.getpid()}-abc": True,  # this process is alive
        f".import-another-machine-{ended.pid}-abc": True,
    }
    for name in names:
        (data / name).mkdir(parents=True)
    import_archive(packed(tmp_path / "a.tar.gz", CONTENT), data, manifest=MANIFEST)
    assert {name: (data / name).exists() for name in names} == names
    assert sorted(path.name for path in data.iterdir() if path.name[0] != ".") == ["PAIR", "TOY"]


def test_a_tilde_in_the_variable_is_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TEXTCL_DATA", "~/data")
    assert data_directory() == tmp_path / "data"


def test_sets_with_other_bytes_are_said_once_each(
    evaluation_sets: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for folder in ("STS/STSBenchmark", "SICK"):
        shutil.copytree(evaluation_sets / folder, tmp_path / folder)
    tasks = "stsb-dev,stsb,sickr,stsb-regression,sickr-regression"
    with caplog.at_level(logging.WARNING, logger="textcl"):
        Suite(tasks, tmp_path)
    assert caplog.messages == []
    for name in ("sts-dev.csv", "sts-test.csv"):
        file = tmp_path / "STS" / "STSBenchmark" / name
        lines = [line.split("\t") for line in file.read_text().split("\n")]
        file.write_text(
            "\n".join("\t".join([*cells[:4], "0.0", *cells[5:]] if cells[5:] else cells) for cells in lines)
        )
    with caplog.at_level(logging.WARNING, logger="textcl"):
        Suite(tasks, tmp_path)
    (said,) = caplog.messages
    assert said.startswith(f"STSBenchmark: a file in {tmp_path / 'STS' / 'STSBenchmark'} is not the known one")
