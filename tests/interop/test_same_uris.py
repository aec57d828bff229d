"""URIs of generated values are the released clients', byte for byte: all values of a kind in one process of each."""

from __future__ import annotations

import decimal
import json
import pickle
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from rigs.release import Client, Release, ours
from rigs.store_values import Array, File, Point

if TYPE_CHECKING:
    from collections.abc import Iterable

    Call = tuple[str, list[Any], dict[str, Any]]

TESTS = Path(__file__).resolve().parents[1]

# surrogates, DEL and all the rest
ANY_TEXT = st.text(st.characters(exclude_categories=()))
TEXT = st.one_of(
    st.text(), ANY_TEXT, st.sampled_from(["\x7f", "\ud800", "\udfff\ud800", "\r\n", "\x00", "é", "🧠", '"\\/'])
)

NUMBERS = st.one_of(
    st.integers(),
    st.integers(min_value=-(2**70), max_value=2**70),
    st.floats(),
    st.sampled_from([0.0, -0.0, 1.0, 1e16, 1e-7, 1e22, 5e-324, 1.7976931348623157e308, 0.1, float("nan")]),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.sampled_from([decimal.Decimal("1.10"), decimal.Decimal("1E+2"), decimal.Decimal("-0.0")]),
)
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, TEXT, st.binary(max_size=8))
KEYS = st.one_of(TEXT, st.integers(), st.floats(allow_nan=False), st.booleans(), st.none())


def _nested(inside: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inside, max_size=5),
        st.lists(inside, max_size=3).map(tuple),
        st.dictionaries(TEXT, inside, max_size=5),
        st.dictionaries(st.integers(), inside, max_size=5),
        st.dictionaries(KEYS, inside, max_size=3),
        st.tuples(inside, inside).map(lambda pair: Point(*pair)),
    )


JSON = st.recursive(LEAVES, _nested, max_leaves=12)

SHAPES = st.lists(st.integers(min_value=0, max_value=4), max_size=4)
DTYPES: list[Any] = [
    *("|b1", "|i1", "|u1", "<i2", ">i2", "<u4", "<i8", ">i8", "<f2", "<f4", ">f4", "<f8", ">f8", "<c8", "<c16"),
    *("<U3", "|S4", "<M8[ns]", "<m8[us]"),
    [("a", "<i4"), ("b", "<f8", (2,))],
]


def _width(dtype: Any) -> int:
    import numpy

    return int(numpy.dtype(dtype).itemsize)


@st.composite
def arrays(draw: st.DrawFn) -> Array:
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(SHAPES)
    count = 1
    for length in shape:
        count *= length
    # text and truth are not any bytes
    byte = st.integers(min_value=0, max_value=1 if dtype in ("|b1", "<U3") else 255)
    size = count * _width(dtype)
    data = (
        bytes(draw(st.lists(byte, min_size=size, max_size=size))) if size < 40 else draw(byte).to_bytes(1, "big") * size
    )
    return Array(dtype, shape, draw(st.sampled_from("CF")), data)


SIMPLE = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(),
        st.complex_numbers(),
        st.builds(range, st.integers(-9, 9)),
        st.builds(slice, st.integers(-9, 9)),
    ),
    lambda inside: st.one_of(
        st.lists(inside, max_size=4),
        st.lists(inside, max_size=3).map(tuple),
        st.dictionaries(st.text(), inside, max_size=4),
    ),
    max_leaves=10,
)

NAMES = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="/\0"), min_size=1, max_size=40).filter(
    lambda name: name not in (".", "..")
)
# a label with half a character in it makes the released clients fail
LABELS = st.one_of(st.none(), st.just(""), st.text(), st.sampled_from(["a b/c&d.txt", "100%", "é", "~._-", "?=#+"]))


