"""What Kubernetes and SkyPilot are told about a job: a JobSet manifest and a SkyPilot task, as values and as YAML."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from alignpre_jax.foundation import get_accelerator


@dataclasses.dataclass(frozen=True)
class Container:
    """What runs on every host, and where.

    Attributes:
      image: of the container (gcp/Dockerfile).
      command: the job.
      bucket: is mounted as `mount`.
      mount: folder.
      service_account: of Kubernetes, bound to one of the project that may write to the bucket.
      restarts: how often the whole job starts again when a host fails.
    """

    image: str
    command: Sequence[str]
    bucket: str
    mount: str = "/mnt/alignpre"
    service_account: str = "alignpre"
    restarts: int = 20


def jobset(name: str, type: str, slices: int, container: Container, *, spot: bool = False) -> dict[str, Any]:
    """A JobSet (https://jobset.sigs.k8s.io): one Job per slice, one pod per host; all of them start again together.

    GKE tells the pods of their neighbours, and `training.initialize` reads it.
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
        # A mistake in what was asked (status 2) is final; everything else is a reason to start again.
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
    """A SkyPilot task; as a managed job (`sky jobs launch`) it is moved and started again when it is preempted."""
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
    """As YAML, keys in the order given."""
    return yaml.safe_dump(dict(value), sort_keys=False, width=120)
