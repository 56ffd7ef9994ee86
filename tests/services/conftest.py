"""What the tests of services share: an S3-compatible server on this machine, and no way to another."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
REGION = "us-east-1"
EVERYTHING_IN_S3 = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}],
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test of this folder is one of services; pytest passes those of other folders as well."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker("services")


@dataclass(frozen=True)
class ObjectStore:
    """A running S3-compatible server and the one account that it has."""

    endpoint: str
    key_id: str
    secret: str
    region: str = REGION

    def client(self, service: str = "s3") -> Any:
        """boto3's client for the server, with the account."""
        import boto3

        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            aws_access_key_id=self.key_id,
            aws_secret_access_key=self.secret,
            region_name=self.region,
        )

    def bucket(self, name: str) -> str:
        """Makes an empty bucket; returns ``s3://name``."""
        self.client().create_bucket(Bucket=name)
        return f"s3://{name}"


@pytest.fixture(scope="session", autouse=True)
def nothing_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The user's accounts and settings of AWS and of DVC count for nothing here, nor do proxies."""
    nowhere = tmp_path_factory.mktemp("nowhere")
    with pytest.MonkeyPatch.context() as env:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            env.delenv(name)
        env.setenv("AWS_CONFIG_FILE", str(nowhere / "config"))
        env.setenv("AWS_SHARED_CREDENTIALS_FILE", str(nowhere / "credentials"))
        env.setenv("AWS_EC2_METADATA_DISABLED", "true")
        for name in ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR", "DVC_SITE_CACHE_DIR"):
            env.setenv(name, str(nowhere / name.lower()))
        for name in ("NO_PROXY", "no_proxy"):
            env.setenv(name, "127.0.0.1,localhost")
        yield


@pytest.fixture(scope="session")
def object_store(nothing_of_the_user: None) -> Iterator[ObjectStore]:
    """moto's server of S3 on a free port of 127.0.0.1, which checks signatures as Amazon's does.

    What is in it goes with the session.
    """
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    # moto believes everybody until it is told not to: the time to make an account.
    iam = ObjectStore(endpoint, "anybody", "anything").client("iam")
    iam.create_user(UserName="deepcustom")
    iam.put_user_policy(
        UserName="deepcustom", PolicyName="s3", PolicyDocument=json.dumps(EVERYTHING_IN_S3)
    )
    key = iam.create_access_key(UserName="deepcustom")["AccessKey"]
    suspicious = urllib.request.Request(
        f"{endpoint}/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"}
    )
    urllib.request.urlopen(suspicious).close()
    yield ObjectStore(endpoint, key["AccessKeyId"], key["SecretAccessKey"])
    server.stop()
