"""Settings that contradict each other are refused with a sentence."""

from __future__ import annotations

import pytest

from dmaml.common.errors import ConfigError
from tests.unit.driven_core import config_of


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"topology": {"slots": 2, "parts": 2}, "sync": {"mode": "async"}}, "parts to 1"),
        ({"sync": {"mode": "quorum", "quorum": 3}}, "sync.quorum 3 exceeds topology.slots 2"),
        ({"sync": {"quorum": 1}}, "or set sync.mode to quorum"),
        ({"sync": {"mode": "async", "window": 1, "async_batch": 3}}, "exceeds the 2 items"),
        ({"server": {"speculation": True}, "run": {"hardware": "mixed"}}, "Turn one of them off"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(sections, sentence):
    with pytest.raises(ConfigError, match=sentence):
        config_of(**sections)
