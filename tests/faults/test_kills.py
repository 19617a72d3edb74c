"""A process killed at any file operation: nothing acknowledged is lost, and the next run finishes."""

from __future__ import annotations

import pytest

from tests.faults.trials.kills import kill_everywhere
from tests.faults.trials.scenarios import SCENARIOS


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_killed_at_any_file_operation(tmp_path, scenario):
    points = list(kill_everywhere(scenario, tmp_path))
    assert [(point.place, point.problems) for point in points if point.problems] == []
    assert all(point.killed for point in points)
    assert len(points) > 6
