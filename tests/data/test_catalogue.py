"""The catalogue: counts of the real sets, archives that try to escape, downloads that are cut."""

import copy
import hashlib
import io
import json
import os
import re
import shutil
import socket
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.command import REPOSITORY

from textcl.data import catalogue
from textcl.data.archives import import_archive
from textcl.data.catalogue import data_directory, list_sets, load_manifest, verify
from textcl.data.clustering import load_clustering
from textcl.data.fetching import download, fetch
from textcl.data.sts import STS_TASKS, read_sts
from textcl.errors import InputError

SCORED = ("sts", "transfer", "clustering")  # the kinds of sets that encoders are scored on
COUNTS = {  # issue and methods.md, section 8: written out here, so that the manifest is checked against something
    "STS12": {"test": 3108},
    "STS13": {"test": 1500},
    "STS14": {"test": 3750},
    "STS15": {"test": 3000},
    "STS16": {"test": 1186},
    "STSBenchmark": {"train": 5749, "dev": 1500, "test": 1379},
    "SICK": {"train": 4500, "dev": 500, "test": 4927},
    "MR": {"all": 10662},
    "CR": {"all": 3775},
    "SUBJ": {"all": 10000},
    "MPQA": {"all": 10606},
    "SST2": {"train": 67349, "dev": 872, "test": 1821},
    "SST5": {"train": 8544, "dev": 1101, "test": 2210},
    "TREC": {"train": 5452, "test": 500},
    "MRPC": {"train": 4076, "test": 1725},
    "AgNews": {"all": 8000},
    "SearchSnippets": {"all": 12340},
    "StackOverflow": {"all": 20000},
}
SNLI = {"train": 549367, "dev": 9842, "test": 9824}  # it is not among the test data
IMPORTED = ("AgNews", "SearchSnippets", "StackOverflow")  # no public address


