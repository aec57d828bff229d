"""Every spelling of a URI that a generation of kachery wrote, and what must be refused."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kachery import uri
from kachery.errors import InvalidInput, InvalidURI
from kachery.uri import (
    EncryptedRef,
    FeedRef,
    FileRef,
    GithubRef,
    GoneRef,
    PathRef,
    TreeRef,
    UrlRef,
    ZenodoRef,
    parse,
)

H = "b971c6ef19b1d70ae8f0feb989b106c319b36230"
MD5 = "552e21cd4cd9918678e3c1a0df491bc3"
SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
MANIFEST = "dc0f3393b67605198b7f8dcde564af98809acdd5"

SPELLINGS = [
    # classic
    (f"sha1://{H}", FileRef("sha1", H)),
    (f"sha1://{H}/hello.txt", FileRef("sha1", H, label="hello.txt")),
    (f"sha1://{H}.txt", FileRef("sha1", H)),
    (f"sha1://{H}/any/thing/else?x=1", FileRef("sha1", H, label="any/thing/else")),
    (f"sha1://{H}/big.dat?manifest={MANIFEST}", FileRef("sha1", H, label="big.dat", manifest=MANIFEST)),
    (f"md5://{MD5}/file.txt", FileRef("md5", MD5, label="file.txt")),
    (f"sha1dir://{H}.one", TreeRef("sha1", H, name="one")),
    (f"sha1dir://{H}.", TreeRef("sha1", H)),
    (f"sha1dir://{H}", TreeRef("sha1", H)),
    (f"sha1dir://{H}.nest/sub/b.txt", TreeRef("sha1", H, name="nest", path=("sub", "b.txt"))),
    (f"sha1dir://{H}.nest.v2/sub/", TreeRef("sha1", H, name="nest.v2", path=("sub",))),
    (f"md5dir://{MD5}.one/a.txt?x=1", TreeRef("md5", MD5, name="one", path=("a.txt",))),
    # kachery-p2p and figurl
    (f"sha1://{H}?chunkOf={MANIFEST}~0~13", FileRef("sha1", H, chunk_of=(MANIFEST, 0, 13))),
    ("feed://4e1a2b/main", FeedRef("4e1a2b", "main")),
    # kachery-cloud
    (f"sha1://{H}?label=a%20b/c%26d.txt", FileRef("sha1", H, label="a b/c&d.txt")),
    (f"sha1://{H}?label=", FileRef("sha1", H)),
    (f"sha1://{H}?any-text", FileRef("sha1", H)),
    (f"sha1://{H}?label=a=b&x", FileRef("sha1", H)),
    (f"sha1://{H}?label=X?label=X", FileRef("sha1", H, label="X")),
    (f"sha1://{H}?label=%C3%BC.txt", FileRef("sha1", H, label="ü.txt")),
    (f"sha1://{H}?location=/data/a%20b.dat", FileRef("sha1", H, location="/data/a%20b.dat")),
    (f"sha1://{H}?label=x&location=/data/a b.dat", FileRef("sha1", H, label="x", location="/data/a b.dat")),
    (f"sha1://{H}?location=relative/path", FileRef("sha1", H)),
    ("sha1-enc://00ff.ag_abcdefghij", EncryptedRef("00ff", "abcdefghij")),
    ("sha1-enc://00ff.ag_abcdefghij?label=x%20y", EncryptedRef("00ff", "abcdefghij", label="x y")),
    ("sha1-enc://00ff?ag=abcdefghij", EncryptedRef("00ff", "abcdefghij")),
    ("sha1-enc://00ff?label=x&ag=abcdefghij", EncryptedRef("00ff", "abcdefghij", label="x")),
    ("kachery-feed://abcdefghijkl", FeedRef("abcdefghijkl")),
    ("jot://AbCd", GoneRef("jot", "AbCd")),
    ("ipfs://bafybeig?label=x", GoneRef("ipfs", "bafybeig")),
    ("gh://user/repo/main/dir/a b.json", GithubRef("user", "repo", "main", "dir/a b.json")),
    ("github://user/repo/main/a.json", GithubRef("user", "repo", "main", "a.json")),
    ("zenodo://123/data/a.bin?x=1", ZenodoRef("123", "data/a.bin")),
    ("zenodo-sandbox://123/a.bin", ZenodoRef("123", "a.bin", sandbox=True)),
    ("https://x.org/a?b=c#d", UrlRef("https://x.org/a?b=c#d")),
    (
        f"https://x.org/base/sha1/{H}?label=test_content.txt",
        UrlRef(f"https://x.org/base/sha1/{H}?label=test_content.txt", sha1=H),
    ),
    (f"http://h/sha1/b9/71/c6/{H}", UrlRef(f"http://h/sha1/b9/71/c6/{H}", sha1=H)),
    ("/data/file.nwb", PathRef("/data/file.nwb")),
    # kachery 2
    (f"kachery:scratch:sha1:{H}:test_content.txt", FileRef("sha1", H, label="test_content.txt", zone="scratch")),
    (f"kachery:scratch:sha1:{H}", FileRef("sha1", H, zone="scratch")),
    (f"kachery::sha1:{H}:a/b%20%C3%BC%3A%3F%23%25", FileRef("sha1", H, label="a/b ü:?#%")),
    # ours
    (f"sha256://{SHA256}/empty", FileRef("sha256", SHA256, label="empty")),
    # ours, for fsspec
    (f"kachery://sha1/{H}", FileRef("sha1", H)),
    (f"kachery://sha1/{H}/a%20b.nwb", FileRef("sha1", H, label="a b.nwb")),
    (f"kachery://sha1/{H}/a%23b%3F.nwb#x", FileRef("sha1", H, label="a#b?.nwb#x")),
    (f"kachery://sha1/{H}?label=x", FileRef("sha1", H, label="x")),
    (f"kachery://sha1/{H}?location=/data/a.dat", FileRef("sha1", H, location="/data/a.dat")),
    (f"kachery://sha256/{SHA256}", FileRef("sha256", SHA256)),
    (f"kachery://md5/{MD5}/x", FileRef("md5", MD5, label="x")),
    (f"kachery://lab.public/sha1/{H}/x.nwb", FileRef("sha1", H, label="x.nwb", zone="lab.public")),
    (f"kachery://sha1/sha1/{H}/x.nwb", FileRef("sha1", H, label="x.nwb", zone="sha1")),
    (f"kachery://sha1dir/{H}.nest/sub/b.txt", TreeRef("sha1", H, name="nest", path=("sub", "b.txt"))),
    (f"kachery://lab/sha1dir/{H}.nest/sub", TreeRef("sha1", H, name="nest", path=("sub",), zone="lab")),
    (f"kachery://lab/md5dir/{MD5}", TreeRef("md5", MD5, zone="lab")),
    (f"kachery://sha1://{H}/x", FileRef("sha1", H, label="x")),
    (f"kachery://sha1dir://{H}.x/y", TreeRef("sha1", H, name="x", path=("y",))),
    (f"kachery://kachery:lab:sha1:{H}:a?b", FileRef("sha1", H, label="a?b", zone="lab")),
    (f"kachery://kachery::sha1:{H}", FileRef("sha1", H)),
]


@pytest.mark.parametrize(("text", "meaning"), SPELLINGS)
def test_every_generations_spelling_is_understood(text: str, meaning: object) -> None:
    assert parse(text) == meaning


REFUSED = [
    ("kachery://", "not the URI of a file"),
    (f"kachery://{H}", "not the URI of a file"),
    ("kachery://lab.public", "not the URI of a file"),
    (f"kachery://sha512/{H}", "not the URI of a file"),
    ("kachery://sha1/", "does not hold"),
    ("kachery://sha1/sha1", "does not hold"),
    (f"kachery://../sha1/{H}", "not a zone name"),
    (f"kachery://a/b/sha1/{H}", "not the URI of a file"),
    (f"kachery:///sha1/{H}", "not a zone name"),
    (f"kachery://kachery://sha1/{H}", "not the URI of a file"),
    ("kachery://gh://user/repo/main/x", "not the URI of a file"),
    (f"kachery://sha1dir/{H}.x/../y", "does not name a file"),
    ("", "empty"),
    (" ", "blanks"),
    (f"sha1://{H} ", "blanks"),
    (f"sha1://{H}\n", "blanks"),
    (f"sha1://{H}\x00/x", "control"),
    (H, "not a URI"),
    ("relative/path", "not a URI"),
    ("SHA1://" + H, "not a URI"),
    ("sha1://", "does not hold"),
    (f"sha1:////{H}/dataset.csv", "does not hold"),
    (f"sha1://{H[:-1]}", "does not hold"),
    (f"sha1://{H}0", "does not hold"),
    (f"sha1://{H.upper()}", "capital"),
    ("sha1://" + "\u0661" * 40, "does not hold"),
    (f"sha1://../../{H}", "does not hold"),
    (f"sha256://{H}", "does not hold"),
    (f"sha512://{H}", "unknown kind"),
    (f"sha1://{H}?manifest=nothing", "manifest"),
    (f"sha1://{H}?chunkOf={H}~5~4", "chunkOf"),
    (f"sha1://{H}?chunkOf={H}~1", "chunkOf"),
    (f"sha1://{H}?chunkOf={H}~\u0661~\u0662", "chunkOf"),
    (f"sha1dir://{H}.x/../y", "does not name a file"),
    (f"sha1dir://{H}.x/a//b", "does not name a file"),
    ("sha1-enc://zz.ag_abc", "encrypted"),
    ("sha1-enc://00ff", "encrypted"),
    ("kachery-feed://", "feed"),
    ("kachery-feed://../x", "feed"),
    ("gh://user/repo/main", "too few"),
    ("gh://user/repo/main/../../x", "does not name a file"),
    ("gh://user//main/x", "too few"),
    ("zenodo://123", "Zenodo"),
    ("zenodo://123/../secret", "does not name a file"),
    ("zenodo://123//etc/passwd", "absolute"),
    ("http://", "no host"),
    ("http:///path", "no host"),
    ("http://[::1/x", "address"),
    ("http://host:notaport/x", "address"),
    ("http://host:99999/x", "address"),
    ("kachery:", "too few"),
    ("kachery:scratch:sha1", "too few"),
    (f"kachery:scratch:sha3:{H}", "algorithm"),
    (f"kachery:../x:sha1:{H}", "zone"),
    ("kachery:scratch:sha1:", "does not hold"),
    ("foo://bar", "unknown kind"),
    ("file:///etc/passwd", "unknown kind"),
]


@pytest.mark.parametrize(("text", "reason"), REFUSED)
def test_what_is_no_uri_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(InvalidURI, match=reason):
        parse(text)


def test_only_texts_are_uris() -> None:
    with pytest.raises(InvalidInput, match="int"):
        parse(7)  # type: ignore[arg-type]


@given(st.text())
@example("kachery:" + ":" * 7)
@example("http://[")
@example(f"sha1://{H}?chunkOf={H}~{'9' * 19}~{'9' * 19}")
def test_nothing_but_invalid_uri_is_ever_raised(text: str) -> None:
    try:
        reference = parse(text)
    except InvalidURI:
        return
    assert isinstance(reference, uri.Reference)


PREFIXES = [text.split("://")[0] + "://" for text, _ in SPELLINGS if "://" in text] + [
    "kachery:",
    "kachery::sha1:",
    "/",
]
PIECES = st.sampled_from(
    [H, MD5, SHA256, *"?&=/:.%~[]@", "..", "%zz", "label", "location", "chunkOf", "manifest"],
)


@given(st.sampled_from(PREFIXES), st.lists(PIECES | st.text(max_size=5), max_size=8))
def test_nothing_but_invalid_uri_is_raised_for_what_looks_like_one(prefix: str, pieces: list[str]) -> None:
    try:
        parse(prefix + "".join(pieces))
    except InvalidURI:
        pass


# what may stand in a file name on a Unix machine and in a text
NAMES = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1, max_size=12)


@given(NAMES)
def test_a_name_comes_back_as_it_was(name: str) -> None:
    reference = parse(uri.named_uri(H, name))

    assert reference == FileRef("sha1", H, label=name)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_label_comes_back_as_it_was(label: str) -> None:
    assert parse(uri.labelled_uri(H, label)) == FileRef("sha1", H, label=label)


@given(st.text(), st.sampled_from([("sha1", H), ("md5", MD5), ("sha256", SHA256)]))
@example("x" * 300 + "." + "\U00010000" * 12, ("sha256", SHA256))
@example("é" * 300 + ".nwb", ("sha1", H))
def test_a_named_uri_fits_into_databases_and_is_one(name: str, content: tuple[str, str]) -> None:
    algorithm, hash_ = content
    text = uri.named_uri(hash_, name, algorithm=algorithm)

    assert len(text) <= uri.LONGEST
    assert text.isascii()
    reference = uri.parse_file(text)
    assert (reference.algorithm, reference.hash) == content


def test_a_long_name_keeps_its_suffix() -> None:
    text = uri.named_uri(H, "n" * 300 + ".nwb")

    assert len(text) == 200
    assert text.endswith("n.nwb")


def test_a_names_directories_are_dropped() -> None:
    assert uri.named_uri(H, "data/2022/a b.txt") == f"sha1://{H}/a%20b.txt"
    assert uri.named_uri(H, "data/") == f"sha1://{H}/data"
    assert uri.named_uri(H, "/") == f"sha1://{H}"
    assert uri.named_uri(H) == f"sha1://{H}"


def test_labels_are_written_as_the_cloud_generation_writes_them() -> None:
    assert uri.labelled_uri(H) == f"sha1://{H}"
    assert uri.labelled_uri(H, "") == f"sha1://{H}?label="
    assert uri.labelled_uri(H, "a b/c&d.txt") == f"sha1://{H}?label=a%20b/c%26d.txt"
    assert uri.labelled_uri(H, "a/b ü:?#%") == f"sha1://{H}?label=a/b%20%C3%BC%3A%3F%23%25"


def test_prefixes_are_written_as_version_2_writes_them() -> None:
    assert (
        uri.prefixed_uri("https://x.org/base", H, "test_content.txt")
        == f"https://x.org/base/sha1/{H}?label=test_content.txt"
    )
    assert uri.prefixed_uri("https://x.org/base", H) == f"https://x.org/base/sha1/{H}"


def test_a_location_is_appended_as_it_is() -> None:
    assert uri.with_location(f"sha1://{H}", "/a b/ü") == f"sha1://{H}?location=/a b/ü"
    text = uri.with_location(f"sha1://{H}?label=x", "/a b")
    assert text == f"sha1://{H}?label=x&location=/a b"
    assert parse(text) == FileRef("sha1", H, label="x", location="/a b")


def test_the_uri_of_a_file_by_its_content_is_required_where_one_is() -> None:
    assert uri.parse_file(f"sha1://{H}").hash == H
    with pytest.raises(InvalidURI, match="by its content"):
        uri.parse_file("/data/file.nwb")


@pytest.mark.parametrize(("text", "meaning"), [item for item in SPELLINGS if isinstance(item[1], FileRef)])
def test_the_shortest_uri_of_a_file_names_the_same_content(text: str, meaning: FileRef) -> None:
    assert uri.parse_file(str(uri.parse_file(text))) == FileRef(meaning.algorithm, meaning.hash)
