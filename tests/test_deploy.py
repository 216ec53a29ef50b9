"""What deploy/ has: manifests that Kubernetes, Ray and Kueue would take, as far as packages here know what these want.

Core objects, and the pods and jobs within others, are held against Kubernetes' own schemas, strictly: a field that is not known
is an error. Of JobSets there are models in a package of Kubeflow's. KubeRay has no package with its schemas; of its objects it
is looked at what Ray itself reads in them. Commands are ones that there are.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
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
JOB_SET = OBJECTS["train-on-many-hosts.yaml", "JobSet"]
TRAIN, SERVE = (OBJECTS[f"{command}-on-ray.yaml", "RayJob"] for command in ("train", "serve"))
SERVICE = OBJECTS["serve-with-rayservice.yaml", "RayService"]
CLUSTERS = {
    "train": TRAIN["spec"]["rayClusterSpec"],
    "serve": SERVE["spec"]["rayClusterSpec"],
    "service": SERVICE["spec"]["rayClusterConfig"],
}
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
    (head, _) = pods_within(yaml.safe_load(yaml.safe_dump(TRAIN)))
    head["spec"]["containers"][0]["resources"]["request"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="request"):
        validate(as_pod(head))


@pytest.mark.parametrize("name", CLUSTERS)
def test_ray_reads_of_the_cluster_what_is_meant(name: str) -> None:
    """A head that trains and answers nothing, and workers of one GPU each: by Ray's own reader of KubeRay's objects."""
    reader = pytest.importorskip("ray.autoscaler._private.kuberay.autoscaling_config")
    cluster = CLUSTERS[name]
    whole = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": "one", "namespace": "default"},
        "spec": cluster,
    }
    types = reader._derive_autoscaling_config_from_ray_cr(whole)["available_node_types"]
    assert types["headgroup"]["resources"]["CPU"] == 0
    workers = types["gpus"]
    assert (workers["resources"]["GPU"], workers["resources"]["CPU"]) == (1, 8)
    (group,) = cluster["workerGroupSpecs"]
    assert 1 <= workers["min_workers"] == group["minReplicas"] <= group["replicas"] <= workers["max_workers"]


(HOSTS,) = JOB_SET["spec"]["replicatedJobs"]
COMMANDS = {
    "train-on-ray.yaml": (shlex.split(TRAIN["spec"]["entrypoint"])[2], {"--out", "--data", "--ray"}),
    "serve-on-ray.yaml": (
        shlex.split(SERVE["spec"]["entrypoint"])[2],
        {"--ray", "--hub", "--replicas", "--host", "--port"},
    ),
    "train-on-many-hosts.yaml": (
        HOSTS["template"]["spec"]["template"]["spec"]["containers"][0]["command"][2].removeprefix("exec "),
        {"--out", "--data", "--distributed", "--fsdp", "--stall-after"},
    ),
}


@pytest.mark.parametrize("file", COMMANDS)
def test_what_is_run_is_a_command_and_shares_a_disk(file: str, graftax: Graftax) -> None:
    line, own = COMMANDS[file]
    program, command, *words = shlex.split(line)
    assert (program, command) == ("graftax", file.partition("-")[0])
    told = graftax(command, "--help").out
    options = {word for word in words if word.startswith("-")}
    assert options == {"-b", *own}
    assert [option for option in options if not re.search(rf"(^|[\s,]){option}\b", told)] == []
    for pod in (pod for (other, _), one in OBJECTS.items() if other == file for pod in pods_within(one)):
        mounted = {volume["name"]: volume["mountPath"] for volume in pod["spec"]["containers"][0]["volumeMounts"]}
        assert all(word.startswith(mounted["work"]) for word in words if word.startswith("/"))
        (volume,) = (volume for volume in pod["spec"]["volumes"] if volume["name"] == "work")
        claimed = OBJECTS["train-on-ray.yaml", "PersistentVolumeClaim"]
        assert volume["persistentVolumeClaim"]["claimName"] == claimed["metadata"]["name"]
        assert claimed["spec"]["accessModes"] == ["ReadWriteMany"]


@pytest.mark.parametrize("sent", ["as it is", "by ray job submit"])
def test_rows_are_found_where_the_command_is_run(sent: str, tmp_path: Path) -> None:
    """Ray's command joins the words of what it is given again, so that a shell of its own must see the stars."""
    for name in ("data/one.csv", "data/two.csv", "bin/graftax"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('#!/bin/sh\necho "$@"\n', "utf-8")
    (tmp_path / "bin" / "graftax").chmod(0o755)
    line = TRAIN["spec"]["entrypoint"].replace("/shared", str(tmp_path))
    if sent == "by ray job submit":
        line = shlex.join(shlex.split(line))
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(line, shell=True, env=environment, capture_output=True, text=True, check=True)
    assert f"--data {tmp_path}/data/one.csv {tmp_path}/data/two.csv --out" in done.stdout


def test_a_job_set_is_what_its_models_know() -> None:
    """Nothing is lost on the way through them; and its job is what Kubernetes wants."""
    models = pytest.importorskip("kubeflow_trainer_api.models")
    assert models.JobsetV1alpha2JobSet.from_dict(JOB_SET).to_dict() == JOB_SET
    wrong = yaml.safe_load(yaml.safe_dump(JOB_SET))
    wrong["spec"]["failurePolicy"]["rules"][0]["onJobFailureReason"] = []
    assert models.JobsetV1alpha2JobSet.from_dict(wrong).to_dict() != wrong
    validate({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "one"}, **HOSTS["template"]})
    assert {rule["action"] for rule in JOB_SET["spec"]["failurePolicy"]["rules"]} <= {"FailJobSet", _AGAIN}


