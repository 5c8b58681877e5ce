"""cluster.yaml and kuberay.yaml: what Ray, AWS (moto's EC2 and IAM, in this process) and the configs make of them. No machine is started."""

import copy
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from ray.autoscaler._private import commands
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config, validate_config

from pipeline.config import Config, load
from ray_jobs.cluster import fit

ROOT = Path(__file__).parents[2]
HEAD = "headgroup"
"""What KubeRay calls the head's type."""
WITH_COMPILER = "-gpu"
"""How Ray's images end from which the compiler is not taken away again (docker/base-deps/Dockerfile of Ray's repository)."""
KARPENTERS_SHARE = 0.925
"""Of a machine's memory, what Karpenter counts on before one has joined."""
PODS = {"m6id.2xlarge": 58, "c6id.8xlarge": 234, "p5.48xlarge": 100}
"""How many a machine takes on EKS: for each the kubelet keeps 11 MiB, beside 355."""
KEYS = '< <(grep -E "^[A-Za-z_][A-Za-z0-9_]*=" ~/.longthought.env)'
"""Where a machine reads its keys."""
OF_PLACE = {"head", "port", "address", "autoscaling-config", "dashboard-host"}
"""Options of `ray start` that tell where it is."""


@pytest.fixture
def machines() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    return loaded


@pytest.fixture
def pods() -> list[dict[str, Any]]:
    return list(yaml.safe_load((ROOT / "kuberay.yaml").read_text())["items"])


def start_options(words: list[str]) -> dict[str, str]:
    """What `ray start` is told that must be the same everywhere: the dashboard alone listens elsewhere in a pod."""
    options = dict(re.findall(r"--([\w-]+)=?(\S*)", " ".join(words)))
    return {name: text for name, text in options.items() if name not in OF_PLACE}


def environment(command: str) -> tuple[str, str, str]:
    """Python and extra of `.ci/setup`, and the folder it is called in."""
    found = re.search(r"cd (\S+) && .*\.ci/setup python(\S+) (\w+)", command)
    assert found, command
    return found[2], found[3], found[1]


def log_place(command: str) -> str:
    """From where to where logs go, without the machine's own name."""
    found = re.search(r"s3 sync --only-show-errors (\S+) \"(s3://\S+?)/\$", command)
    assert found, command
    return f"{found[1]} -> {found[2]}"


def of_machines(config: dict[str, Any]) -> dict[str, Any]:
    """Everything about cluster.yaml that kuberay.yaml must say too."""
    prepared = prepare_config(copy.deepcopy(config))
    facts: dict[str, Any] = {"idle minutes": config["idle_timeout_minutes"], "token": "token"}
    for name, kind in prepared["available_node_types"].items():
        type_name = HEAD if name == config["head_node_type"] else name
        facts[f"{type_name}: machine"] = kind["node_config"]["InstanceType"]
        facts[f"{type_name}: spot"] = "InstanceMarketOptions" in kind["node_config"]
        facts[f"{type_name}: workers"] = (kind["min_workers"], kind["max_workers"])
        facts[f"{type_name}: resources"] = kind["resources"]
        facts[f"{type_name}: labels"] = kind.get("labels", {})
        role = "head" if type_name == HEAD else "worker"
        setup = " ; ".join(prepared[f"{role}_setup_commands"])
        start = prepared[f"{role}_start_ray_commands"][-1]
        facts[f"{type_name}: environment"] = environment(setup)
        facts[f"{type_name}: logs"] = log_place(setup)
        facts[f"{type_name}: ray start"] = start_options(shlex.split(start[start.index("ray start") :]))
        facts[f"{type_name}: compiler"] = "gcc-c++" in setup
        facts[f"{type_name}: threads"] = "Ray's" if "unset OMP_NUM_THREADS;" in start else "one"
        facts[f"{type_name}: secrets"] = ".longthought.env" if KEYS in start else None
        assert "RAY_AUTH_MODE=token" in setup
        facts[f"{type_name}: stop"] = re.findall(r"RAY_JOB_STOP_WAIT_TIME_S=(\d+)", setup)
    return facts


