"""Names that the user gave to priors, and flags as the command line of a README."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from priorpaint import PriorError, UsageError
from priorpaint.priors.address_book import FILE, Entry, add, entries, home, remove
from priorpaint.priors.flag_words import parse_flags


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PRIORPAINT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_names_are_kept_and_forgotten(own_home: Path) -> None:
    assert entries() == {} and home() == own_home
    entry = Entry("/models/a.pt", {"image_size": 64, "class_cond": False, "channel_mult": "1,2"}, "ab" * 32)
    add("faces", entry)
    add("other", Entry("hf:o/n"))
    assert entries() == {"faces": entry, "other": Entry("hf:o/n")}
    with pytest.raises(UsageError, match="faces stands for /models/a.pt already"):
        add("faces", Entry("hf:o/n"))
    add("faces", Entry("hf:o/n"), overwrite=True)
    remove("other")
    assert entries() == {"faces": Entry("hf:o/n")}
    with pytest.raises(UsageError, match="no prior of your own called 'other'"):
        remove("other")
    assert sorted(file.name for file in own_home.iterdir()) == [FILE]


@pytest.mark.parametrize("name", ["", "../a", "a b", "hf:a", "-x", "a" * 65])
def test_names_of_another_form(name: str) -> None:
    with pytest.raises(UsageError, match="not a name for a prior"):
        add(name, Entry("x"))


def test_embedded_names_are_taken() -> None:
    with pytest.raises(UsageError, match="embedded"):
        add("photos", Entry("x"), taken=("photos",))


DIGEST = "ab" * 32
DEEP = '{"a":' * 900 + "1" + "}" * 900


def one(sha256: str = f'"{DIGEST}"', flags: str = "{}", name: str = "a", spec: str = '"x"') -> str:
    entry = f'{{"spec": {spec}, "flags": {flags}, "sha256": {sha256}}}'
    return f'{{"format": 1, "priors": {{"{name}": {entry}}}}}'


def test_the_entry_that_the_cases_below_spoil_is_whole(own_home: Path) -> None:
    own_home.mkdir()
    (own_home / FILE).write_text(one(flags='{"channel_mult": [1, 2], "class_cond": true}'))
    assert entries() == {"a": Entry("x", {"channel_mult": [1, 2], "class_cond": True}, DIGEST)}


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", '{"format": 1}', '{"format": 1, "priors": {"a": 3}}', "[" * 100000, DEEP,
        one(sha256="null"), one(sha256='""'), one(sha256=f'"{DIGEST[:-1]}"'), one(sha256="7"), one(flags=DEEP),
        one(flags='{"a": ' + "[" * 900 + "]" * 900 + "}"), one(name="../a"), one(spec="null"), one(flags="null"),
    ],
    ids=lambda text: text[:60],
)  # fmt: skip
def test_a_damaged_file_is_named(own_home: Path, text: str) -> None:
    own_home.mkdir()
    (own_home / FILE).write_text(text)
    with pytest.raises(PriorError, match="repair or remove"):
        entries()
    (own_home / FILE).write_text('{"format": 9, "priors": {}}')
    with pytest.raises(PriorError, match="update priorpaint"):
        entries()


def test_without_the_variable_it_is_a_folder_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PRIORPAINT_HOME")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert home() == tmp_path / "priorpaint"


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        (None, {}),
        ("", {}),
        (
            "--image_size 64 --num_channels 128 --class_cond True --attention_resolutions 32,16,8 --use_fp16 False",
            {"image_size": 64, "num_channels": 128, "class_cond": True, "attention_resolutions": "32,16,8",
             "use_fp16": False},
        ),
        ("--dropout 0.1 --lr=1e-4 --learn-sigma", {"dropout": 0.1, "lr": 1e-4, "learn_sigma": True}),
        ("image_size=any null_class=-1", {"image_size": "any", "null_class": -1}),
        ("--channel_mult '' --name 'a b' --offset -3", {"channel_mult": "", "name": "a b", "offset": -3}),
        ("--a --b none", {"a": True, "b": None}),
        ({"image_size": "64"}, {"image_size": "64"}),
    ],
    ids=str,
)  # fmt: skip
def test_flags(text: Any, flags: dict[str, Any]) -> None:
    assert parse_flags(text) == flags


@pytest.mark.parametrize("text", ["64", "--image_size 64 128", "--'image_size 64", "--; 3", "a;b=1"])
def test_flags_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="write --name value"):
        parse_flags(text)
