"""The built-in job computes with one thread, and what was set before comes back."""

import pytest
import torch

from edgeward.cli import demo as verb
from edgeward.cli import running
from edgeward.cli.threads import one_thread


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("asked", "inside"), [(None, 1), ("2", 2)])
def test_one_thread_unless_the_environment_asks(two_threads, monkeypatch, asked, inside):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)

    def interrupted():
        with one_thread():
            assert torch.get_num_threads() == inside
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert torch.get_num_threads() == 2


def test_the_demo_and_no_other_job_takes_one_thread(two_threads, monkeypatch, tmp_path):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    seen = []

    class Stop(Exception):
        pass

    def run(job, watcher, *, audit_only):
        seen.append(torch.get_num_threads())
        raise Stop

    monkeypatch.setattr("edgeward.job.Job.run", run)
    with pytest.raises(Stop):
        verb.demo(tmp_path / "demo", quiet=True)
    with pytest.raises(Stop):
        running.run_job(running.the_job(None, demo=True), quiet=True)
    assert seen == [1, 2]