def everything_under(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture
def toy() -> dict:
    """A catalogue of two small sets, and what their files hold."""
    content = {
        "TOY/toy.txt": b"one\ntwo\n",
        "PAIR/a.csv": b"head\nrow\n",
        "PAIR/b.csv": b"row\nrow\nrow\n",
    }

    def entry(path: str, rows: int, **more: object) -> dict:
        sha256 = hashlib.sha256(content[path]).hexdigest()
        return {"name": path.split("/")[1], "split": "all", "rows": rows, "sha256": sha256, **more}

    plain = {"kind": "transfer", "licence": "", "origin": [], "archive": "toys"}
    manifest = {
        "archives": {"toys": {"url": "set by the test"}},
        "sets": {
            "TOY": {**plain, "folder": "TOY", "files": [entry("TOY/toy.txt", 2)], "notices": ["LICENSE"]},
            "PAIR": {**plain, "folder": "PAIR", "files": [entry("PAIR/a.csv", 1, header=True), entry("PAIR/b.csv", 3)]},
        },
    }
    return {"manifest": manifest, "content": content}


def make_tar(path: Path, members: dict[str, bytes], *more: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as tape:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tape.addfile(info, io.BytesIO(data))
        for info in more:
            tape.addfile(info)
    return path


# the manifest and the real sets


def test_the_manifest_has_the_published_counts() -> None:
    assert {info.name: info.rows for info in list_sets() if info.kind in SCORED} == {**COUNTS, "SNLI": SNLI}


def test_the_one_manifest_is_also_in_the_data_folder() -> None:
    link = REPOSITORY / "senteval_data" / "manifest.json"
    assert json.loads(link.read_text()) == load_manifest()
    if link.is_symlink():  # a source distribution holds a copy
        assert link.resolve() == Path(catalogue.__file__).with_name("manifest.json")


def test_the_readme_states_the_manifest() -> None:
    text = (REPOSITORY / "senteval_data" / "README.md").read_text()
    for info in list_sets():
        if info.kind in SCORED:
            rows = " / ".join(f"{count:,}" for count in info.rows.values())
            assert re.search(rf"\| {info.name}[^|]*\| `{info.folder}` \| {rows} \| {re.escape(info.licence)} \|", text)


def test_all_real_sets_are_imported_counted_and_hashed(evaluation_sets: Path) -> None:
    statuses = {status.name: status for status in verify(evaluation_sets, COUNTS)}
    assert {name: status.rows for name, status in statuses.items()} == COUNTS
    assert {status.state for status in statuses.values()} == {"ok"}
    assert not [path for path in everything_under(evaluation_sets) if ".import-" in path]


def test_sts_readers_give_the_published_numbers_of_pairs(evaluation_sets: Path) -> None:
    pairs = {task: sum(map(len, read_sts(task, evaluation_sets))) for task in STS_TASKS}
    assert list(pairs.values()) == [3108, 1500, 3750, 3000, 1186, 1379, 4927]
    assert len(read_sts("STSBenchmark", evaluation_sets, "dev")[0]) == 1500
    assert len(read_sts("SICKRelatedness", evaluation_sets, "dev")[0]) == 500
    assert [subset.name for subset in read_sts("STS13", evaluation_sets)] == ["FNWN", "headlines", "OnWN"]  # no SMT
    texts = [text for task in STS_TASKS for subset in read_sts(task, evaluation_sets) for text in subset.first]
    assert all(text == " ".join(text.split()) for text in texts)


def test_clustering_sets_have_the_published_sizes(evaluation_sets: Path) -> None:
    for name, count, classes in (("AgNews", 8000, 4), ("SearchSnippets", 12340, 8), ("StackOverflow", 20000, 20)):
        texts, labels = load_clustering(name.lower(), evaluation_sets)
        assert (len(texts), len(labels)) == (count, count)
        assert set(labels) == set(range(classes))
        assert all(text.strip() for text in texts)


def test_clustering_sets_share_a_folder_and_leave_each_other_alone(shared_data: Path, tmp_path: Path) -> None:
    archive, data = shared_data / "clustering.tar.xz", tmp_path / "data"
    import_archive(archive, data)
    shutil.copytree(data / "clustering", tmp_path / "one" / "clustering")
    for name in ("searchsnippets", "stackoverflow"):
        (tmp_path / "one" / "clustering" / f"{name}.csv").unlink()
    assert [(status.name, status.state) for status in import_archive(tmp_path / "one", data)] == [("AgNews", "ok")]
    assert [status.state for status in verify(data, IMPORTED)] == ["ok"] * 3
    assert everything_under(data) == ["clustering", *(f"clustering/{name.lower()}.csv" for name in IMPORTED)]


def test_clustering_sets_that_are_missing_or_damaged(shared_data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"AgNews is not installed.*Run `textcl data import FILE`") as caught:
        load_clustering("AgNews", tmp_path)
    assert "fetch" not in str(caught.value)
    with pytest.raises(InputError, match=r"no clustering set 'AgNew'.*Did you mean 'AgNews'\?"):
        load_clustering("AgNew", tmp_path)
    import_archive(shared_data / "clustering.tar.xz", tmp_path)
    file = tmp_path / "clustering" / "agnews.csv"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:-1]))
    with pytest.raises(InputError, match=r"7,999 texts, but 8,000 are expected.*textcl data import FILE"):
        load_clustering("AgNews", tmp_path)
    assert verify(tmp_path, ["AgNews"])[0].state == "wrong count"
    for line in ("text without label\n", "one,label in words\n", "1,a,comma\n"):
        file.write_text("".join([*lines[:4], line, *lines[5:]]))
        with pytest.raises(InputError, match=r"agnews\.csv, line 5: the line must have two cells"):
            load_clustering("AgNews", tmp_path)


def test_fetch_says_which_sets_can_only_be_imported(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"StackOverflow cannot be fetched.*no public address.*textcl data import FILE"
    ):
        fetch(["stackoverflow"], tmp_path / "data")
    assert everything_under(tmp_path) == []


# where the data is


