"""The babysitter against a gcloud that plays back what can happen to a slice."""

import shlex

import pytest
from fakes import GONE, MISSING, Fake, states

from alignpre_jax.foundation import UserError
from alignpre_jax.launch.cloud import Backoff, CloudError, Tool, classify
from alignpre_jax.launch.tpu_vm import Patience, Slices, babysit, describe

SLICES = Slices("v5litepod-16", tier="spot", zone="us-west4-a", project="p")
QUOTA = "!ERROR: (gcloud) RESOURCE_EXHAUSTED: Quota limit 'TPUV5sLitepodPerProjectPerZone' has been exceeded."
AUTH = "!ERROR: (gcloud) There was a problem refreshing your current auth tokens: Reauthentication failed."
DENIED = "!ERROR: (gcloud) PERMISSION_DENIED: Permission 'tpu.nodes.create' denied"
DOWN = "!ERROR: (gcloud) UNAVAILABLE: The service is currently unavailable"
ALIVE = "9999999999"  # a heartbeat that is never old


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self):
        self.time, self.naps = 1e9, []

    def sleep(self, seconds):
        assert len(self.naps) < 500, "it waits for ever"
        self.naps.append(seconds)
        self.time += seconds


@pytest.fixture
def fake(tmp_path, monkeypatch):
    made = Fake(tmp_path)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


@pytest.fixture
def watch(fake):
    """Babysits; returns (what was said, the clock). Calls are in `fake`."""

    def run(slices=SLICES, **patience):
        said, clock = [], Clock()
        run.said, run.clock = said, clock
        how = Patience(**patience)
        babysit(
            "run-1",
            slices,
            "#!/bin/sh\n",
            "gs://b/jobs/run-1",
            said.append,
            patience=how,
            sleep=clock.sleep,
            now=lambda: clock.time,
        )
        return said, clock

    return run


def done_after(looks):
    """Answers for the exit status: there after so many looks, the one at the start included."""
    return [*[MISSING] * looks, "0"]


def test_through_all_states_of_a_spot_slice_to_the_end(fake, watch):
    coming = ("CREATING", "ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING")
    lost = ("SUSPENDING", "SUSPENDED", "DELETING")
    fake.answer(
        describe=states(GONE, *coming, "ACTIVE", *lost, GONE, *coming, "ACTIVE"),
        heartbeat=[ALIVE],
        exit=done_after(16),
    )
    said, _ = watch()
    assert said == [
        *("requested", *coming, "ACTIVE", "SUSPENDING", "SUSPENDED: deleting, then asking again", "DELETING"),
        *("requested again, number 2", *coming, "ACTIVE", "done, TPU deleted"),
    ]
    assert len(fake.calls("create")) == 2
    assert {call[5] for call in fake.calls("create")} == {"run-1"}  # the run's name is kept
    assert len(fake.calls("delete")) == 2
    assert fake.calls()[-1][4:6] == ["delete", "run-1"]


def test_what_is_booked(fake, watch):
    fake.answer(describe=states(GONE, "ACTIVE"), exit=done_after(3))
    watch()
    (call,) = fake.calls("create")
    shown = [word for word in call if not word.startswith("--metadata-from-file=startup-script=")]
    assert shown == shlex.split(
        "gcloud compute tpus queued-resources create run-1 --node-id=run-1 --accelerator-type=v5litepod-16 "
        "--runtime-version=v2-alpha-tpuv5-lite --spot --zone=us-west4-a --project=p --quiet"
    )
    assert (fake.folder / "startup").read_text() == "#!/bin/sh\n"


def test_several_slices_and_a_reservation(fake, watch):
    slices = Slices("v5p-128", 2, "reserved", service_account="me@p.iam.gserviceaccount.com", runtime="custom")
    fake.answer(describe=[*states(GONE), *states(*["ACTIVE"] * 100), *states(GONE)], heartbeat=[MISSING])
    with pytest.raises(UserError, match="came to nothing"):
        watch(slices, barren=1, kicks=1)
    (call,) = fake.calls("create")
    assert {"--node-prefix=run-1", "--node-count=2", "--reserved", "--runtime-version=custom"} <= set(call)
    assert "--service-account=me@p.iam.gserviceaccount.com" in call
    assert [call[5] for call in fake.calls("ssh")] == ["run-1-0", "run-1-1"]


def test_a_finished_job_books_nothing(fake, watch):
    fake.answer(exit=["0"])
    watch()
    assert not fake.calls("create")


def test_the_status_of_an_earlier_launch_is_forgotten(fake, watch):
    fake.answer(exit=["1", "", MISSING, "0"], describe=states(GONE))
    watch()
    assert ["gcloud", "storage", "rm", "gs://b/jobs/run-1/exit"] in fake.calls()
    assert len(fake.calls("create")) == 1


def test_a_job_that_fails_costs_nothing_more(fake, watch):
    fake.answer(describe=states(GONE, "ACTIVE"), heartbeat=[ALIVE], exit=[MISSING, MISSING, MISSING, "2"])
    with pytest.raises(UserError, match="status 2") as error:
        watch()
    assert "gcloud storage cat gs://b/jobs/run-1/log-0-0" in error.value.fix
    assert fake.calls()[-1][4] == "delete"


def test_no_quota_is_waited_for_ever_longer_and_then_given_up(fake, watch):
    fake.answer(describe=states(GONE), create=[QUOTA, QUOTA, ""], exit=done_after(5))
    said, clock = watch()
    assert len(fake.calls("create")) == 4
    assert clock.naps[1] > 1.4 * clock.naps[0] > 120
    assert "no quota or capacity (1 of 12)" in said[0]

    fake.answer(create=[QUOTA], exit=[MISSING])
    with pytest.raises(UserError, match="refused 3 times") as error:
        watch(quota=3)
    assert "TPUV5sLitepodPerProjectPerZone" in error.value.what