def of_pods(item: dict[str, Any]) -> dict[str, Any]:
    """The same of a RayJob's or RayService's cluster; its resources are what Ray's own autoscaler reads in it."""
    spec = item["spec"].get("rayClusterSpec") or item["spec"]["rayClusterConfig"]
    assert spec["enableInTreeAutoscaling"]
    read = _derive_autoscaling_config_from_ray_cr({"metadata": {"namespace": "default", "name": "x"}, "spec": spec})
    facts: dict[str, Any] = {"idle minutes": read["idle_timeout_minutes"], "token": spec["authOptions"]["mode"]}
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        name = group.get("groupName", HEAD)
        node = group["template"]["spec"]
        ray, logs = node["containers"]
        kind = read["available_node_types"][name]
        assert group["template"]["metadata"]["annotations"] == {"ray.io/overwrite-container-cmd": "true"}
        facts[f"{name}: machine"] = node["nodeSelector"]["node.kubernetes.io/instance-type"]
        facts[f"{name}: spot"] = node["nodeSelector"].get("karpenter.sh/capacity-type") == "spot"
        facts[f"{name}: workers"] = (kind["min_workers"], kind["max_workers"])
        facts[f"{name}: resources"] = kind["resources"]
        facts[f"{name}: labels"] = kind["labels"]
        facts[f"{name}: environment"] = environment(node["initContainers"][0]["args"][0])
        facts[f"{name}: logs"] = log_place(logs["args"][0])
        started = {key: text for key, text in group["rayStartParams"].items() if key not in OF_PLACE}
        facts[f"{name}: ray start"] = started
        images = (node["initContainers"][0]["image"], ray["image"])
        facts[f"{name}: compiler"] = all(image.endswith(WITH_COMPILER) for image in images)
        facts[f"{name}: threads"] = "one" if any(each["name"] == "OMP_NUM_THREADS" for each in ray["env"]) else "Ray's"
        secret = ray["envFrom"][0]["secretRef"]["name"]
        facts[f"{name}: secrets"] = ".longthought.env" if secret == "longthought-keys" else None
        facts[f"{name}: stop"] = [each["value"] for each in ray["env"] if each["name"] == "RAY_JOB_STOP_WAIT_TIME_S"]
    return facts


def differences(machines: dict[str, Any], item: dict[str, Any]) -> list[str]:
    here, there = of_machines(machines), of_pods(item)
    return [name for name in sorted(here.keys() | there.keys()) if here.get(name) != there.get(name)]


def test_ray_up_completes_the_file_and_starts_nothing(aws: None, machines: dict[str, Any]) -> None:
    validate_config(prepare_config(copy.deepcopy(machines)))
    complete = commands._bootstrap_config(copy.deepcopy(machines), no_config_cache=True)
    ec2 = boto3.client("ec2", region_name="us-west-2")
    keys = {key["KeyName"] for key in ec2.describe_key_pairs()["KeyPairs"]}
    for name, kind in complete["available_node_types"].items():
        node = kind["node_config"]
        assert node["SubnetIds"] and node["SecurityGroupIds"] and node["KeyName"] in keys
        assert node["ImageId"].startswith("resolve:ssm:/aws/service/")
        assert node["IamInstanceProfile"] == {"Name": "YOUR-HEAD-PROFILE" if name == "head" else "YOUR-WORKER-PROFILE"}
        assert kind["resources"] == machines["available_node_types"][name]["resources"]
    assert Path(complete["auth"]["ssh_private_key"]).stat().st_mode & 0o77 == 0
    assert ec2.describe_instances()["Reservations"] == []


def test_a_planted_key_that_ray_does_not_know_is_refused(machines: dict[str, Any]) -> None:
    machines["idle_timeout"] = 10
    with pytest.raises(Exception, match="idle_timeout"):
        validate_config(prepare_config(machines))


def test_the_machines_have_what_the_file_says_of_them(aws: None, machines: dict[str, Any]) -> None:
    said = {name: kind["resources"] for name, kind in machines["available_node_types"].items()}
    unsaid = copy.deepcopy(machines)
    for name, kind in unsaid["available_node_types"].items():
        kind["resources"] = {} if name != "head" else said[name]
    found = commands._bootstrap_config(unsaid, no_config_cache=True)["available_node_types"]
    for name, resources in said.items():
        detected = found[name]["resources"]
        assert resources.pop("memory", 0) <= detected.pop("memory", 0)  # Ray keeps the rest for objects and the system
        assert resources == detected


