"""docs/topology.md names every key that there is."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from testbed.topology.model import (
    DIRECTION,
    App,
    Backoff,
    Check,
    DropRule,
    Event,
    Fairness,
    Host,
    Limits,
    Link,
    Ready,
    Topology,
    Underlay,
)
from testbed.topology.presets import PRESETS
from tests.testbed.conftest import PROJECT

MODELS = [Topology, Host, Link, Underlay, DropRule, App, Ready, Limits, Event, Check, Backoff, Fairness]
TEXT = (PROJECT / "docs" / "topology.md").read_text()


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_key_is_there(model: type[BaseModel]) -> None:
    keys = {field.alias or name for name, field in model.model_fields.items()} - {DIRECTION}
    assert {key for key in keys if f"`{key}`" not in TEXT and f"{key}:" not in TEXT} == set()


def test_every_preset_is_there() -> None:
    assert {preset for preset in PRESETS if f"`{preset}`" not in TEXT} == set()
