"""The audit where code is tested and files are kept in sandboxes."""

import holed_plain
import holed_sandboxes
import pytest

from ludus.environments.python_tasks import PythonTasks
from ludus.sandbox import capabilities
from ludus.testing import audit_environment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(capabilities().tier is None, reason="this machine can't contain code"),
    pytest.mark.usefixtures("nothing_is_left"),
]


@pytest.mark.parametrize("kind", [*holed_sandboxes.HOLES, *holed_plain.SANDBOXED], ids=lambda kind: kind.__name__)
def test_planted_holes_are_found(kind):
    audit = audit_environment(kind(), num_tasks=2, tried=0)
    assert not audit.harder_to_hack, str(audit)
    assert all(not line.name.startswith("expert") for line in audit.attacks if line.name in audit.holes)


@pytest.mark.parametrize("kind", [*holed_sandboxes.SOUND, PythonTasks], ids=lambda kind: kind.__name__)
def test_sound_environments_are_left_alone(kind):
    audit = audit_environment(kind(), num_tasks=2, tried=0)
    assert audit.harder_to_hack, str(audit)


def test_without_a_containment_code_is_said_to_run_here():
    audit = audit_environment(holed_sandboxes.ExitCode(sandbox="none"), num_tasks=2, tried=0)
    assert "runs on this machine, outside of any sandbox" in audit.because
