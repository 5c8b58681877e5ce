"""configs/aws_roles.py: roles and instance profiles for cluster.yaml's nodes, on moto's IAM in this process."""

import json
import re
import runpy
import sys
from pathlib import Path

import boto3
import pytest
import yaml
from ray.autoscaler._private import commands
from small import REPO


def roles(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["aws_roles.py", str(path)])
    runpy.run_path(str(REPO / "configs/aws_roles.py"), run_name="__main__")


def test_the_roles_of_the_nodes_are_made_once_with_their_policies(
    aws: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = tmp_path / "cluster.yaml"
    text = (REPO / "cluster.yaml").read_text().replace("YOUR-ACCOUNT", "123456789012")
    for name, filled in (("HEAD-PROFILE", "the-head"), ("WORKER-PROFILE", "a-worker"), ("BUCKET", "bucket")):
        text = text.replace(f"YOUR-{name}", filled)
    named.write_text(text)
    roles(named, monkeypatch)
    roles(named, monkeypatch)
    iam = boto3.client("iam", region_name="us-west-2")
    for name, policies in (("the-head", {"head_policy", "bucket_policy"}), ("a-worker", {"bucket_policy"})):
        (role,) = iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]["Roles"]
        assert role["RoleName"] == name and set(iam.list_role_policies(RoleName=name)["PolicyNames"]) == policies
    passed = iam.get_role_policy(RoleName="the-head", PolicyName="head_policy")["PolicyDocument"]
    assert iam.get_role(RoleName="a-worker")["Role"]["Arn"] in json.dumps(passed)
    up = commands._bootstrap_config(yaml.safe_load(text), no_config_cache=True)["available_node_types"]
    wanted = {kind["node_config"]["IamInstanceProfile"]["Name"] for kind in up.values()}
    made = {profile["InstanceProfileName"] for profile in iam.list_instance_profiles()["InstanceProfiles"]}
    assert wanted == made == {"the-head", "a-worker"}


def test_roles_are_not_made_for_names_that_are_not_filled_in(
    aws: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        roles(REPO / "cluster.yaml", monkeypatch)
    assert ended.value.code == 2 and "still says YOUR-" in capsys.readouterr().err


def test_a_profile_with_another_role_and_an_account_without_keys_are_refused(
    aws: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    named = tmp_path / "cluster.yaml"
    named.write_text(re.sub("YOUR-([A-Z-]+)", r"\1", (REPO / "cluster.yaml").read_text()))
    iam = boto3.client("iam", region_name="us-west-2")
    iam.create_role(RoleName="another", AssumeRolePolicyDocument="{}")
    iam.create_instance_profile(InstanceProfileName="WORKER-PROFILE")
    iam.add_role_to_instance_profile(InstanceProfileName="WORKER-PROFILE", RoleName="another")

    def refusal(path: Path) -> str:
        with pytest.raises(SystemExit) as ended:
            roles(path, monkeypatch)
        assert ended.value.code == 2
        return capsys.readouterr().err

    assert refusal(named) == (
        "error: the instance profile WORKER-PROFILE holds another role, another: give it another name in cluster.yaml\n"
    )
    assert "No such file" in refusal(tmp_path / "none.yaml")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    assert refusal(named) == "error: Unable to locate credentials\n"
