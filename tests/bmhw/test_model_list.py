# SPDX-License-Identifier: Apache-2.0
"""``bmhw models``: networks of an older version, written anew in fewer bytes."""

import json
import shutil

import numpy as np
import pytest
from support.files import rewrite_unpacked

from bmhw import model_list
from bmhw.errors import UsageError
from bmhw.models import ModelError, load
from bmhw.models.files.store import WEIGHTS


@pytest.fixture
def older(tmp_path):
    """``digits`` as it was before weights were packed, and beside it a card alone."""
    for suffix in (".json", ".safetensors"):
        shutil.copy(WEIGHTS / f"digits{suffix}", tmp_path)
    rewrite_unpacked(tmp_path / "digits.json")
    shutil.copy(WEIGHTS / "mnist-lenet.json", tmp_path)
    return tmp_path


def test_networks_of_a_folder_are_packed(older, capsys):
    before = load(older / "digits.json")
    size = (older / "digits.safetensors").stat().st_size
    assert model_list.main(["repack", str(older)]) == 0
    shipped = (WEIGHTS / "digits.safetensors").stat().st_size
    assert capsys.readouterr().out == f"digits: {shipped:,} bytes, {size:,} before\n" and 3 * shipped < size
    assert np.array_equal(load(older / "digits.json").logits(before.samples), before.logits(before.samples))
    assert model_list.main(["repack", str(older), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"name": "digits", "bytes_before": shipped, "bytes": shipped}]
    assert sorted(path.name for path in older.iterdir()) == ["digits.json", "digits.safetensors", "mnist-lenet.json"]


def test_what_can_not_be_read_stays(older):
    data = (older / "digits.safetensors").read_bytes()[:-1]
    (older / "digits.safetensors").write_bytes(data)
    with pytest.raises(ModelError, match="no whole safetensors file"):
        model_list.main(["repack", str(older)])
    assert (older / "digits.safetensors").read_bytes() == data


def test_it_needs_folders(tmp_path):
    with pytest.raises(UsageError, match="repack needs the folders of the networks"):
        model_list.main(["repack"])
    with pytest.raises(ModelError, match="must hold cards"):
        model_list.main(["repack", str(tmp_path)])
