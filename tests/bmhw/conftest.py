# SPDX-License-Identifier: Apache-2.0
"""Commands here keep their results in a folder of this run's, not in the user's."""

import pytest
from support.calls import measure_without_building


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BMHW_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture
def unbuilt(monkeypatch):
    """Neurons are chosen and counted, not generated."""
    measure_without_building(monkeypatch)
