# SPDX-License-Identifier: Apache-2.0
"""The cache helps and never stands in the way."""

import random

import pytest

from bmhw.flow.cache import Cache, cache_folder, digest


def test_values_come_back(tmp_path):
    Cache(tmp_path / "c").set("key", {"gates": 3, "path": [["a", 1]]})
    assert Cache(tmp_path / "c").get("key") == {"gates": 3, "path": [["a", 1]]}
    assert Cache(tmp_path / "c").get("other") is None


def test_keys_depend_on_every_value_and_not_on_the_order_of_names():
    assert digest("a", {"x": 1, "y": 2}) == digest("a", {"y": 2, "x": 1})
    assert len({digest("a", 1), digest("a", 2), digest("b", 1), digest("a", "1"), digest(["a", 1])}) == 5


def test_no_folder_keeps_nothing():
    cache = Cache(None)
    cache.set("key", {"gates": 3})
    assert cache.get("key") is None


def test_the_folder_can_be_named(monkeypatch, tmp_path):
    monkeypatch.setenv("BMHW_CACHE_DIR", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("BMHW_CACHE_DIR")
    assert cache_folder().name == "bmhw"


@pytest.mark.parametrize("damage", ["text", "noise", "empty", "folder is a file"])
def test_a_broken_cache_is_replaced(tmp_path, damage):
    folder = tmp_path / "c"
    healthy = Cache(folder)
    healthy.set("key", {"gates": 3})
    healthy.close()
    database = folder / "cache.db"
    if damage == "folder is a file":
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        folder.write_text("in the way")
    else:
        noise = random.Random(1).randbytes(len(database.read_bytes()))
        database.write_bytes({"text": b"hello", "noise": noise, "empty": b""}[damage])
    cache = Cache(folder)
    assert cache.get("key") is None
    cache.set("key", {"gates": 4})
    assert cache.get("key") in (None, {"gates": 4})
    if damage != "folder is a file":
        Cache(folder).set("again", {"gates": 5})
        assert Cache(folder).get("again") == {"gates": 5}


def test_damage_while_it_is_open_is_no_error(tmp_path):
    cache = Cache(tmp_path / "c")
    cache.set("key", {"gates": 3, "text": "x" * 100_000})
    for path in (tmp_path / "c").rglob("*"):
        if path.is_file():
            path.write_bytes(b"broken" * 2000)
    assert cache.get("key") is None
    cache.set("key", {"gates": 4})


def test_a_value_that_is_no_dictionary_is_not_ours(tmp_path):
    import diskcache

    with diskcache.Cache(str(tmp_path / "c"), disk=diskcache.JSONDisk) as store:
        store.set("key", [1, 2])
    assert Cache(tmp_path / "c").get("key") is None