def test_data_directory_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TEXTCL_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    (tmp_path / "senteval_data" / "samples").mkdir(parents=True)  # holds no set: passed over
    assert data_directory().name == "textcl"
    (tmp_path / "senteval_data" / "MR").mkdir()
    (tmp_path / "senteval_data" / "MR" / "rt-polarity.pos").write_text("x\n")
    assert data_directory() == Path("senteval_data")
    monkeypatch.setenv("TEXTCL_DATA", str(tmp_path / "elsewhere"))
    assert data_directory() == tmp_path / "elsewhere"


def test_a_set_that_is_not_there_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"STS12 is not installed.*STS\.gs\.MSRpar\.txt.*textcl data import FILE"):
        read_sts("STS12", tmp_path)
    with pytest.raises(InputError, match=r"STSBenchmark is not installed.*sts-dev\.csv"):
        read_sts("STSBenchmark", tmp_path, "dev")
    with pytest.raises(InputError, match=r"There is no STS task 'STS17'.*Did you mean 'STS1"):
        read_sts("STS17", tmp_path)
    with pytest.raises(InputError, match="has no split 'dev'"):
        read_sts("STS12", tmp_path, "dev")
    with pytest.raises(InputError, match=r"no set 'STSBenchmrk'.*Did you mean 'STSBenchmark'\?"):
        verify(tmp_path, ["STSBenchmrk"])


def test_damaged_sts_files_are_refused(evaluation_sets: Path, tmp_path: Path) -> None:
    folder = tmp_path / "STS" / "STS16-en-test"
    shutil.copytree(evaluation_sets / "STS" / "STS16-en-test", folder)
    gold = folder / "STS.gs.headlines.txt"
    right = gold.read_text().split("\n")
    scored = next(i for i, line in enumerate(right) if line)

    gold.write_text("\n".join([*right[:scored], "", *right[scored + 1 :]]))
    with pytest.raises(InputError, match=r"STS\.gs\.headlines\.txt has 248 scored pairs, but 249 are expected"):
        read_sts("STS16", tmp_path)
    assert verify(tmp_path, ["STS16"])[0].state == "wrong count"

    gold.write_text("\n".join(right[1:]))
    with pytest.raises(InputError, match="must have the same number"):
        read_sts("STS16", tmp_path)

    gold.write_text("\n".join([*right[:scored], "high", *right[scored + 1 :]]))
    with pytest.raises(InputError, match=rf"headlines\.txt, line {scored + 1}: the score 'high' is not a number"):
        read_sts("STS16", tmp_path)


# importing


