"""Kubernetes and SkyPilot are told about a job by a JobSet manifest and a SkyPilot task, made here and put as YAML."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from alignpre_jax.foundation import get_accelerator


@dataclasses.dataclass(frozen=True)
class Container:
    """The container that runs on every host.

    Attributes:
      image: the container image (gcp/Dockerfile).
      command: the command that does the job.
      bucket: the bucket that is mounted at `mount`.
      mount: the folder in the container.
      service_account: a service account of Kubernetes, bound to one of the project that may write to the bucket.
      restarts: how often the whole job starts again when a host fails.
    """

    image: str
    command: Sequence[str]
    bucket: str
    mount: str = "/mnt/alignpre"
    service_account: str = "alignpre"
    restarts: int = 20


def jobset(name: str, type: str, slices: int, container: Container, *, spot: bool = False) -> dict[str, Any]:
    """Makes a JobSet (https://jobset.sigs.k8s.io): one Job per slice, one pod per host; all start again together.

    GKE tells every pod who its neighbours are, and `training.initialize` reads that.
    """
    accelerator = get_accelerator(type)
    chips = str(accelerator.chips // accelerator.hosts)
    selector = {
        "cloud.google.com/gke-tpu-accelerator": accelerator.label,
        "cloud.google.com/gke-tpu-topology": accelerator.topology,
    }
    pod = {
        "metadata": {"annotations": {"gke-gcsfuse/volumes": "true"}},
        "spec": {
            "restartPolicy": "Never",
            "serviceAccountName": container.service_account,
            "terminationGracePeriodSeconds": 120,
            "nodeSelector": selector | ({"cloud.google.com/gke-spot": "true"} if spot else {}),
            "containers": [
                {
                    "name": "alignpre",
                    "image": container.image,
                    "command": list(container.command),
                    "ports": [{"containerPort": 8471}, {"containerPort": 8080}],
                    "resources": {"requests": {"google.com/tpu": chips}, "limits": {"google.com/tpu": chips}},
                    "volumeMounts": [{"name": "runs", "mountPath": container.mount}],
                }
            ],
            "volumes": [
                {
                    "name": "runs",
                    "csi": {
                        "driver": "gcsfuse.csi.storage.gke.io",
                        "volumeAttributes": {
                            "bucketName": container.bucket,
                            "mountOptions": "implicit-dirs,rename-dir-limit=200000",
                        },
                    },
                }
            ],
        },
    }
    job = {
        "parallelism": accelerator.hosts,
        "completions": accelerator.hosts,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        # A mistake in what was asked (exit status 2) is final; after any other failure the job starts again.
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "FailJob",
                    "onExitCodes": {"containerName": "alignpre", "operator": "In", "values": [2]},
                }
            ]
        },
        "template": pod,
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": name,
            "annotations": {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"},
        },
        "spec": {
            "failurePolicy": {
                "maxRestarts": container.restarts,
                "rules": [{"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}],
            },
            "replicatedJobs": [{"name": "slice", "replicas": slices, "template": {"spec": job}}],
        },
    }


def skypilot(name: str, type: str, command: Sequence[str], bucket: str, *, spot: bool, mount: str) -> dict[str, Any]:
    """Makes a SkyPilot task; as a managed job (`sky jobs launch`) it is moved and started again when preempted."""
    accelerator = get_accelerator(type)
    return {
        "name": name,
        "workdir": ".",
        "resources": {
            "cloud": "gcp",
            "accelerators": f"tpu-{type}:1",
            "accelerator_args": {"tpu_vm": True, "runtime_version": accelerator.runtime},
            "use_spot": spot,
            "job_recovery": {"max_restarts_on_errors": 5},
        },
        "file_mounts": {mount: {"source": f"gs://{bucket}", "mode": "MOUNT"}},
        "setup": "python3.11 -m venv ~/venv\n"
        "~/venv/bin/pip install --quiet -c requirements/lock-3.11.txt -e '.[tpu]'\n",
        "run": f"PATH=~/venv/bin:$PATH {shlex.join(command)}\n",
    }


def to_yaml(value: Mapping[str, Any]) -> str:
    """Writes a mapping as YAML, with its keys in the order given."""
    return yaml.safe_dump(dict(value), sort_keys=False, width=120)
