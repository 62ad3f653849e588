"""Makes the region of a plan in the lab's cloud, by the same API calls over HTTP that a person would make with boto3."""

from __future__ import annotations

from typing import Any

from haptk.errors import AwsError, AwsUnreachable
from haptk.lab import token
from haptk.lab.plan import Address, AddressPlan, Instance, InstancePlan, Plan, Region, Subnet

IMAGE_ID = "ami-0123456789abcdef0"
INSTANCE_TYPE = "t3.micro"


def ec2_client(endpoint_url: str, region: str, access_key_id: str = "", secret: str = "lab") -> Any:  # noqa: S107
    """A boto3 EC2 client for the lab's API, that reads no configuration of the user and gives up after seconds."""
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=2, read_timeout=30, retries={"mode": "standard", "total_max_attempts": 3}, proxies={}
    )
    key = access_key_id or token.access_key_id("admin")
    session = boto3.session.Session(aws_access_key_id=key, aws_secret_access_key=secret, region_name=region)
    return session.client("ec2", endpoint_url=endpoint_url, config=config)


def seed(endpoint_url: str, plan: Plan, ec2: Any = None) -> Region:
    """Make VPC, subnets, instances and addresses; about ten calls of 10 ms each, with `ec2` or a client of its own.

    Raises OperatorError for a plan that cannot be, AwsUnreachable or AwsError when the cloud does not do its part.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    plan.check()
    try:
        return _make(ec2 or ec2_client(endpoint_url, plan.region), plan)
    except ClientError as error:
        raise AwsError(action=error.operation_name, target=plan.region, why=str(error)) from error
    except BotoCoreError as error:
        raise AwsUnreachable(action="seed", target=plan.region, endpoint=endpoint_url, why=str(error)) from error


def _tags(kind: str, name: str, more: tuple[tuple[str, str], ...] = ()) -> list[dict[str, Any]]:
    pairs = (("Name", name), *more)
    return [{"ResourceType": kind, "Tags": [{"Key": key, "Value": value} for key, value in pairs]}]


def _make(ec2: Any, plan: Plan) -> Region:
    vpc = ec2.create_vpc(CidrBlock=plan.vpc_cidr, TagSpecifications=_tags("vpc", "haptk-lab"))["Vpc"]
    subnets = {}
    for wanted in plan.subnets:
        made = ec2.create_subnet(
            VpcId=vpc["VpcId"],
            CidrBlock=wanted.cidr,
            AvailabilityZone=plan.region + wanted.availability_zone,
            TagSpecifications=_tags("subnet", wanted.name),
        )["Subnet"]
        subnets[wanted.name] = Subnet(wanted.name, made["SubnetId"], made["CidrBlock"], made["AvailabilityZone"])
    instances = {wanted.name: _run(ec2, wanted, subnets[wanted.subnet]) for wanted in plan.instances}
    addresses = tuple(_allocate(ec2, wanted, instances) for wanted in plan.addresses)
    return Region(
        region=plan.region,
        account_id=vpc["OwnerId"],
        vpc_id=vpc["VpcId"],
        vpc_cidr=vpc["CidrBlock"],
        subnets=tuple(subnets.values()),
        instances=tuple(instances.values()),
        addresses=addresses,
    )


def _run(ec2: Any, wanted: InstancePlan, subnet: Subnet) -> Instance:
    made = ec2.run_instances(
        ImageId=IMAGE_ID,
        InstanceType=INSTANCE_TYPE,
        MinCount=1,
        MaxCount=1,
        NetworkInterfaces=[{"DeviceIndex": 0, "SubnetId": subnet.subnet_id, "PrivateIpAddress": wanted.private_ip}],
        MetadataOptions={"HttpTokens": "required", "HttpEndpoint": "enabled"},
        TagSpecifications=_tags("instance", wanted.name, wanted.tags),
    )["Instances"][0]
    interface = made["NetworkInterfaces"][0]
    if wanted.secondary_ips:
        ec2.assign_private_ip_addresses(
            NetworkInterfaceId=interface["NetworkInterfaceId"], PrivateIpAddresses=list(wanted.secondary_ips)
        )
    return Instance(
        name=wanted.name,
        instance_id=made["InstanceId"],
        network_interface_id=interface["NetworkInterfaceId"],
        mac=interface["MacAddress"],
        private_ip=made["PrivateIpAddress"],
        secondary_ips=wanted.secondary_ips,
        subnet_id=subnet.subnet_id,
        subnet_cidr=subnet.cidr,
        availability_zone=subnet.availability_zone,
        security_group=interface["Groups"][0]["GroupName"],
        image_id=IMAGE_ID,
        instance_type=INSTANCE_TYPE,
        launch_time=made["LaunchTime"].strftime("%Y-%m-%dT%H:%M:%SZ"),
        access_key_id=wanted.access_key_id,
        secret_access_key=wanted.secret_access_key,
        role=wanted.role,
    )


def _allocate(ec2: Any, wanted: AddressPlan, instances: dict[str, Instance]) -> Address:
    made = ec2.allocate_address(
        Domain="vpc", Address=wanted.public_ip, TagSpecifications=_tags("elastic-ip", wanted.name, wanted.tags)
    )
    if wanted.holder is not None:
        ec2.associate_address(
            AllocationId=made["AllocationId"],
            NetworkInterfaceId=instances[wanted.holder].network_interface_id,
            AllowReassociation=False,
        )
    return Address(wanted.name, made["PublicIp"], made["AllocationId"])