@pytest.mark.parametrize("form", ["tar", "tar.gz", "tar.xz", "zip", "folder"])
def test_import_finds_the_layout_under_any_folders(tmp_path: Path, toy: dict, form: str) -> None:
    members = {f"some/where/{name}": data for name, data in toy["content"].items()}
    members |= {"some/where/TOY/LICENSE": b"do as you like\n", "some/other.txt": b"not of a set\n"}
    source = tmp_path / f"archive.{form}"
    if form == "zip":
        with zipfile.ZipFile(source, "w") as bundle:
            for name, data in members.items():
                bundle.writestr(name, data)
    elif form == "folder":
        for name, data in members.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(data)
    else:
        with tarfile.open(source, f"w:{form[4:]}") as tape:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tape.addfile(info, io.BytesIO(data))
    statuses = import_archive(source, tmp_path / "data", manifest=toy["manifest"])
    assert [(status.name, status.state) for status in statuses] == [("TOY", "ok"), ("PAIR", "ok")]
    assert everything_under(tmp_path / "data") == sorted(["TOY", "PAIR", "TOY/LICENSE", *toy["content"]])
    assert (tmp_path / "data" / "PAIR" / "a.csv").read_bytes() == toy["content"]["PAIR/a.csv"]


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def device(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = tarfile.CHRTYPE
    return info


@pytest.mark.parametrize(
    "bad",
    [
        "../evil.txt",
        "TOY/../../evil.txt",
        "/tmp/evil.txt",
        "..\\evil.txt",
        "C:\\evil.txt",
        "../TOY/toy.txt",
        link("TOY/toy.txt", "/etc/passwd"),
        link("elsewhere", "..", tarfile.SYMTYPE),
        link("TOY/hard", "/etc/passwd", tarfile.LNKTYPE),
        device("TOY/null"),
    ],
    ids=lambda bad: bad if isinstance(bad, str) else f"{bad.name}-{bad.type!r}",
)
def test_members_that_leave_the_folder_are_refused_and_nothing_is_written(
    tmp_path: Path, toy: dict, bad: str | tarfile.TarInfo
) -> None:
    good = dict(toy["content"])
    if isinstance(bad, str):
        archive = make_tar(tmp_path / "bad.tar", {**good, bad: b"evil"})
    else:
        archive = make_tar(tmp_path / "bad.tar", good, bad)
    before = everything_under(tmp_path)
    with pytest.raises(InputError, match=r"which would be written outside the folder|which is a link or a device"):
        import_archive(archive, tmp_path / "deep" / "data", manifest=toy["manifest"])
    assert everything_under(tmp_path) == before


@pytest.mark.parametrize("bad", ["../evil.txt", "/tmp/evil.txt", "a/../../evil.txt"])
def test_zip_members_that_leave_the_folder_are_refused(tmp_path: Path, toy: dict, bad: str) -> None:
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as bundle:
        for name, data in toy["content"].items():
            bundle.writestr(name, data)
        bundle.writestr(bad, b"evil")
    before = everything_under(tmp_path)
    with pytest.raises(InputError, match="would be written outside the folder"):
        import_archive(tmp_path / "bad.zip", tmp_path / "data", manifest=toy["manifest"])
    assert everything_under(tmp_path) == before


def test_zip_links_are_refused(tmp_path: Path, toy: dict) -> None:
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as bundle:
        info = zipfile.ZipInfo("TOY/toy.txt")
        info.external_attr = 0o120777 << 16
        bundle.writestr(info, "/etc/passwd")
    with pytest.raises(InputError, match="is a link"):
        import_archive(tmp_path / "bad.zip", tmp_path / "data", manifest=toy["manifest"])
    assert everything_under(tmp_path) == ["bad.zip"]


def test_a_wrong_count_leaves_what_was_there(tmp_path: Path, toy: dict) -> None:
    data = tmp_path / "data"
    import_archive(make_tar(tmp_path / "good.tar", toy["content"]), data, manifest=toy["manifest"])
    before = {path: (data / path).read_bytes() for path in everything_under(data) if (data / path).is_file()}
    wrong = make_tar(tmp_path / "wrong.tar", {**toy["content"], "TOY/toy.txt": b"ONE\nTWO\n", "PAIR/b.csv": b"row\n"})
    with pytest.raises(InputError, match=r"PAIR in .*wrong\.tar: PAIR.b\.csv has 1 rows, but 3 are expected"):
        import_archive(wrong, data, manifest=toy["manifest"])
    assert {path: (data / path).read_bytes() for path in everything_under(data) if (data / path).is_file()} == before


def test_other_bytes_with_the_right_count_are_accepted_and_named(
    tmp_path: Path, toy: dict, caplog: pytest.LogCaptureFixture
) -> None:
    archive = make_tar(tmp_path / "other.tar", {"TOY/toy.txt": b"ONE\nTWO\n"})
    (status,) = import_archive(archive, tmp_path / "data", manifest=toy["manifest"])
    assert (status.name, status.state, status.usable) == ("TOY", "hash differs", True)
    assert "but a hash differs" in caplog.text


def test_an_incomplete_set_is_left_out(tmp_path: Path, toy: dict, caplog: pytest.LogCaptureFixture) -> None:
    members = {name: data for name, data in toy["content"].items() if name != "PAIR/b.csv"}
    statuses = import_archive(make_tar(tmp_path / "part.tar", members), tmp_path / "data", manifest=toy["manifest"])
    assert [status.name for status in statuses] == ["TOY"]
    assert "PAIR in" in caplog.text
    assert "incomplete" in caplog.text
    assert not (tmp_path / "data" / "PAIR").exists()


def test_what_is_no_archive_is_refused(tmp_path: Path, toy: dict) -> None:
    (tmp_path / "text.txt").write_text("no archive")
    whole = make_tar(tmp_path / "whole.tar", {**toy["content"], "padding": b"x" * 100_000}).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:20_000])
    empty = make_tar(tmp_path / "empty.tar", {"something.txt": b"x"})
    before = everything_under(tmp_path)
    for path, message in (
        (tmp_path / "missing.tar", "There is no file"),
        (tmp_path / "text.txt", "neither a folder nor a tar or zip archive"),
        (tmp_path / "cut.tar", "cannot be unpacked"),
        (empty, "holds no file of the sets"),
    ):
        with pytest.raises(InputError, match=message):
            import_archive(path, tmp_path / "data", manifest=toy["manifest"])
    assert everything_under(tmp_path) == before


