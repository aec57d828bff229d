"""`set_config`, `config()` and the options of single calls: who sees which, and what they mean for where files go."""

from __future__ import annotations

import asyncio
import contextvars
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

import kachery
from kachery import configuration, http, settings
from kachery.errors import InvalidInput, NotAllowed, NotConfigured, NotFound
from kachery.store import Store
from rigs.classic import ClassicServer
from rigs.cloud import Cloud

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HASH = "37aa63c77398d954473262e1a0057c1e632eda77"
NOWHERE = {"url": None, "channel": None, "password": None}


@pytest.fixture(autouse=True)
def begin_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KACHERY_TIMEOUT", "1")
    monkeypatch.setattr(http, "pause", lambda *_: None)
    monkeypatch.setattr(configuration, "_everywhere", configuration._DEFAULTS)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ClassicServer]:
    """The server of the classic README's presets, as its user would name it."""
    with ClassicServer("/neuro1") as running:
        settings.servers_path().parent.mkdir(parents=True)
        content = {
            "configurations": {
                "default_readonly": {"url": running.address, "channel": "public", "password": "public"},
                "default_readwrite": {
                    "url": running.address,
                    "channel": "members",
                    "password": {"env": "KACHERY_DEFAULT_PASSWORD"},
                },
            }
        }
        settings.servers_path().write_text(json.dumps(content))
        monkeypatch.setenv("KACHERY_DEFAULT_PASSWORD", "secret")
        yield running


