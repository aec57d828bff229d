"""What works on one machine, without a gateway."""

from __future__ import annotations

import hashlib
import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kachery.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Done

    Kachery = Callable[..., Done]

ABSENT = "sha1://" + "0" * 40


def sha1(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


@pytest.fixture
def large() -> bytes:
    return os.urandom(3_000_000)


def test_what_is_stored_here_is_loaded_here(kachery: Kachery, recording: Path) -> None:
    stored = kachery("store", "--local", str(recording))
    hash_ = sha1(recording.read_bytes())
    assert (stored.code, stored.out, stored.err) == (0, f"sha1://{hash_}/{recording.name}\n", "")
    loaded = kachery("load", stored.out.strip())
    assert loaded.code == 0
    assert Path(loaded.out.strip()).read_bytes() == recording.read_bytes()
    told = kachery("load", "--json", "--local-only", stored.out.strip()).document
    assert told == {"uri": stored.out.strip(), "path": loaded.out.strip()}


def test_several_files_give_several_uris_in_their_order(kachery: Kachery) -> None:
    for name in "cab":
        Path(name).write_text(name)
    done = kachery("store", "--local", "c", "a", "b", "--json")
    assert [(item["file"], item["hash"], item["size"], item["zone"]) for item in done.document] == [
        (name, sha1(name.encode()), 1, None) for name in "cab"
    ]
    assert kachery("link", "c", "a").out.split() == [f"sha1://{sha1(name.encode())}/{name}" for name in "ca"]


@pytest.mark.parametrize(
    ("label", "end"), [("run 1.nwb", "/run%201.nwb"), ("", ""), ("Zoë", "/Zo%C3%AB"), ("a?b&c#d", "/a%3Fb%26c%23d")]
)
def test_a_label_names_the_uri(kachery: Kachery, label: str, end: str) -> None:
    Path("x").write_text("x")
    assert kachery("store", "--local", "x", "--label", label).out == f"sha1://{sha1(b'x')}{end}\n"


@pytest.mark.parametrize("label", ["../x", "..", "a/b", "a\\b", "a\nb", "\x1b[2J", "a\u202eb", "nul", "x" * 256])
def test_a_label_that_could_mislead_is_refused(kachery: Kachery, label: str) -> None:
    Path("x").write_text("x")
    done = kachery("store", "--local", "x", "--label", label)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: label ")
    assert "\x1b" not in done.err
    assert kachery("ls").out == ""


def test_file_names_may_be_anything(kachery: Kachery) -> None:
    name = b"a\x1b[31m\nb\xff.dat"
    Path(os.fsdecode(name)).write_bytes(b"x")
    done = kachery("link", os.fsdecode(name))
    assert done.out == f"sha1://{sha1(b'x')}/a%1B%5B31m%0Ab%FF.dat\n" or done.code == 0
    listed = kachery("ls")
    assert listed.code == 0
    assert "\x1b" not in listed.out
    assert listed.out.count("\n") == 1
    assert kachery("load", done.out.strip()).code == 0


def test_the_standard_input_is_stored(kachery: Kachery, monkeypatch: pytest.MonkeyPatch, large: bytes) -> None:
    for data in (b"", b"small", large):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        done = kachery("store", "--local", "-", "--label", "piped.dat")
        assert done.out == f"sha1://{sha1(data)}/piped.dat\n"
        assert Path(kachery("load", done.out.strip()).out.strip()).read_bytes() == data
    assert Store().clean(0) == []


def test_the_standard_input_goes_to_a_plain_directory(
    kachery: Kachery, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KACHERY_STORE_FILE_DIR", str(tmp_path / "plain"))
    monkeypatch.setenv("KACHERY_STORE_FILE_PREFIX", "https://files.example.org/lab")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"piped")))
    done = kachery("store", "-")
    assert done.out == f"https://files.example.org/lab/sha1/{sha1(b'piped')}\n"
    assert (tmp_path / "plain" / "sha1" / sha1(b"piped")).read_bytes() == b"piped"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["store", "--local", "missing"], 3, "could not read missing"),
        (["store", "--local", ""], 2, "a file name is empty"),
        (["store", "--local", "a-pipe"], 2, "not a regular file"),
        (["store", "--local", "a-loop"], 2, "could not read a-loop"),
        (["store", "--local", "x" * 300], 2, "could not read"),
        (["store", "--local", ABSENT], 2, "is a URI, not a file"),
        (["store", "--local", "-", "-"], 2, "only once"),
        (["store", "--local", "--zone", "lab", "fine"], 2, "--local"),
        (["store", "--local", "fine", "fine", "--label", "x"], 2, "one label"),
        (["store", "--zone", "lab", "fine"], 9, "no gateway is configured"),
        (["link", "missing"], 3, "could not read missing"),
        (["link", "."], 2, "only files can be linked"),
        (["load", ""], 2, "the URI is empty"),
        (["load", "sha1://123"], 2, "does not hold a sha1 hash"),
        (["load", "SHA1://" + "0" * 40], 2, "not a URI"),
        (["load", "sha1://" + "A" * 40], 2, "capital letters"),
        (["load", "what.nwb"], 2, "not a URI"),
        (["load", "sftp://x/y"], 2, "unknown kind of URI"),
        (["load", ABSENT], 3, "no gateway is configured"),
        (["load", ABSENT, "--local-only"], 3, "only this machine was asked"),
        (["load", ABSENT, "--zone", "../x"], 2, "not a zone name"),
        (["load", "sha1dir://" + "0" * 40 + ".d/x"], 3, "was not found"),
        (["load", "sha1dir://" + "0" * 40 + ".d/../x"], 2, "does not name a file"),
        (["load", "sha1dir://" + "0" * 40 + ".d"], 2, "is a directory, not a file"),
        (["load", "sha1dir://" + "0" * 40 + ".d", "--dest", "fine"], 10, "already exists"),
        (["load", "sha1dir://" + "0" * 40 + ".d", "--dest", "new"], 3, "was not found"),
        (["ls", "sha1dir://" + "0" * 40 + ".d"], 3, "was not found"),
        (["ls", ABSENT], 2, "Not a directory"),
        (["load", "sha1-enc://ab.ag_x"], 8, "encrypted"),
        (["load", "kachery-feed://x"], 8, "feeds"),
        (["load", "ipfs://x"], 8, "no longer exists"),
        (["load", "/no/such/file"], 3, "no such file"),
        (["cat", ABSENT], 3, "was not found"),
        (["cat", ABSENT, "--start", "-1"], 2, "--start"),
        (["info", ABSENT], 3, "was not found"),
        (["info", "https://example.org/x"], 2, "not the URI of a file by its content"),
        (["delete", ABSENT, "--zone", "lab", "--yes"], 9, "no gateway is configured"),
        (["delete", ABSENT, "--yes"], 2, "--zone"),
        (["clean", "--older-than", "-1"], 2, "--older-than"),
        (["clean", "--older-than", "soon"], 2, "--older-than"),
        (["clean", "--damaged", "-1"], 2, "--damaged"),
        (["init"], 9, "no gateway is configured"),
        (["init", "--gateway", "labserver:8471"], 2, "names no protocol"),
        (["init", "--gateway", "ftp://labserver"], 2, "not a gateway's address"),
        (["init", "--gateway", "http://labserver/?x"], 2, "not a gateway's address"),
        (["init", "--gateway", "http://127.0.0.1:1", "--zone", "a b"], 2, "not a zone name"),
        (["status"], 9, "no gateway is known"),
        (["stor"], 2, "no such command 'stor'"),
        (["store"], 2, "missing argument"),
        (["store", "--colour"], 2, "--colour"),
    ],
)
def test_what_cannot_be_done_is_one_error_and_leaves_nothing(
    kachery: Kachery, own_environment: Path, arguments: list[str], code: int, says: str
) -> None:
    Path("fine").write_text("fine")
    os.mkfifo("a-pipe")
    os.symlink("a-loop", "a-loop")
    done = kachery(*arguments)
    assert done.code == code, done.err
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert says in errors[0]
    assert "Traceback" not in done.err
    if arguments[0] != "status":
        assert done.out == ""
    assert [path for path in own_environment.rglob("*") if path.is_file()] == []
    as_json = kachery(*arguments, "--json")
    if arguments[0] not in ("cat", "delete", "init"):
        assert as_json.code == code
    assert set(as_json.error) == {"code", "message", "hint"}