@pytest.mark.parametrize("answer", [AUTH, DENIED])
@pytest.mark.parametrize("kind", ["describe", "create", "exit"])
def test_without_rights_it_stops_at_once_and_says_what_stays(fake, watch, kind, answer):
    fake.answer(**({"describe": states(GONE)} | {kind: [answer]}))
    with pytest.raises(UserError, match="not allowed") as error:
        watch()
    assert "gcloud auth login" in error.value.fix
    assert "gcp/tpu.sh delete run-1" in error.value.fix
    assert not watch.clock.naps


def test_calls_that_fail_are_tried_again_and_not_for_ever(fake, watch):
    fake.answer(describe=[DOWN, DOWN, *states(GONE), DOWN, *states("ACTIVE")], heartbeat=[ALIVE], exit=done_after(8))
    said, _ = watch()
    assert sum("a call failed" in line for line in said) == 3
    assert len(fake.calls("create")) == 1

    fake.answer(describe=[DOWN], exit=[MISSING])
    with pytest.raises(UserError, match="calls in a row failed"):
        watch(troubles=4)
    assert max(watch.clock.naps) <= 900


def test_a_silent_slice_is_woken_through_dropping_connections_and_then_made_anew(fake, watch):
    dropped = "!ERROR: (gcloud.compute.tpus.tpu-vm.ssh) [/usr/bin/ssh] exited with return code [255]."
    fake.answer(
        describe=[*states(GONE), *states(*["ACTIVE"] * 400), *states(GONE)],
        heartbeat=[MISSING],
        ssh=[dropped, "", dropped],
        exit=[MISSING],
    )
    with pytest.raises(UserError, match="came to nothing"):
        watch(barren=1)
    assert len(fake.calls("ssh")) == 3
    assert all(
        call[6:8] == ["--worker=all", call[7]] and "google-startup-scripts" in call[7] for call in fake.calls("ssh")
    )
    assert [line for line in watch.said if "silent" in line][-1].endswith("deleting, then asking again")
    woken = next(index for index, line in enumerate(watch.said) if "silent" in line)
    assert "tried again" in watch.said[woken + 1]


def test_a_heart_that_stops_is_noticed(fake, watch):
    """Alive for a while, then silent: woken once, alive again, done."""
    start = 1e9
    beats = [str(start + 40)] * 25 + [ALIVE]
    fake.answer(describe=[*states(GONE), *states("ACTIVE")], heartbeat=beats, exit=done_after(45))
    said, _ = watch(poll=60.0)
    assert sum("started again (1 of 3)" in line for line in said) == 1
    assert len(fake.calls("ssh")) == 1
    assert len(fake.calls("create")) == 1


def test_requests_that_fail_say_why(fake, watch):
    failed = '{"state": {"state": "FAILED", "failedData": {"error": {"message": "The zone has no such topology"}}}}'
    fake.answer(describe=[*states(GONE), failed, *states(GONE), failed], exit=[MISSING])
    with pytest.raises(UserError, match="The zone has no such topology"):
        watch(barren=2)
    assert len(fake.calls("create")) == len(fake.calls("delete")) == 2


def test_started_anew_it_takes_over_what_is_there(fake, watch):
    fake.answer(describe=states("ACTIVE"), heartbeat=[ALIVE], exit=done_after(3))
    watch()
    assert not fake.calls("create")
    fake.answer(
        describe=[*states(GONE), *states("PROVISIONING")], create=["!ERROR: ALREADY_EXISTS"], exit=done_after(3)
    )
    said, _ = watch()
    assert said == ["PROVISIONING", "done, TPU deleted"]


def test_a_state_that_nobody_has_heard_of(fake, watch):
    fake.answer(describe=[*states(GONE), *states("HIBERNATING", "ACTIVE")], heartbeat=[ALIVE], exit=done_after(4))
    said, _ = watch()
    assert "HIBERNATING, a state that is not known here; waiting" in said


def test_a_type_that_cannot_be_booked():
    with pytest.raises(UserError, match="GKE only"):
        Slices("tpu7x-64")
    with pytest.raises(UserError, match="v5litepod-16"):
        Slices("v5litepd-16")


def test_kinds_of_errors():
    assert classify("ERROR: 429 Too many") == "quota"
    assert classify("Connection reset by peer") == "transient"
    assert classify("unrecognized arguments: --spott") == "invalid"
    with pytest.raises(UserError, match="no command 'gclowd'"):
        Tool("gclowd")("version")
    with pytest.raises(CloudError, match="no answer"):
        Tool("sleep", timeout=0.05)("5")


def test_waits_grow_to_their_most(monkeypatch):
    naps = []
    wait = Backoff(10, 100, naps.append)
    for _ in range(6):
        wait.wait()
    assert all(0.75 * most <= nap <= most for nap, most in zip(naps, (10, 20, 40, 80, 100, 100), strict=True))
    wait.reset()
    wait.wait()
    assert naps[-1] <= 10


def test_dry_run_shows_and_calls_nothing(fake, capsys):
    assert describe("x", SLICES, Tool("gcloud", dry_run=True)) == ("STATE_UNSPECIFIED", "")
    assert not fake.calls()
    assert capsys.readouterr().out.startswith("gcloud compute tpus queued-resources describe x")
