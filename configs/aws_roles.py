"""Makes the roles and instance profiles that cluster.yaml names, with the policies of its `metadata`: once for an AWS account.

    python configs/aws_roles.py cluster.yaml

What is there already stays; its policies are written anew. AWS is asked as by its own tools. The caller needs the rights to make roles.
"""

import json
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import boto3
import yaml
from botocore.exceptions import BotoCoreError, ClientError

TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}


def main(path: str) -> None:
    """Make them."""
    text = Path(path).read_text("utf-8")
    if blank := re.search(r"YOUR-[A-Z]+", text):
        _refuse(f"{path} still says {blank[0]}: fill in the names in capitals first")
    cluster = yaml.safe_load(text)
    policies = cluster["metadata"]
    iam = boto3.client("iam")
    with suppress(iam.exceptions.InvalidInputException, iam.exceptions.EntityAlreadyExistsException):
        iam.create_service_linked_role(AWSServiceName="spot.amazonaws.com")
    for kind, node in cluster["available_node_types"].items():
        name = node["node_config"]["IamInstanceProfile"]["Name"]
        names = ("head_policy", "bucket_policy") if kind == cluster["head_node_type"] else ("bucket_policy",)
        _make(iam, name, {policy: policies[policy] for policy in names})
        print(f"{kind}: role and instance profile {name}, with {' and '.join(names)}")


def _make(iam: Any, name: str, policies: dict[str, Any]) -> None:
    there = iam.exceptions.EntityAlreadyExistsException
    with suppress(there):
        iam.create_instance_profile(InstanceProfileName=name)
    held = [role["RoleName"] for role in iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]["Roles"]]
    if held not in ([], [name]):
        _refuse(f"the instance profile {name} holds another role, {held[0]}: give it another name in cluster.yaml")
    with suppress(there):
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(TRUST))
    for policy, document in policies.items():
        iam.put_role_policy(RoleName=name, PolicyName=policy, PolicyDocument=json.dumps(document))
    if not held:
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)


def _refuse(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        main(sys.argv[1])
    except (OSError, BotoCoreError, ClientError) as error:
        _refuse(str(error))