_AGAIN = "RestartJobSetAndIgnoreMaxRestarts"


def what_becomes_of(code: int | None) -> str:
    """What the job set does when a pod ends with a code, or (None) is taken away; reasons and messages are Kubernetes'."""
    reason, message = "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    for index, rule in enumerate(HOSTS["template"]["spec"]["podFailurePolicy"]["rules"]):
        codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions")
        said = f"Container train for pod default/one failed with exit code {code}"
        said = said if codes else "Pod default/one has condition DisruptionTarget"
        if (codes and code in codes["values"]) or (conditions and code is None):
            assert rule["action"] == "FailJob"
            reason, message = "PodFailurePolicy", f"{said} matching FailJob rule at index {index}"
            break
    for rule in JOB_SET["spec"]["failurePolicy"]["rules"]:
        if reason in rule["onJobFailureReasons"] and any(
            re.search(pattern, message) for pattern in rule["onJobFailureMessagePatterns"]
        ):
            return rule["action"]
    return "RestartJobSet"


def test_exit_codes_are_told_apart() -> None:
    """Preempted is not failed, and what was refused is not tried again. Codes are those of docs/cli.md."""
    table = (ROOT / "docs" / "cli.md").read_text("utf-8").partition("## Exit codes")[2]
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    assert codes == {0, 1, 2, 75, 124, 130}
    became = {code: what_becomes_of(code) for code in [*sorted(codes - {0}), 137, 143, None]}
    assert became == {
        1: "RestartJobSet",
        2: "FailJobSet",
        75: "RestartJobSet",
        124: "RestartJobSet",
        130: _AGAIN,
        137: "RestartJobSet",
        143: _AGAIN,
        None: _AGAIN,
    }


def test_hosts_are_as_many_everywhere() -> None:
    spec = HOSTS["template"]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    told = {one["name"]: one.get("value") for one in container["env"]}
    assert spec["parallelism"] == spec["completions"] == int(told["JAX_NUM_PROCESSES"])
    name = JOB_SET["metadata"]["name"]
    assert told["JAX_COORDINATOR_ADDRESS"].partition(":")[0] == f"{name}-{HOSTS['name']}-0-0.{name}"


def test_ray_has_one_version_everywhere() -> None:
    """In the image, in the cluster, and one that pyproject.toml takes."""
    (image,) = re.findall(r"^ARG RAY=(\S+)$", (DEPLOY / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    assert {cluster["rayVersion"] for cluster in CLUSTERS.values()} == {image}
    (least,) = {*re.findall(r'"ray\[serve\]>=([\d.]+)"', (ROOT / "pyproject.toml").read_text("utf-8"))}
    assert tuple(map(int, image.split("."))) >= tuple(map(int, least.split(".")))


def test_the_service_finds_every_pod_at_its_port() -> None:
    service = OBJECTS["serve-on-ray.yaml", "Service"]["spec"]
    (port,) = service["ports"]
    words = shlex.split(COMMANDS["serve-on-ray.yaml"][0])
    assert port["targetPort"] == int(words[words.index("--port") + 1])
    assert words[words.index("--host") + 1] == "0.0.0.0"
    for pod in pods_within(SERVE):
        assert service["selector"].items() <= pod["metadata"]["labels"].items()
        assert {one["containerPort"] for one in pod["spec"]["containers"][0]["ports"]} == {port["targetPort"]}
    fewest, most = words[words.index("--replicas") + 1].split("-")
    (group,) = SERVE["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert (group["minReplicas"], group["maxReplicas"]) == (int(fewest), int(most))  # one on each GPU


def test_ray_serve_reads_of_the_service_what_is_meant() -> None:
    """By its schema and by the reader of its arguments: the server of serve-on-ray.yaml, with one replica on each GPU."""
    schema = pytest.importorskip("ray.serve.schema")
    from graftax.cli import ray_service

    told = schema.ServeDeploySchema.model_validate(yaml.safe_load(SERVICE["spec"]["serveConfigV2"]))
    (one,) = told.applications
    module, _, function = one.import_path.partition(":")
    assert getattr(ray_service, function).__module__ == module
    words = shlex.split(COMMANDS["serve-on-ray.yaml"][0])
    replica = ray_service.application(one.args)._bound_deployment.init_args[0]._bound_deployment
    served = replica.init_args[0].__self__
    assert [served.backbone, served.hub] == [words[words.index(option) + 1] for option in ("-b", "--hub")]
    scaling = replica._deployment_config.autoscaling_config
    (group,) = SERVICE["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert (scaling.min_replicas, scaling.max_replicas) == (group["minReplicas"], group["maxReplicas"])
    assert replica.ray_actor_options["num_gpus"] == 1
    assert (told.http_options.host, told.proxy_location.value) == ("0.0.0.0", "EveryNode")
    for pod in pods_within(SERVICE):
        ports = {port["name"]: port["containerPort"] for port in pod["spec"]["containers"][0]["ports"]}
        assert ports["serve"] == told.http_options.port
        (volume,) = pod["spec"]["volumes"]
        claimed = OBJECTS["train-on-ray.yaml", "PersistentVolumeClaim"]
        assert volume["persistentVolumeClaim"]["claimName"] == claimed["metadata"]["name"]


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