def test_nothing_is_stored_when_one_of_the_files_is_missing(kachery: Kachery) -> None:
    Path("fine").write_text("fine")
    assert kachery("store", "--local", "fine", "missing").code == 3
    assert kachery("ls").out == ""


def test_a_copy_of_ones_own(kachery: Kachery) -> None:
    Path("x").write_text("x")
    uri = kachery("store", "--local", "x").out.strip()
    done = kachery("load", uri, "--dest", "deep/down/copy")
    assert done.out == "deep/down/copy\n"
    assert Path("deep/down/copy").read_text() == "x"
    assert kachery("load", uri, "--dest", "deep").code == 2
    assert sorted(os.listdir("deep")) == ["down"]


def test_cat_writes_bytes_as_they_are(capfdbinary: pytest.CaptureFixture[bytes], large: bytes, tmp_path: Path) -> None:
    from kachery.cli import main

    (tmp_path / "x").write_bytes(large)
    main.run(["store", "--local", str(tmp_path / "x"), "--label", ""])
    capfdbinary.readouterr()
    uri = f"sha1://{sha1(large)}"
    for arguments, expected in (
        ([], large),
        (["--start", "5", "--end", "2000005"], large[5:2_000_005]),
        (["--end", "0"], b""),
        (["--start", str(len(large))], b""),
    ):
        assert main.run(["cat", uri, *arguments]) == 0
        captured = capfdbinary.readouterr()
        assert captured.out == expected
        assert captured.err == b""
    for bounds in (["--start", "3", "--end", "2"], ["--end", str(len(large) + 1)]):
        assert main.run(["cat", uri, *bounds]) == 2
        captured = capfdbinary.readouterr()
        assert captured.out == b""
        assert b"are not within a file of 3000000 bytes" in captured.err