def generated(strategy: st.SearchStrategy[Any], count: int) -> list[Any]:
    """Some values of a strategy; they are not checked one by one, so nothing is to be shrunk."""
    values: list[Any] = []

    @settings(
        max_examples=count,
        phases=[Phase.explicit, Phase.generate],
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(value: Any) -> None:
        values.append(value)

    collect()
    assert len(values) >= count // 2
    return values


def results(release: Release, directory: Path, calls: list[Call], **variables: str) -> list[Any]:
    """What one release gives for each call, all in one process."""
    client = Client(release, directory / "kachery-cloud", variables)
    directory.mkdir()
    reply = directory / "reply.json"
    done = subprocess.run(
        [str(release.python), "-c", "from rigs.store_values import main; main()", str(reply)],
        input=pickle.dumps(calls),
        env={**client.variables(), "PYTHONPATH": str(TESTS)},
        capture_output=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr.decode()
    answers: list[Any] = json.loads(reply.read_bytes())
    assert len(answers) == len(calls)
    return answers


def assert_same(release: Release, tmp_path: Path, calls: Iterable[Call]) -> tuple[int, int]:
    """Compare ours with a release's.

    Returns:
        How many calls gave a URI, and how many failed, for both.
    """
    calls = list(calls)
    theirs = results(release, tmp_path / "theirs", calls)
    mine = results(ours(), tmp_path / "ours", calls)
    failed = 0
    for call, expected, given_ in zip(calls, theirs, mine, strict=True):
        if isinstance(expected, dict):
            failed += 1
            assert isinstance(given_, dict), f"{call!r} fails there with {expected['error']}, here it gives {given_}"
        else:
            assert given_ == expected, f"{call!r}"
    return len(calls) - failed, failed


def test_json(release: Release, tmp_path: Path) -> None:
    values = generated(JSON, 400)
    assert any(isinstance(value, Point) for value in values)

    done, _ = assert_same(release, tmp_path, (("store_json", [value], {"local": True}) for value in values))

    assert done > 200


def test_json_in_other_shapes(release: Release, tmp_path: Path) -> None:
    values = generated(JSON, 60)
    calls: list[Call] = [
        ("store_json_local", [value], {"indent": indent, "separators": separators, "label": "x"})
        for indent, value in zip([None, 0, 2, 4] * 15, values, strict=False)
        for separators in [(",", ":"), (", ", ": ")]
    ]

    done, _ = assert_same(release, tmp_path, calls)

    assert done > 30


def test_text(release: Release, tmp_path: Path) -> None:
    calls: list[Call] = [("store_text", [value], {"local": True}) for value in generated(TEXT, 150)]
    calls += [("store_text_local", [value, "label"], {}) for value in generated(st.text(min_size=100), 30)]

    done, _ = assert_same(release, tmp_path, calls)

    assert done > 90


def test_arrays(release: Release, tmp_path: Path) -> None:
    values = generated(arrays(), 200)
    assert {value.order for value in values} == {"C", "F"}

    done, failed = assert_same(release, tmp_path, (("store_npy", [value], {"local": True}) for value in values))

    assert (done, failed) == (len(values), 0)


def test_what_becomes_an_array(release: Release, tmp_path: Path) -> None:
    values: list[Any] = [[1, 2, 3], 3, 2.5, [[1.0], [2.0]], True, "text", [None], [1, "a"]]

    done, failed = assert_same(release, tmp_path, (("store_npy_local", [value], {}) for value in values))

    assert (done, failed) == (7, 1)


def test_pickles(release: Release, tmp_path: Path) -> None:
    # the same interpreter writes them on both sides; across versions the bytes differ by nature
    values = generated(SIMPLE, 100)

    done, failed = assert_same(release, tmp_path, (("store_pkl", [value], {"local": True}) for value in values))

    assert (done, failed) == (len(values), 0)


def test_files_and_labels(release: Release, tmp_path: Path) -> None:
    contents = st.one_of(st.binary(), st.integers(0, 3_000_000).map(lambda size: b"\x00\xffkachery" * (size // 9)))
    files = generated(st.tuples(st.builds(File, NAMES, contents), LABELS), 60)
    calls: list[Call] = []
    for file, label in files:
        calls.append(("store_file", [file], {"local": True, "label": label}))
        calls.append(("link_file", [file], {"label": label}))
        calls.append(("store_file_local", [file], {"label": label, "store_file_prefix": "$dir"}))

    done, failed = assert_same(release, tmp_path, calls)

    assert (done, failed) == (len(calls), 0)


def test_hashes_of_dicts(release: Release, tmp_path: Path) -> None:
    values = generated(st.dictionaries(TEXT, JSON, max_size=6), 150)

    done, _ = assert_same(release, tmp_path, (("sha1_of_dict", [value], {}) for value in values))

    assert done > 50
