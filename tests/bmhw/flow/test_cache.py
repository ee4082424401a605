# SPDX-License-Identifier: Apache-2.0
"""The cache helps and never stands in the way."""

import errno
import json
import os
import random
import sqlite3
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from bmhw import errors, synth
from bmhw.flow import cache as cache_module
from bmhw.flow.cache import Cache, NotOursError, cache_folder, claim, digest


@pytest.fixture(autouse=True)
def unwarned(monkeypatch):
    """As in a process that hasn't warned yet."""
    monkeypatch.setattr(errors, "_warned", set())


@pytest.fixture
def warned(capsys):
    """The one line on stderr since the last call; fails if there are more."""

    def line() -> str:
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") <= 1
        return err

    return line


def tree(folder: Path) -> dict[str, bytes | str | None]:
    """All that lies in a folder: path -> content, where a link leads, or None for a folder."""
    return {str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else
            None if path.is_dir() else path.read_bytes() for path in sorted(folder.rglob("*"))}


@contextmanager
def files_of_at_most(size: int):
    """No file of this process grows beyond ``size`` bytes: writes fail as they do on a full disk."""
    resource = pytest.importorskip("resource", reason="limits of a process are POSIX's")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def unprivileged():
    """As a user who owns nothing here: root may write anywhere."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


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
    assert cache_folder() == tmp_path / "bmhw-cache"
    monkeypatch.delenv("BMHW_CACHE_DIR")
    assert cache_folder().parent.name == "bmhw"


@pytest.mark.parametrize("damage", ["text", "noise", "empty", "cut off", "malformed"])
def test_a_damaged_database_of_our_own_is_replaced(tmp_path, damage, warned):
    folder = tmp_path / "c"
    healthy = Cache(folder)
    for number in range(100):
        healthy.set(f"key {number}", {"text": random.Random(number).randbytes(500).hex()})
    healthy.close()
    database = folder / "results.db"
    content = database.read_bytes()
    noise = random.Random(1).randbytes(len(content))
    damaged = {"text": b"hello", "noise": noise, "empty": b"", "cut off": content[:5000],
               "malformed": content[:4096] + noise[4096:]}[damage]
    database.write_bytes(damaged)
    cache = Cache(folder)
    assert cache.get("key 1") is None
    cache.set("key", {"gates": 4})
    assert cache.get("key") == {"gates": 4}
    Cache(folder).set("again", {"gates": 5})
    assert Cache(folder).get("again") == {"gates": 5} and Cache(folder).get("key") == {"gates": 4}
    assert ("damaged" in warned()) == (damage != "empty")
    # what can't be recognised as ours is kept under another name
    kept = [path.read_bytes() for path in folder.glob("*damaged*")]
    assert kept == ([damaged] if damage in ("text", "noise") else [])


def test_damage_while_it_is_open_is_no_error(tmp_path):
    cache = Cache(tmp_path / "c")
    cache.set("key", {"gates": 3, "text": "x" * 100_000})
    for path in (tmp_path / "c").rglob("*"):
        if path.is_file():
            path.write_bytes(b"broken" * 2000)
    assert cache.get("key") is None
    cache.set("key", {"gates": 4})
    assert cache.get("key") == {"gates": 4}


def test_a_journal_of_a_damaged_database_is_not_played_into_the_new_one(tmp_path):
    folder = tmp_path / "c"
    Cache(folder).set("key", {"gates": 3})
    (folder / "results.db-journal").write_bytes(b"a journal")
    (folder / "results.db").write_bytes(b"broken" * 2000)
    Cache(folder).set("key", {"gates": 4})
    assert Cache(folder).get("key") == {"gates": 4}
    assert (folder / "results.db.damaged-1-journal").read_bytes() == b"a journal"


def test_a_changed_value_is_not_believed(tmp_path):
    cache = Cache(tmp_path / "c")
    cache.set("key", {"gates": 3})
    cache.set("other", {"gates": 4})
    cache.close()
    with sqlite3.connect(tmp_path / "c" / "results.db") as database:
        database.execute("UPDATE entries SET value = (SELECT value FROM entries WHERE key = 'other')")
    assert Cache(tmp_path / "c").get("key") is None
    assert Cache(tmp_path / "c").get("other") == {"gates": 4}


def test_a_value_that_is_no_dictionary_is_not_ours(tmp_path):
    cache = Cache(tmp_path / "c")
    cache.set("key", [1, 2])
    assert cache.get("key") is None


def foreign_folder(folder: Path) -> None:
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "a").write_text("x")
    (folder / "results.db").write_text("x")


def foreign_tag(folder: Path) -> None:
    folder.mkdir()
    (folder / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n# another program's\n")
    (folder / "results.db").write_text("x")


def foreign_database(folder: Path) -> None:
    claim(folder)
    with sqlite3.connect(folder / "results.db") as database:
        database.execute("CREATE TABLE entries (mine)")


def file_in_the_way(folder: Path) -> None:
    folder.write_text("in the way")


def folder_for_the_database(folder: Path) -> None:
    claim(folder)
    (folder / "results.db").mkdir()


def link_to_a_folder(folder: Path) -> None:
    Cache(folder.with_name("elsewhere")).set("key", {"gates": 3})
    folder.symlink_to(folder.with_name("elsewhere"))


def link_to_a_database(folder: Path) -> None:
    claim(folder)
    folder.with_name("elsewhere").write_text("x")
    (folder / "results.db").symlink_to(folder.with_name("elsewhere"))


def dangling_link(folder: Path) -> None:
    folder.symlink_to(folder.with_name("nowhere"))


@pytest.mark.parametrize("make", [foreign_folder, foreign_tag, foreign_database, file_in_the_way, dangling_link,
                                  folder_for_the_database, link_to_a_folder, link_to_a_database])
def test_what_another_made_is_neither_used_nor_changed(tmp_path, make, warned):
    folder = tmp_path / "c"
    make(folder)
    before = tree(tmp_path)
    for _ in range(2):  # one line for both
        cache = Cache(folder)
        cache.set("key", {"gates": 4})
        assert cache.get("key") is None
        cache.close()
    assert tree(tmp_path) == before
    assert "nothing is kept in the cache" in (line := warned()) and str(tmp_path) in line


def test_files_beside_the_own_folder_stay(tmp_path, monkeypatch, warned):
    """The folder that the variable names may hold anything, and the own folder be unusable in any way."""
    monkeypatch.setenv("BMHW_CACHE_DIR", str(tmp_path))
    (tmp_path / "src").mkdir()
    for name in ("src/a", "cache.db", "results.db", "simulations"):
        (tmp_path / name).write_text("x")
    before = tree(tmp_path)
    Cache(cache_folder()).set("key", {"gates": 3})
    (cache_folder() / "results.db").write_bytes(b"noise" * 999)
    Cache(cache_folder()).set("key", {"gates": 4})
    assert Cache(cache_folder()).get("key") == {"gates": 4}
    assert {name: content for name, content in tree(tmp_path).items() if not name.startswith("bmhw-cache")} == before


def test_a_command_keeps_to_the_own_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BMHW_CACHE_DIR", str(tmp_path))
    (tmp_path / "src").mkdir()
    for name in ("src/a", "cache.db"):
        (tmp_path / name).write_text("x")
    figures = []
    for _ in range(2):
        assert synth.main(["--bits", "2", "--inputs", "2", "--json", "-"]) == 0
        out, err = capsys.readouterr()
        figures.append(json.loads(out))
        assert err == "" and {path.name for path in tmp_path.iterdir()} == {"src", "cache.db", "bmhw-cache"}
    assert figures[0] == figures[1]
    # no cache at all: the same figures, and one line
    (tmp_path / "bmhw-cache" / "CACHEDIR.TAG").write_text("another's")
    before = tree(tmp_path)
    assert synth.main(["--bits", "2", "--inputs", "2", "--json", "-"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == figures[0] and err.count("\n") == 1 and tree(tmp_path) == before


def test_a_folder_of_another_user_is_not_trusted(tmp_path, monkeypatch, warned):
    """What is built is run from it."""
    Cache(tmp_path / "c").set("key", {"gates": 3})
    user = os.geteuid()
    monkeypatch.setattr(cache_module.os, "geteuid", lambda: user + 1)
    assert Cache(tmp_path / "c").get("key") is None
    assert "belongs to another user" in warned()


def test_a_full_disk_deletes_nothing_and_is_said_once(tmp_path, warned):
    cache = Cache(tmp_path / "c")
    cache.set("key", {"gates": 3})
    before = tree(tmp_path)
    with files_of_at_most(16 << 10):
        for number in range(3):
            cache.set(f"large {number}", {"text": random.Random(number).randbytes(50_000).hex()})
            assert cache.get("key") == {"gates": 3}
        fresh = Cache(tmp_path / "c")
        fresh.set("large", {"text": random.Random(9).randbytes(50_000).hex()})
        assert fresh.get("key") == {"gates": 3} and fresh.get("large") is None
    assert set(tree(tmp_path)) == set(before)
    assert "nothing is kept in the cache" in warned()
    assert Cache(tmp_path / "c").get("key") == {"gates": 3}


def test_sqlite_s_own_full_disk_deletes_nothing(tmp_path, warned):
    cache = Cache(tmp_path / "c")
    cache.set("key", {"gates": 3})
    cache._connection.execute("PRAGMA max_page_count = 1")  # it says "database or disk is full"
    before = tree(tmp_path)
    cache.set("large", {"text": random.Random(1).randbytes(50_000).hex()})
    assert "disk is full" in warned()
    assert cache.get("key") == {"gates": 3} and tree(tmp_path) == before


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_fails_on_opening_deletes_nothing(tmp_path, monkeypatch, warned, number):
    Cache(tmp_path / "c").set("key", {"gates": 3})
    before = tree(tmp_path)

    def failing(*arguments, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(cache_module, "_head", failing)
    assert Cache(tmp_path / "c").get("key") is None
    assert os.strerror(number) in warned() and tree(tmp_path) == before


@pytest.mark.parametrize("there", [False, True])
def test_a_disk_that_is_full_from_the_beginning_leaves_no_half_folder(tmp_path, warned, there):
    if there:
        (tmp_path / "c").mkdir()
    before = tree(tmp_path)
    with files_of_at_most(10):
        cache = Cache(tmp_path / "c")
        cache.set("key", {"gates": 3})
        assert cache.get("key") is None
    assert tree(tmp_path) == before and "nothing is kept" in warned()


def test_a_folder_that_can_only_be_read_is_read(tmp_path, monkeypatch, warned):
    monkeypatch.setattr(cache_module, "_USED_AGAIN", -1)  # that a value is used is noted, if it can be
    Cache(tmp_path / "c").set("key", {"gates": 3})
    if os.geteuid() == 0:
        os.chown(tmp_path / "c", 65534, -1)
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == os.geteuid() and path.name.startswith(("pytest-", "popen-", tmp_path.name)):
            path.chmod(path.stat().st_mode | 0o055)  # pytest's folders are root's alone
    for path in (tmp_path / "c").iterdir():
        path.chmod(0o444)
    (tmp_path / "c").chmod(0o555)
    try:
        with unprivileged():
            cache = Cache(tmp_path / "c")
            assert cache.get("key") == {"gates": 3} and warned() == ""
            cache.set("other", {"gates": 4})
            assert cache.get("other") is None and cache.get("key") == {"gates": 3}
            assert "readonly database" in warned()
    finally:
        (tmp_path / "c").chmod(0o755)


def test_a_folder_that_cannot_be_made_is_said(tmp_path, warned):
    (tmp_path / "file").write_text("x")
    Cache(tmp_path / "file" / "c").set("key", {"gates": 3})
    assert "nothing is kept in the cache" in warned()
    assert tree(tmp_path) == {"file": b"x"}


def test_a_database_that_stays_locked_is_waited_for_once(tmp_path, monkeypatch, warned):
    monkeypatch.setattr(cache_module, "_BUSY", 0.01)
    Cache(tmp_path / "c").set("key", {"gates": 3})
    cache = Cache(tmp_path / "c")
    other = sqlite3.connect(tmp_path / "c" / "results.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    assert cache.get("key") is None
    assert "locked" in warned()
    other.execute("ROLLBACK")
    assert cache.get("key") is None, "a cache that can't be read is left alone for the rest of the process"
    assert Cache(tmp_path / "c").get("key") == {"gates": 3}


def test_one_that_another_process_writes_for_long_is_only_read(tmp_path, monkeypatch, warned):
    """It is waited for once, not with every value."""
    monkeypatch.setattr(cache_module, "_BUSY", 0.01)
    cache = Cache(tmp_path / "c")
    cache.set("key", {"gates": 3})
    other = sqlite3.connect(tmp_path / "c" / "results.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    cache.set("other", {"gates": 4})
    assert "locked" in warned() and cache.get("key") == {"gates": 3}
    other.execute("ROLLBACK")
    cache.set("other", {"gates": 4})
    assert cache.get("other") is None and cache.get("key") == {"gates": 3}


def test_processes_share_it(tmp_path):
    """Both begin it and write at once; neither loses anything, and neither warns."""
    script = ("import sys\nfrom pathlib import Path\nfrom bmhw.flow.cache import Cache\n"
              "sys.stdin.readline()\n"
              "for i in range(40): Cache(Path(sys.argv[1])).set(f'{sys.argv[2]} {i}', {'i': i})\n")
    children = [subprocess.Popen([sys.executable, "-c", script, tmp_path / "c", name], stdin=subprocess.PIPE,
                                 stderr=subprocess.PIPE, text=True) for name in "ab"]
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    assert [child.communicate()[1] for child in children] == ["", ""]
    cache = Cache(tmp_path / "c")
    assert all(cache.get(f"{name} {i}") == {"i": i} for name in "ab" for i in range(40))


def test_threads_share_it(tmp_path):
    cache = Cache(tmp_path / "c")

    def work(name):
        for i in range(40):
            cache.set(f"{name} {i}", {"i": i})
            assert cache.get(f"{name} {i}") == {"i": i}

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(Cache(tmp_path / "c").get(f"{name} {i}") == {"i": i} for name in "abcd" for i in range(40))


def test_what_was_used_longest_ago_goes_first(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "_SIZE_LIMIT", 200_000)
    monkeypatch.setattr(cache_module, "_USED_AGAIN", 0)
    cache = Cache(tmp_path / "c")
    for number in range(60):
        cache.set(f"key {number}", {"text": random.Random(number).randbytes(10_000).hex()})
        assert cache.get("key 0") is not None, "it is used again and again"
    assert cache.get("key 59") is not None and cache.get("key 1") is None
    assert (tmp_path / "c" / "results.db").stat().st_size < 300_000
    assert len(json.dumps(cache.get("key 59"))) > 20_000


def test_an_own_folder_is_tagged_and_claimed_again(tmp_path):
    for _ in range(2):
        claim(tmp_path / "a" / "c")
    assert list(tree(tmp_path)) == ["a", "a/c", "a/c/CACHEDIR.TAG"]
    (tmp_path / "a" / "c" / "CACHEDIR.TAG").unlink()
    claim(tmp_path / "a" / "c")  # an empty folder is anybody's
    (tmp_path / "a" / "c" / "CACHEDIR.TAG").write_text("something else")
    with pytest.raises(NotOursError, match="not this program's"):
        claim(tmp_path / "a" / "c")