def test_the_head_prepares_the_file_again_and_its_workers_are_set_up_as_written(machines: dict[str, Any]) -> None:
    once = prepare_config(copy.deepcopy(machines))
    twice = prepare_config(copy.deepcopy(once))
    assert once["worker_setup_commands"] == twice["worker_setup_commands"] == machines["head_setup_commands"]


def test_every_command_is_one_that_bash_reads(machines: dict[str, Any], pods: list[dict[str, Any]]) -> None:
    node = pods[0]["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    texts = [box["args"][0] for box in (*node["initContainers"], *node["containers"])]
    texts += [text for name, group in machines.items() if name.endswith("_commands") for text in group]
    assert len(texts) > 10
    for text in texts:
        subprocess.run(["bash", "-n", "-c", f"({text})"], check=True)


def test_secrets_that_others_can_read_are_refused(machines: dict[str, Any], tmp_path: Path) -> None:
    check = machines["head_setup_commands"][0]
    (tmp_path / ".ray").mkdir()
    for name in (".longthought.env", ".ray/auth_token"):
        (tmp_path / name).write_text("# mine\n\nKEY=x y")
        (tmp_path / name).chmod(0o600)

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", check], env={**os.environ, "HOME": str(tmp_path)}, capture_output=True, text=True
        )

    assert run().returncode == 0
    for name in (".longthought.env", ".ray/auth_token"):
        (tmp_path / name).chmod(0o640)
        assert run().returncode == 1 and "chmod 600" in run().stdout
        (tmp_path / name).chmod(0o600)
    for line in ("export KEY=secret", "  KEY=secret", "KEY='secret'", 'KEY="secret"', "KEY= secret", "secret", "KEY="):
        (tmp_path / ".longthought.env").write_text(f"ONE=x\n{line}\n")
        refused = run()
        assert (
            refused.returncode == 1 and ", line 2: write NAME=key" in refused.stdout and "secret" not in refused.stdout
        )


def test_a_key_may_have_any_character_of_a_shells_and_is_shown_nowhere(
    machines: dict[str, Any], tmp_path: Path
) -> None:
    keys = {"ONE": "two words", "TWO": "a$b&c;`d`$(e)", "THREE": "q'uot\"ed=", "FOUR": "the last"}
    (tmp_path / ".longthought.env").write_text("# keys\n\n" + "\n".join(f"{name}={key}" for name, key in keys.items()))
    for start in (machines["head_start_ray_commands"][-1], machines["worker_start_ray_commands"][-1]):
        limit, _, rest = start.partition(";")
        assert limit == "ulimit -n 65536"
        script = f"{rest[: rest.index('ray start')]} env -0"
        ran = subprocess.run(
            ["bash", "-c", script], env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]}, capture_output=True
        )
        assert ran.returncode == 0 and ran.stderr == b""
        there = dict(entry.split("=", 1) for entry in ran.stdout.decode().split("\0") if entry)
        assert there.items() >= keys.items()


def test_token_and_keys_reach_every_node_and_the_dashboard_listens_on_loopback(machines: dict[str, Any]) -> None:
    assert {"~/.ray/auth_token", "~/.longthought.env"} <= machines["file_mounts"].keys()
    assert "--dashboard-host=127.0.0.1" in machines["head_start_ray_commands"][-1]
    for local in set(machines["file_mounts"].values()) - {"~/.ray/auth_token", "~/.longthought.env"}:
        assert (ROOT / local).exists(), local


def test_the_policies_are_ones_that_iam_takes(aws: None, machines: dict[str, Any]) -> None:
    iam = boto3.client("iam", region_name="us-west-2")
    for name, policy in machines["metadata"].items():
        text = json.dumps(policy).replace("YOUR-ACCOUNT", "123456789012").replace("YOUR-BUCKET", "bucket")
        iam.create_policy(PolicyName=name, PolicyDocument=text)
        of_clusters = re.findall(r'"ec2:ResourceTag/ray-cluster-name": "(.*?)"', text)
        assert set(of_clusters) == ({machines["cluster_name"]} if name == "head_policy" else set())
    with pytest.raises(Exception, match="Syntax errors in policy"):
        iam.create_policy(PolicyName="planted", PolicyDocument=text.replace("Effect", "Efect"))