def test_info_of_what_is_here(kachery: Kachery) -> None:
    Path("x.dat").write_text("x")
    uri = kachery("store", "--local", "x.dat").out.strip()
    told = kachery("info", uri, "--json")
    assert told.document == {
        "uri": uri,
        "algorithm": "sha1",
        "hash": sha1(b"x"),
        "label": "x.dat",
        "size": 1,
        "local": {"path": kachery("load", uri).out.strip(), "kind": "blob"},
        "zone": None,
        "problems": [],
    }
    shown = kachery("info", uri)
    assert "size             1 B\n" in shown.out
    assert shown.err == ""


def test_ls_and_du_tell_what_is_there(kachery: Kachery, own_environment: Path, large: bytes) -> None:
    Path("blob").write_bytes(large)
    Path("linked").write_text("linked")
    kachery("store", "--local", "blob")
    kachery("link", "linked")
    listed = kachery("ls", "--json").document
    assert [(item["kind"], item["uri"], item["size"]) for item in listed] == [
        ("blob", f"sha1://{sha1(large)}", 3_000_000),
        ("link", f"sha1://{sha1(b'linked')}", 6),
    ]
    assert listed[1]["path"] == os.path.abspath("linked")
    lines = kachery("ls").out.splitlines()
    assert [line.split()[0] for line in lines] == ["blob", "link"]
    assert lines[0].split()[1:3] == ["2.9", "MiB"]
    (own_environment / "tmp").mkdir(exist_ok=True)
    (own_environment / "tmp" / "incoming.0123456789").write_bytes(b"left")
    used = kachery("du", "--json").document
    assert used["directory"] == str(own_environment)
    assert used["blobs"] == {"files": 1, "bytes": 3_000_000}
    assert used["links"] == {"files": 1, "bytes": 6}
    assert used["temporary"] == {"files": 1, "bytes": 4}
    assert used["damaged"] == {"files": 0, "bytes": 0}
    assert used["free"] > 0
    Path("linked").unlink()
    assert "content is gone" in kachery("ls").out


def test_clean_removes_what_is_abandoned_and_nothing_else(kachery: Kachery, own_environment: Path) -> None:
    Path("x").write_text("x")
    uri = kachery("store", "--local", "x").out.strip()
    left = own_environment / "tmp" / "incoming.0123456789"
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b"left")
    assert kachery("clean").out == ""
    assert left.exists()
    done = kachery("clean", "--older-than", "0")
    assert (done.out, done.err) == (f"{left}\n", "removed 1 file\n")
    assert not left.exists()
    assert kachery("load", uri).code == 0
    assert kachery("clean", "--older-than", "0", "--json").document == {"removed": []}


