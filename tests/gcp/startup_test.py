"""gcp/startup.sh, the machine's part, and the scripts beside it, with a gcloud whose bucket is a folder."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from alignpre_jax.launch.clouds import TpuVm
from alignpre_jax.launch.tpu_vm import Slices

GCP = Path(__file__).parents[2] / "gcp"
GCLOUD = """#!/usr/bin/env bash
path() { printf '%s' "$BUCKET_FOLDER/${1#gs://}"; }
printf '%q ' "$@" >> "$BUCKET_FOLDER/calls"; printf '\\n' >> "$BUCKET_FOLDER/calls"
case "$1 $2" in
  'storage cat') cat "$(path "$3")" ;;
  'storage cp')
    from=$3
    [[ $from == gs://* ]] && from=$(path "$from")
    to=$4
    [[ $to == gs://* ]] && to=$(path "$to")
    mkdir -p "$(dirname "$to")"
    if [[ $from == - ]]; then cat > "$to"; else cp "$from" "$to"; fi
    ;;
esac
"""
QUIET = "#!/usr/bin/env bash\nexit 0\n"
CURL = """#!/usr/bin/env bash
case $* in
  *agent-worker-number*) echo "$WORKER" ;;
  *tpu-env*) echo "MEGASCALE_SLICE_ID: '$SLICE'" ;;
esac
"""


@pytest.fixture
def machine(tmp_path):
    """Boots a host: runs the script that a target makes, and returns the finished process."""
    tools = {"gcloud": GCLOUD, "curl": CURL, "mountpoint": QUIET, "gcsfuse": QUIET, "apt-get": QUIET, "tar": QUIET}
    fake_python = '#!/usr/bin/env bash\nmkdir -p "$3/bin" && ln -sf "$(command -v true)" "$3/bin/pip"\n'
    tools["python3.11"] = fake_python
    (tmp_path / "bin").mkdir()
    for name, text in tools.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "b" / "packages").mkdir(parents=True)
    (tmp_path / "b" / "packages" / "p.tar.gz").write_text("")
    startup = (GCP / "startup.sh").read_text().replace("/mnt", str(tmp_path))
    target = TpuVm(Slices("v5litepod-16"), "gs://b/jobs", "gs://b/packages/p.tar.gz", "b", startup)

    def boot(*command, worker=0, slice_=0):
        script = tmp_path / "startup"
        script.write_text(target.script("run-1", command).replace("/mnt/alignpre", str(tmp_path / "mnt")))
        env = os.environ | {
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "BUCKET_FOLDER": str(tmp_path), "WORKER": str(worker),
            "SLICE": str(slice_), "ALIGNPRE_HOME": str(tmp_path / f"home{slice_}{worker}"), "ALIGNPRE_PAUSE": "0.1",
        }  # fmt: skip
        return subprocess.run(["bash", script], env=env, capture_output=True, text=True, timeout=60, check=False)

    boot.place = tmp_path / "b" / "jobs" / "run-1"
    return boot


def counting(tmp_path, *statuses):
    """A job that ends with these statuses, one after the other."""
    tries = tmp_path / "tries"
    lines = "; ".join(
        f"[ $(wc -l < {tries}) = {number} ] && exit {status}" for number, status in enumerate(statuses, 1)
    )
    return tries, ["sh", "-c", f"echo x >> {tries}; echo try; {lines}; exit 99"]


def test_a_job_goes_on_until_it_is_done(machine, tmp_path):
    tries, job = counting(tmp_path, 75, 77, 76, 1, 0)
    done = machine(*job)
    assert done.returncode == 0, done.stderr
    assert (machine.place / "exit").read_text() == "0\n"
    assert len(tries.read_text().split()) == 5
    assert (machine.place / "heartbeat").read_text().strip().isdigit()
    log = (machine.place / "log-0-0").read_text()
    assert "the job left with status 77; started again" in log

    machine(*job)  # booted again after the end
    assert len(tries.read_text().split()) == 5


@pytest.mark.parametrize(("statuses", "final"), [([2], "2"), ([1] * 6, "1")])
def test_a_hopeless_job_ends_with_its_status(machine, tmp_path, statuses, final):
    tries, job = counting(tmp_path, *statuses)
    machine(*job)
    assert (machine.place / "exit").read_text() == f"{final}\n"
    assert len(tries.read_text().split()) == len(statuses)


@pytest.mark.parametrize(("worker", "slice_"), [(1, 0), (0, 1)])
def test_other_hosts_leave_the_status_to_the_first(machine, tmp_path, worker, slice_):
    """The job of this host writes the status in the first host's place, and the script ends by it."""
    machine.place.mkdir(parents=True)
    job = ["sh", "-c", f"test -e {tmp_path}/once && echo 0 > {machine.place}/exit; touch {tmp_path}/once; exit 0"]
    assert machine(*job, worker=worker, slice_=slice_).returncode == 0
    assert not (machine.place / "heartbeat").exists()


def test_arguments_arrive_as_they_are(machine, tmp_path):
    words = ["two words", "$HOME", "it's", "a;b", "*"]
    show = f"import sys, json; open({str(tmp_path / 'argv')!r}, 'w').write(json.dumps(sys.argv[1:]))"
    machine(sys.executable, "-c", show, *words)
    assert (tmp_path / "argv").read_text() == '["two words", "$HOME", "it\'s", "a;b", "*"]'


@pytest.fixture
def dry():
    def run(script, *arguments):
        done = subprocess.run(
            [GCP / script, *arguments, "--dry-run"], capture_output=True, text=True, check=False, timeout=60
        )
        return (
            done.returncode,
            [shlex.split(line) for line in done.stdout.splitlines() if line.startswith("gcloud")],
            done.stderr,
        )

    return run


def test_a_bucket_and_an_account_with_the_least_rights(dry):
    status, calls, errors = dry("bucket.sh", "create", "my-bucket", "--region=us-west4", "--project=p", "--days=30")
    assert status == 0, errors
    roles = [word.removeprefix("--role=") for call in calls for word in call if word.startswith("--role=")]
    assert roles == ["roles/storage.objectUser", "roles/logging.logWriter", "roles/iam.serviceAccountUser"]
    made = calls[0]
    assert {"--enable-hierarchical-namespace", "--public-access-prevention", "--uniform-bucket-level-access"} <= set(
        made
    )
    status, calls, _ = dry("bucket.sh", "delete", "my-bucket", "--project=p")
    assert (status, calls[0][1:4]) == (0, ["storage", "rm", "--recursive"])
    assert dry("bucket.sh", "create", "gs://my-bucket", "--project=p")[0] == 2
    assert dry("bucket.sh", "create", "my-bucket", "--project=p")[0] == 2


def test_the_images_files_are_there():
    text = (GCP / "Dockerfile").read_text()
    copied = [word for line in text.splitlines() if line.startswith("COPY") for word in line.split()[1:-1]]
    assert copied
    assert all((GCP.parent / name).exists() for name in copied)


@pytest.mark.parametrize("script", sorted(GCP.glob("*.sh")), ids=lambda path: path.name)
def test_shellcheck(script):
    found = shutil.which("shellcheck") or shutil.which("shellcheck", path=Path(sys.executable).parent)
    if found is None:
        pytest.skip("shellcheck is not installed")
    subprocess.run([found, script], check=True)