def test_pods_and_machines_are_the_same(machines: dict[str, Any], pods: list[dict[str, Any]]) -> None:
    assert [item["kind"] for item in pods] == ["RayJob", "RayService"]
    for item in pods:
        assert differences(machines, item) == []


def plant(path: str, value: Any, item: Any) -> None:
    """Set a value of nested dicts and lists."""
    *way, last = [int(step) if step.isdecimal() else step for step in path.split("/")]
    for step in way:
        item = item[step]
    item[last] = value


@pytest.mark.parametrize(
    "path, value, found",
    [
        ("available_node_types/cpu/max_workers", 17, "cpu: workers"),
        ("available_node_types/gpu/resources/GPU", 4, "gpu: resources"),
        ("available_node_types/gpu/resources/memory", 1, "gpu: resources"),
        ("available_node_types/head/resources/CPU", 8, f"{HEAD}: resources"),
        ("available_node_types/cpu/labels/longthought", "gpu", "cpu: labels"),
        ("available_node_types/gpu/node_config/InstanceType", "p5en.48xlarge", "gpu: machine"),
        ("available_node_types/gpu/node_config/InstanceMarketOptions", {"MarketType": "spot"}, "gpu: spot"),
        ("idle_timeout_minutes", 5, "idle minutes"),
        ("worker_setup_commands/3", "cd ~/longthought && .ci/setup python3.12 gpu", "cpu: environment"),
        ("head_start_ray_commands/1", f"{KEYS}; ray start --head", f"{HEAD}: ray start"),
        ("worker_start_ray_commands/1", "ray start --address=x", "gpu: secrets"),
        ("worker_start_ray_commands/1", f"{KEYS}; ray start --address=x", "cpu: threads"),
        ("head_setup_commands/1", "true", f"{HEAD}: compiler"),
    ],
)
def test_a_planted_difference_is_found(
    machines: dict[str, Any], pods: list[dict[str, Any]], path: str, value: Any, found: str
) -> None:
    changed = copy.deepcopy(machines)
    changed["worker_setup_commands"] = list(changed["worker_setup_commands"])
    plant(path, value, changed)
    assert found in differences(changed, pods[0])


def test_a_pod_fits_the_machine_it_is_for(aws: None, pods: list[dict[str, Any]]) -> None:
    spec = pods[0]["spec"]["rayClusterSpec"]
    ec2 = boto3.client("ec2", region_name="us-west-2")
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        node = group["template"]["spec"]
        machine = node["nodeSelector"]["node.kubernetes.io/instance-type"]
        size = ec2.describe_instance_types(InstanceTypes=[machine])["InstanceTypes"][0]
        wanted = [box["resources"]["requests"] for box in node["containers"]]
        cpus = sum(float(one["cpu"].removesuffix("m")) / (1000 if one["cpu"].endswith("m") else 1) for one in wanted)
        gib = {"Gi": 1.0, "Mi": 1 / 1024}
        memory = sum(float(one["memory"][:-2]) * gib[one["memory"][-2:]] for one in wanted)
        left = KARPENTERS_SHARE * size["MemoryInfo"]["SizeInMiB"] - (355 + 11 * PODS[machine])
        assert cpus < size["VCpuInfo"]["DefaultVCpus"] and memory < left / 1024, (machine, memory, left / 1024)
        tasks, pod = (float(size[:-2]) for size in (group["resources"].get("memory", "0Gi"), wanted[0]["memory"]))
        assert tasks < 0.75 * pod and tasks + min(0.3 * pod, 186) <= pod  # Ray's share for objects, 200 GB at most
        gpus = node["containers"][0]["resources"]["limits"].get("nvidia.com/gpu", 0)
        assert (
            gpus
            == int(group["resources"].get("GPU", 0))
            == sum(gpu["Count"] for gpu in size.get("GpuInfo", {}).get("Gpus", []))
        )