# fetching, from a real server on this machine


class Server:
    """Serves bytes by path with ranges; can cut a connection after so many bytes."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cut_after: int | None = None
        self.ranges_work = True
        self.chunked = False
        self.requests: list[tuple[str, str | None]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                wanted = self.headers.get("Range")
                outer.requests.append((self.path, wanted))
                if self.path not in outer.files:
                    self.send_error(404)
                    return
                data = outer.files[self.path]
                start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and outer.ranges_work else 0
                if start >= len(data) > 0:
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(data)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                if outer.chunked:  # no length is told, and the connection ends inside a chunk
                    self.send_response(200)
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    self.wfile.write(b"%x\r\n" % len(data) + data[: len(data) // 2])
                    self.close_connection = True
                    return
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(data) - start))
                self.send_header("Connection", "close")
                self.end_headers()
                body = data[start:]
                self.wfile.write(body[: outer.cut_after] if outer.cut_after is not None else body)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server.server_port}{path}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


CONTENT = os.urandom(3_000_000)


def test_a_cut_download_goes_on_where_it_stopped(tmp_path: Path, server: Server) -> None:
    server.files["/a.bin"], server.cut_after = CONTENT, 1_200_000
    target = tmp_path / "a.bin"
    with pytest.raises(
        InputError, match=r"stopped after 1,200,000 of 3,000,000 bytes.*Run the same command again to resume it"
    ):
        download(server.url("/a.bin"), target)
    assert not target.exists()
    assert (tmp_path / "a.bin.part").read_bytes() == CONTENT[:1_200_000]
    server.cut_after = None
    download(server.url("/a.bin"), target, sha256=hashlib.sha256(CONTENT).hexdigest())
    assert target.read_bytes() == CONTENT
    assert server.requests == [("/a.bin", None), ("/a.bin", "bytes=1200000-")]
    assert everything_under(tmp_path) == ["a.bin"]


def test_a_cut_is_noticed_where_no_length_was_told(tmp_path: Path, server: Server) -> None:
    server.files["/a.bin"], server.chunked = CONTENT, True
    with pytest.raises(InputError, match=r"stopped after [\d,]+ of an unknown number of bytes"):
        download(server.url("/a.bin"), tmp_path / "a.bin")
    assert not (tmp_path / "a.bin").exists()
    server.chunked = False
    assert download(server.url("/a.bin"), tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_server_without_ranges_begins_anew(tmp_path: Path, server: Server) -> None:
    server.files["/a.bin"], server.ranges_work = CONTENT, False
    (tmp_path / "a.bin.part").write_bytes(b"left by an earlier attempt")
    download(server.url("/a.bin"), tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_complete_partial_file_is_taken_and_one_too_long_is_dropped(tmp_path: Path, server: Server) -> None:
    server.files["/a.bin"] = CONTENT
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    download(server.url("/a.bin"), tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    (tmp_path / "b.bin.part").write_bytes(CONTENT + b"more")
    with pytest.raises(InputError, match="was removed"):
        download(server.url("/a.bin"), tmp_path / "b.bin")
    assert everything_under(tmp_path) == ["a.bin"]


def test_a_wrong_hash_is_thrown_away(tmp_path: Path, server: Server) -> None:
    server.files["/a.bin"] = CONTENT
    with pytest.raises(InputError, match="has the SHA-256"):
        download(server.url("/a.bin"), tmp_path / "a.bin", sha256="0" * 64)
    assert everything_under(tmp_path) == []


def test_no_connection_says_what_to_do(tmp_path: Path, server: Server) -> None:
    with pytest.raises(InputError, match=r"answered 404.*textcl data import FILE"):
        download(server.url("/missing.bin"), tmp_path / "a.bin")
    closed = server.url("/a.bin")
    server.server.server_close()
    with pytest.raises(InputError, match=r"could not be downloaded.*textcl data import FILE"):
        download(closed, tmp_path / "a.bin")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"not HTTP\r\n\r\n", r"could not be downloaded: .*textcl data import FILE"),
        (b"HTTP/1.1 416 No\r\nContent-Range: bytes */*\r\n\r\n", "was not a part of"),
        (b"HTTP/1.1 416 No\r\n\r\n", "was not a part of"),
    ],
)
def test_an_answer_that_is_not_understood_is_a_sentence(tmp_path: Path, answer: bytes, message: str) -> None:
    (tmp_path / "a.bin.part").write_bytes(b"abc")
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(InputError, match=message):
            download(f"http://127.0.0.1:{listening.getsockname()[1]}/a.bin", tmp_path / "a.bin")
        thread.join()


def test_fetch_brings_the_real_sets_in_and_does_not_ask_twice(
    tmp_path: Path, server: Server, shared_data: Path
) -> None:
    server.files["/senteval.tar.xz"] = (shared_data / "senteval_downstream.tar.xz").read_bytes()
    manifest = copy.deepcopy(load_manifest())
    manifest["archives"]["senteval"]["url"] = server.url("/senteval.tar.xz")
    server.cut_after = 1_000_000
    with pytest.raises(InputError, match="Run the same command again to resume it"):
        fetch(None, tmp_path, manifest=manifest)
    server.cut_after = None
    statuses = fetch(None, tmp_path, manifest=manifest)
    assert {status.name: status.state for status in statuses} == {n: "ok" for n in COUNTS if n not in IMPORTED}
    assert [range_ for _, range_ in server.requests] == [None, "bytes=1000000-"]
    assert not (tmp_path / "downloads").exists()
    fetch(["sts12", "MR"], tmp_path, manifest=manifest)
    assert len(server.requests) == 2


def test_fetch_takes_single_files_where_the_archive_is_gone(tmp_path: Path, server: Server, toy: dict) -> None:
    for path, data in toy["content"].items():
        server.files[f"/{path}"] = data
    manifest = toy["manifest"]
    manifest["archives"]["toys"]["url"] = server.url("/gone.tar")
    for entry in manifest["sets"].values():
        for file in entry["files"]:
            file["url"] = server.url(f"/{entry['folder']}/{file['name']}")
    statuses = fetch(None, tmp_path / "data", manifest=manifest)
    assert [(status.name, status.state) for status in statuses] == [("TOY", "ok"), ("PAIR", "ok")]
    assert everything_under(tmp_path / "data") == sorted(["TOY", "PAIR", *toy["content"]])


def test_fetch_refuses_wrong_content(tmp_path: Path, server: Server, toy: dict) -> None:
    archive = make_tar(tmp_path / "toys.tar", {**toy["content"], "TOY/toy.txt": b"one\n"})
    server.files["/toys.tar"] = archive.read_bytes()
    toy["manifest"]["archives"]["toys"]["url"] = server.url("/toys.tar")
    with pytest.raises(InputError, match="has 1 rows, but 2 are expected"):
        fetch(None, tmp_path / "data", manifest=toy["manifest"])
    assert not list((tmp_path / "data").rglob("*.t*"))  # neither the set nor the archive stays