def test_verify_finds_a_damaged_blob_and_puts_it_away(kachery: Kachery, own_environment: Path, large: bytes) -> None:
    Path("good").write_text("good")
    Path("bad").write_bytes(large)
    kachery("store", "--local", "good")
    uri = kachery("store", "--local", "bad", "--label", "").out.strip()
    fine = kachery("verify")
    assert (fine.code, fine.out) == (0, "")
    assert "2 files, 2.9 MiB: all as their hashes say" in fine.err
    path = Path(kachery("load", uri).out.strip())
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(1_500_000)
        file.write(bytes([large[1_500_000] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    damaged = kachery("verify", "--json")
    assert damaged.code == 6
    assert damaged.document["checked"] == 2
    assert damaged.document["good"] == 1
    (problem,) = damaged.document["problems"]
    assert problem["uri"] == uri
    assert damaged.error["code"] == "wrong_content"
    assert "store their sources again" in damaged.error["hint"]
    assert kachery("load", uri).code == 3
    assert len(list((own_environment / "quarantine").iterdir())) == 1
    assert kachery("du", "--json").document["damaged"]["files"] == 1
    assert kachery("store", "--local", "bad", "--label", "").out.strip() == uri
    assert kachery("verify").code == 0
    assert kachery("clean").out == ""
    assert f"/quarantine/{uri[7:47]}." in kachery("clean", "--damaged", "0").out
    assert list((own_environment / "quarantine").iterdir()) == []


def test_verify_reads_a_linked_file_again_whatever_is_remembered(kachery: Kachery, own_environment: Path) -> None:
    data = os.urandom(2_000_000)
    Path("linked").write_bytes(data)
    kachery("link", "linked")
    # another file that was seen to have this hash, and looks like this one: what a disk that rots looks like
    other = os.urandom(2_000_000)
    Path("linked").write_bytes(other)
    status = os.stat("linked")
    record = own_environment / "verified" / "sha1" / sha1(data)[:2] / sha1(data)
    record.parent.mkdir(parents=True, exist_ok=True)
    look = f'{{"dev":{status.st_dev},"ino":{status.st_ino},"size":{status.st_size}'
    look += f',"mtime_ns":{status.st_mtime_ns},"ctime_ns":{status.st_ctime_ns}}}'
    record.write_text(f'{{"entries":[{look}]}}')
    done = kachery("verify")
    assert done.code == 6
    assert done.out.startswith(f"link  sha1://{sha1(data)}  the linked file")
    assert "link files that were changed on purpose again" in done.err


def test_a_store_directory_that_is_a_file_is_said(
    kachery: Kachery, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    Path("x").write_text("x")
    monkeypatch.setenv("KACHERY_CLOUD_DIR", str(tmp_path / "file"))
    for command in (["ls"], ["du"], ["verify"], ["clean"], ["store", "--local", "x"], ["link", "x"], ["load", ABSENT]):
        done = kachery(*command)
        assert done.code == 5, command
        assert "is not a directory" in done.err
    assert (tmp_path / "file").read_text() == "mine"


def test_a_broken_configuration_is_said(kachery: Kachery, own_environment: Path) -> None:
    own_environment.mkdir()
    (own_environment / "kachery.json").write_text("{")
    Path("x").write_text("x")
    for command in (["status"], ["store", "x"], ["init", "--gateway", "http://127.0.0.1:1"]):
        done = kachery(*command)
        assert done.code in (4, 9), command
        assert "Traceback" not in done.err
    assert "kachery.json is not JSON" in kachery("status").err
    assert kachery("store", "--local", "x").code == 0


def test_quiet_says_nothing_but_what_was_asked_for(kachery: Kachery) -> None:
    Path("x").write_text("x")
    assert kachery("--quiet", "store", "--local", "x").err == ""
    assert kachery("-q", "verify").err == ""
    assert kachery("-q", "load", "nonsense").err.startswith("error: ")


def test_the_version(kachery: Kachery) -> None:
    import kachery as package

    assert kachery("--version").out == f"kachery {package.__version__}\n"