def test_both_files_name_the_versions_that_are_pinned(machines: dict[str, Any], pods: list[dict[str, Any]]) -> None:
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "configs/requirements-gpu.txt").read_text(), re.MULTILINE))
    python = re.search(r"--python-version (\S+)", (ROOT / ".ci/lock").read_text())
    assert python
    text = (ROOT / "kuberay.yaml").read_text()
    assert set(re.findall(r"rayproject/ray:(\S+)", text)) == {f"{pinned['ray']}-py{python[1].replace('.', '')}-gpu"}
    assert pods[0]["spec"]["rayClusterSpec"]["rayVersion"] == pinned["ray"]
    assert {environment(found)[0] for found in machines["head_setup_commands"] if ".ci/setup" in found} == {python[1]}
    assert f"python{python[1]}-devel" in machines["head_setup_commands"][1]


Need = tuple[int, dict[str, float]]


def needs(config: Config) -> dict[str, list[Need]]:
    """What each stage wants at once: so many of such workers."""
    serve, train = config.serve, config.train
    a_task: Need = (1, {"CPU": 1.0})
    stages: dict[str, list[Need]] = {
        stage: [(getattr(config, stage).actors, {"CPU": getattr(config, stage).actor_cpus}), a_task]
        for stage in ("curate", "reformat", "distill", "verify")
    }
    worker = {"CPU": train.worker_cpus, "GPU": train.worker_gpus, f"accelerator_type:{train.accelerator_type}": 0.001}
    stages["train"] = [(train.workers, worker)]
    replica: Need = (len(serve.models) * serve.replicas, {"CPU": serve.replica_cpus, "GPU": serve.replica_gpus})
    stages["serve"] = [replica]
    asking: Need = (config.evaluate.actors, {"CPU": config.evaluate.actor_cpus})
    stages["evaluate"] = [replica, asking, a_task]
    return stages


def fits(wanted: list[Need], types: dict[str, Any]) -> bool:
    """Whether all find room on as many nodes of each type as there may be."""
    nodes = [kind["resources"] for kind in types.values() for _ in range(kind.get("max_workers", 0))]
    return fit([worker for count, worker in wanted for _ in range(count)], nodes)


def test_the_papers_run_finds_room_for_each_stage_and_none_on_the_head(machines: dict[str, Any]) -> None:
    types = machines["available_node_types"]
    config = load(str(ROOT / "configs/paper_72b.yaml"), [])
    for stage, wanted in needs(config).items():
        assert fits(wanted, types), stage
    assert not fits(needs(load(str(ROOT / "configs/paper_72b.yaml"), ["train.workers=36"]))["train"], types)
    assert not fits(needs(load(str(ROOT / "configs/paper_72b.yaml"), ["train.accelerator_type=H200"]))["train"], types)
    assert not fits([(1, {"CPU": 1.0})], {"head": types["head"]})
    assert machines["max_workers"] == sum(kind.get("max_workers", 0) for kind in types.values())
    assert config.cluster.wait_s >= 1800  # a node is set up in minutes
    of_cpus = {name: kind for name, kind in types.items() if kind.get("labels") == config.cluster.cpu_node_labels}
    assert list(of_cpus) == ["cpu"]
    for stage, wanted in needs(config).items():
        without_gpus = [need for need in wanted if not need[1].get("GPU")]
        assert fits(without_gpus, of_cpus), stage


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_a_run_serves_is_put_into_the_service_by_the_command_that_the_file_names() -> None:
    from ray.serve.schema import ServeDeploySchema

    snippet = re.search(
        r'python -c "\n(.*?)" \|',
        re.sub(r"^#   ", "", (ROOT / "kuberay.yaml").read_text(), flags=re.MULTILINE),
        re.DOTALL,
    )
    assert snippet
    deployed = {
        "proxy_location": "EveryNode",
        "http_options": {"host": "0.0.0.0", "port": 8000},
        "applications": [{"name": "x", "route_prefix": "/", "import_path": "ray_jobs.ingress:build", "args": {}}],
    }
    done = subprocess.run(
        [sys.executable, "-c", snippet[1]],
        input=yaml.safe_dump(deployed),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    service = yaml.safe_load(done.stdout)
    assert service["kind"] == "RayService"
    assert (
        ServeDeploySchema.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"])).applications[0].name == "x"
    )


def test_the_job_is_the_one_that_the_readme_submits(pods: list[dict[str, Any]]) -> None:
    submitted = pods[0]["spec"]["entrypoint"].replace("/home/ray/longthought/", "")
    assert f"  {submitted}\n" in (ROOT / "README.md").read_text()
