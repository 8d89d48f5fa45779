"""Ray's AWS launcher against a moto server: prints what it made. A process of its own, for Amazon's settings are global."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import boto3
import yaml
from moto.server import ThreadedMotoServer
from ray.autoscaler._private.commands import _bootstrap_config, teardown_cluster
from ray.autoscaler._private.providers import _get_node_provider
from ray.autoscaler.tags import TAG_RAY_NODE_KIND, TAG_RAY_NODE_NAME, TAG_RAY_USER_NODE_TYPE

EC2_MAY_BE_IT = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}


def main(file: Path) -> None:
    """What `ray up FILE` does up to the first login, the launch of one machine of each kind, and `ray down`."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    os.environ["AWS_ENDPOINT_URL"] = "http://{}:{}".format(*server.get_host_and_port())
    ec2, iam = boto3.client("ec2"), boto3.client("iam")
    for role, policies in {"tav-head": ("head", "s3"), "tav-gpu": ("s3",)}.items():  # as the operator makes them
        iam.create_role(RoleName=role, AssumeRolePolicyDocument=json.dumps(EC2_MAY_BE_IT))
        for policy in policies:
            document = (file.parent / f"{policy}.json").read_text()
            iam.put_role_policy(RoleName=role, PolicyName=policy, PolicyDocument=document)
        iam.create_instance_profile(InstanceProfileName=role)
        iam.add_role_to_instance_profile(InstanceProfileName=role, RoleName=role)
    config = yaml.safe_load(file.read_text())
    image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    for kind in config["available_node_types"].values():
        kind["node_config"]["ImageId"] = image
    cluster = _bootstrap_config(config, no_config_cache=True)
    provider = _get_node_provider(cluster["provider"], cluster["cluster_name"])
    for name, kind in cluster["available_node_types"].items():
        role = "head" if name == cluster["head_node_type"] else "worker"
        tags = {TAG_RAY_NODE_KIND: role, TAG_RAY_USER_NODE_TYPE: name, TAG_RAY_NODE_NAME: f"ray-tav-{role}"}
        provider.create_node(kind["node_config"], tags, 1)
    group = ec2.describe_security_groups(GroupNames=["ray-autoscaler-tav"])["SecurityGroups"][0]
    seen = {
        "machines": {machine["tags"]["ray-user-node-type"]: machine for machine in map(described, instances(ec2))},
        "group": group["GroupId"],
        "open": [[rule["FromPort"], rule["ToPort"]] for rule in group["IpPermissions"] if rule["IpRanges"]],
        "within": [pair["GroupId"] for rule in group["IpPermissions"] for pair in rule["UserIdGroupPairs"]],
        "roles": [role["RoleName"] for role in iam.list_roles()["Roles"]],
        "resources": {name: kind["resources"] for name, kind in cluster["available_node_types"].items()},
    }
    file.write_text(yaml.safe_dump(config))
    teardown_cluster(str(file), yes=True, workers_only=False, override_cluster_name=None, keep_min_workers=False)
    seen["after_down"] = [described(machine) for machine in instances(ec2) if machine["State"]["Name"] == "running"]
    server.stop()
    print(json.dumps(seen), flush=True)


def instances(ec2: Any) -> list[dict[str, Any]]:
    """Every machine there is."""
    return [machine for lot in ec2.describe_instances()["Reservations"] for machine in lot["Instances"]]


def described(machine: dict[str, Any]) -> dict[str, Any]:
    """What of it the test looks at."""
    return {
        "type": machine["InstanceType"],
        "lifecycle": machine.get("InstanceLifecycle"),
        "profile": machine["IamInstanceProfile"]["Arn"].rpartition("/")[2],
        "tags": {tag["Key"]: tag["Value"] for tag in machine["Tags"]},
        "tokens": machine["MetadataOptions"]["HttpTokens"],
        "groups": [group["GroupName"] for group in machine["SecurityGroups"]],
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