def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Be another machine from now on."""
    monkeypatch.setenv("KACHERY_CLOUD_DIR", str(tmp_path / "other machine"))


def test_the_configuration_of_the_whole_program() -> None:
    assert kachery.get_config() == {
        "to": NOWHERE,
        "fr": NOWHERE,
        "from_remote_only": False,
        "to_remote_only": False,
        "algorithm": "sha1",
        "verbose": False,
        "use_hard_links": False,
    }
    kachery.set_config(to={"url": "http://127.0.0.1:1", "channel": "c", "password": "p"}, verbose=True)
    kachery.set_config(algorithm="md5", use_hard_links=True)
    found = kachery.get_config()
    assert found["to"] == {"url": "http://127.0.0.1:1", "channel": "c", "password": "p"}
    assert (found["algorithm"], found["verbose"], found["use_hard_links"]) == ("md5", True, True)
    found["to"]["url"] = "changed"
    found["fr"]["url"] = "changed"
    assert kachery.get_config()["to"]["url"] == "http://127.0.0.1:1"
    assert kachery.get_config()["fr"] == NOWHERE
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.append(kachery.get_config()["algorithm"]))
    thread.start()
    thread.join()
    assert seen == ["md5"]
    kachery.set_config(to=NOWHERE)
    assert kachery.get_config()["to"] == NOWHERE
    assert kachery.reset() is None  # type: ignore[func-returns-value]


def test_what_nobody_can_configure() -> None:
    with pytest.raises(TypeError):
        kachery.set_config(preset="default")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="to_remote_onyl"):
        kachery.store_text("x", to_remote_onyl=True)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        kachery.load_text(f"sha1://{HASH}", config={"nothing": 1})
    for algorithm in ("sha256", "", 3):
        with pytest.raises(InvalidInput, match="algorithm"):
            kachery.store_text("x", algorithm=algorithm)  # type: ignore[arg-type]
    with pytest.raises(NotConfigured, match="Unable to find server: default_readwrite"):
        kachery.set_config(to="default_readwrite")
    with pytest.raises(InvalidInput):
        kachery.set_config(to=3)  # type: ignore[arg-type]
    with pytest.raises(NotConfigured, match="channel"):
        kachery.set_config(to={"url": "http://127.0.0.1"})


def test_a_block_ends_with_what_was_before_even_when_it_fails() -> None:
    kachery.set_config(verbose=True)
    with kachery.config(algorithm="md5") as nothing:
        assert nothing is None
        kachery.set_config(verbose=False)
        with kachery.config(algorithm="sha1"):
            assert kachery.store_text("some text").startswith("sha1://")
        assert kachery.store_text("some text") == "md5://552e21cd4cd9918678e3c1a0df491bc3/file.txt"
        assert not kachery.get_config()["verbose"]
    assert kachery.get_config()["verbose"]
    with pytest.raises(ZeroDivisionError), kachery.config(algorithm="md5"):
        _ = 1 / 0
    assert kachery.get_config()["algorithm"] == "sha1"


def test_a_block_is_of_its_thread_and_of_its_task() -> None:
    inside, seen = threading.Event(), threading.Event()
    found: dict[str, str] = {}

    def other() -> None:
        inside.wait(10)
        found["thread"] = kachery.get_config()["algorithm"]
        seen.set()

    thread = threading.Thread(target=other)
    thread.start()
    with kachery.config(algorithm="md5"):
        inside.set()
        assert seen.wait(10)
        context = contextvars.copy_context()
        brought = threading.Thread(
            target=lambda: found.update(brought=context.run(kachery.get_config)["algorithm"]),
        )
        brought.start()
        brought.join()
    thread.join()
    assert found == {"thread": "sha1", "brought": "md5"}

    async def task(algorithm: str) -> tuple[str, str]:
        with kachery.config(algorithm=algorithm):
            await asyncio.sleep(0.01)
            return algorithm, kachery.get_config()["algorithm"]

    async def both() -> list[tuple[str, str]]:
        return await asyncio.gather(task("md5"), task("sha1"))

    assert asyncio.run(both()) == [("md5", "md5"), ("sha1", "sha1")]


def test_the_readme_of_classic_kachery(server: ClassicServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kachery.set_config(fr="default_readwrite", to="default_readwrite")
    uri = kachery.store_text("some text")
    assert uri == f"sha1://{HASH}/file.txt"
    assert server.files == {("sha1", HASH): b"some text"}
    assert Store().find(HASH) is not None

    elsewhere(monkeypatch, tmp_path)
    monkeypatch.delenv("KACHERY_DEFAULT_PASSWORD")
    kachery.set_config(fr="default_readonly")
    assert kachery.load_text(uri) == "some text"
    with pytest.raises(NotConfigured, match="KACHERY_DEFAULT_PASSWORD"):
        kachery.store_text("more")


def test_single_calls_say_otherwise(server: ClassicServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    uri = kachery.store_text("some text", to="default_readwrite", to_remote_only=True)
    assert Store().find(HASH) is None
    assert kachery.store_text("other").startswith("sha1://")
    assert len(server.files) == 1
    with pytest.raises(NotFound):
        kachery.load_text(uri)
    assert kachery.load_text(uri, fr="default_readonly") == "some text"
    asked = len(server.requests)
    assert kachery.load_text(uri, fr="default_readonly") == "some text"
    assert len(server.requests) == asked
    assert kachery.load_text(uri, fr="default_readonly", from_remote_only=True) == "some text"
    assert len(server.requests) > asked
    with kachery.config(fr="default_readonly", from_remote_only=True):
        elsewhere(monkeypatch, tmp_path)
        given = {"fr": NOWHERE, "from_remote_only": False}
        for options in ({"fr": None, "from_remote_only": False}, {"fr": "", "config": given}, {"config": given}):
            with pytest.raises(NotFound, match="no gateway is configured"):
                kachery.load_text(uri, **options)  # type: ignore[arg-type]
        assert given == {"fr": NOWHERE, "from_remote_only": False}
        assert kachery.load_bytes(uri, 2, 4) == b"me"
        with kachery.open(uri) as file:
            assert file.read() == b"some text"
        assert kachery.info(uri).size == 9
    assert kachery.store_text("some text", to="default_readwrite", algorithm="md5").startswith("md5://552e21cd")
    with pytest.raises(NotAllowed):
        kachery.store_text("new", to="default_readonly")


def test_a_zone_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with Cloud() as cloud:
        monkeypatch.setenv("KACHERY_GATEWAY_URL", cloud.url)
        from kachery.store import keys

        keys.load_or_create()
        kachery.set_config(to="lab", fr={"zone": "lab"})
        assert kachery.get_config()["to"] == {**NOWHERE, "zone": "lab"}
        uri = kachery.store_text("some text")
        assert cloud.files == {HASH: b"some text"}
        assert cloud.requests[0].json["payload"]["zone"] == "lab"
        assert Store().find(HASH) is not None
        elsewhere(monkeypatch, tmp_path)
        assert kachery.load_text(uri) == "some text"
        assert {request.json["payload"]["zone"] for request in cloud.asked("POST")} == {"lab"}


def test_passwords_are_not_shown_by_errors(server: ClassicServer) -> None:
    with pytest.raises(NotAllowed) as caught:
        kachery.load_text(
            f"sha1://{HASH}", fr={"url": server.address, "channel": "members", "password": "wrong-and-private"}
        )
    assert "wrong-and-private" not in repr(caught.value) + str(caught.value)


def test_an_object_in_place_of_the_zone(tmp_path: Path) -> None:
    class Backend:
        def store_file(self, filename: str, *, label: str | None) -> str:
            with open(filename, "rb") as file:
                return f"mine://{label}/{file.read().decode()}"

    kachery.set_custom_storage_backend(Backend())
    try:
        (tmp_path / "x").write_text("content")
        assert kachery.store_file(tmp_path / "x", label="a") == "mine://a/content"
        assert kachery.store_text("text", label="b") == "mine://b/text"
        assert kachery.store_json([1]) == "mine://None/[1]"
        assert kachery.store_text("text", local=True).startswith("sha1://")
    finally:
        kachery.set_custom_storage_backend(None)
    assert kachery.store_text("text").startswith("sha1://")
