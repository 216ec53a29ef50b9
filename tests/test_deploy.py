"""What deploy/ has: manifests that Kubernetes, Ray and Kueue would take, as far as packages here know what these want.

Core objects and the pods within others are held against Kubernetes' own schemas, strictly: a field that is not known is an
error. KubeRay has no package with its schemas; of its objects it is looked at what Ray itself reads in them, and that commands
are ones that there are.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Graftax

kubernetes_validate = pytest.importorskip("kubernetes_validate")

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
OBJECTS = {
    (file.name, one["kind"]): one
    for file in sorted(DEPLOY.glob("*.yaml"))
    for one in yaml.safe_load_all(file.read_text("utf-8"))
}
RAY_JOB = OBJECTS["train-on-ray.yaml", "RayJob"]
CLUSTER = RAY_JOB["spec"]["rayClusterSpec"]
VERSION = "1.37"  # of Kubernetes


def pods_within(tree: Any) -> list[dict[str, Any]]:
    """Every template of a pod, wherever it is in an object."""
    if isinstance(tree, list):
        return [pod for one in tree for pod in pods_within(one)]
    if not isinstance(tree, dict):
        return []
    own = [tree["template"]] if "containers" in tree.get("template", {}).get("spec", {}) else []
    return own + [pod for value in tree.values() for pod in pods_within(value)]


def as_pod(template: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", **template, "metadata": {"name": "one", **template.get("metadata", {})}}


def validate(one: dict[str, Any]) -> None:
    kubernetes_validate.validate(one, VERSION, strict=True)


@pytest.mark.parametrize("named", OBJECTS, ids=":".join)
def test_pods_and_core_objects_are_what_kubernetes_wants(named: tuple[str, str]) -> None:
    one = OBJECTS[named]
    pods = pods_within(one)
    assert bool(pods) == (named[1] in ("RayJob", "RayService", "JobSet", "Deployment"))
    for pod in pods:
        validate(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one", **pod.get("metadata", {})}, "spec": pod["spec"]}
        )
    if "." not in one["apiVersion"]:
        validate(one)


def test_a_field_that_is_not_known_is_seen() -> None:
    """Of a pod, deep in it."""
    (head, _) = pods_within(yaml.safe_load(yaml.safe_dump(RAY_JOB)))
    head["spec"]["containers"][0]["resources"]["request"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="request"):
        validate(as_pod(head))


def test_ray_reads_of_the_cluster_what_is_meant() -> None:
    """A head that trains nothing, and workers of one GPU each: by Ray's own reader of KubeRay's objects."""
    reader = pytest.importorskip("ray.autoscaler._private.kuberay.autoscaling_config")
    whole = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": "one", "namespace": "default"},
        "spec": CLUSTER,
    }
    types = reader._derive_autoscaling_config_from_ray_cr(whole)["available_node_types"]
    assert types["headgroup"]["resources"]["CPU"] == 0
    workers = types["gpus"]
    assert (workers["resources"]["GPU"], workers["resources"]["CPU"]) == (1, 8)
    (group,) = CLUSTER["workerGroupSpecs"]
    assert 1 <= workers["min_workers"] == group["minReplicas"] <= group["replicas"] <= workers["max_workers"]


def test_what_runs_on_ray_is_a_command_and_shares_a_disk(graftax: Graftax) -> None:
    program, command, *words = shlex.split(RAY_JOB["spec"]["entrypoint"])
    assert (program, command) == ("graftax", "train")
    told = graftax(command, "--help").out
    options = [word for word in words if word.startswith("-")]
    assert {"--ray", "--out", "--data", "-b"} == {*options}
    assert all(re.search(rf"(?m)(^|[\s,]){option}\b", told) for option in options)
    for pod in pods_within(CLUSTER):
        (mounted,) = (volume["mountPath"] for volume in pod["spec"]["containers"][0]["volumeMounts"])
        assert all(word.startswith(mounted) for word in words if word.startswith("/"))
        (volume,) = pod["spec"]["volumes"]
        claimed = OBJECTS["train-on-ray.yaml", "PersistentVolumeClaim"]
        assert volume["persistentVolumeClaim"]["claimName"] == claimed["metadata"]["name"]
        assert claimed["spec"]["accessModes"] == ["ReadWriteMany"]


def test_ray_has_one_version_everywhere() -> None:
    """In the image, in the cluster, and one that pyproject.toml takes."""
    (image,) = re.findall(r"^ARG RAY=(\S+)$", (DEPLOY / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    assert CLUSTER["rayVersion"] == image
    (least,) = {*re.findall(r'"ray\[serve\]>=([\d.]+)"', (ROOT / "pyproject.toml").read_text("utf-8"))}
    assert tuple(map(int, image.split("."))) >= tuple(map(int, least.split(".")))


def test_whoever_queues_names_a_queue_that_there_is() -> None:
    queues = {one["metadata"]["name"]: one for (_, kind), one in OBJECTS.items() if kind == "LocalQueue"}
    named = [one["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] for one in OBJECTS.values() if pods_within(one)]
    assert named
    assert {*named} <= {*queues}
    (cluster,) = (one for (_, kind), one in OBJECTS.items() if kind == "ClusterQueue")
    assert {one["spec"]["clusterQueue"] for one in queues.values()} == {cluster["metadata"]["name"]}
    (group,) = cluster["spec"]["resourceGroups"]
    (flavor,) = group["flavors"]
    assert flavor["name"] == OBJECTS["kueue.yaml", "ResourceFlavor"]["metadata"]["name"]
    assert [one["name"] for one in flavor["resources"]] == group["coveredResources"]
    asked = {name for one in OBJECTS.values() for pod in pods_within(one) for name in requests(pod)}
    assert asked <= {*group["coveredResources"]}


def requests(pod: dict[str, Any]) -> list[str]:
    return [name for container in pod["spec"]["containers"] for name in container["resources"]["requests"]]
