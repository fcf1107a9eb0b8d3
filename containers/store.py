"""The bucket, and a user of the store for each role with no more rights than it needs.

    user             objects
    twofold-stream   all but landing/, the inboxes, where files come from
    twofold-airflow  all
    twofold-reader   reads

Users and policies are MinIO's, by its admin API; of another store only the bucket is made. Safe to repeat, and done at
every start, so that a changed secret takes effect. The producer has no user: it knows nothing of the store.

Run manually: `docker compose run --rm store-setup`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import click
from minio import Minio, MinioAdmin
from minio.credentials.providers import StaticProvider

from containers.container_settings import ContainerSettings
from twofold.settings import Settings

ROLES = ("stream", "airflow", "reader")
_READ = ("s3:GetObject",)
_WRITE = (*_READ, "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts")
_LIST = ("s3:ListBucket", "s3:GetBucketLocation", "s3:ListBucketMultipartUploads")


def policy(role: str, bucket: str) -> dict[str, Any]:
    """What a role may do, in the language of S3's policies."""
    everything = f"arn:aws:s3:::{bucket}"
    statements = [
        _statement("Allow", _LIST, everything),
        _statement("Allow", _READ if role == "reader" else _WRITE, f"{everything}/*"),
    ]
    if role == "stream":
        statements.append(_statement("Deny", ("s3:*",), f"{everything}/landing/*"))
    return {"Version": "2012-10-17", "Statement": statements}


def _statement(effect: str, actions: Sequence[str], resource: str) -> dict[str, Any]:
    return {"Effect": effect, "Action": list(actions), "Resource": [resource]}


def start() -> None:
    """Make the bucket, and at MinIO the users."""
    settings, ours = Settings(), ContainerSettings()
    place = urlsplit(settings.s3_endpoint)
    root = StaticProvider(ours.store_root_user, ours.secret("store_root_password"))
    reached: Mapping[str, Any] = {"endpoint": place.netloc, "credentials": root, "secure": place.scheme == "https"}
    client = Minio(**reached, region=settings.s3_region)
    if not client.bucket_exists(bucket_name=settings.bucket):
        client.make_bucket(bucket_name=settings.bucket)
    if ours.store_kind == "minio":
        _users(MinioAdmin(**reached, region=settings.s3_region), ours, settings.bucket)
    click.echo(f"the bucket {settings.bucket} and the users of {ours.store_kind} are in place", err=True)


def _users(admin: MinioAdmin, ours: ContainerSettings, bucket: str) -> None:
    for role in ROLES:
        user, name = str(getattr(ours, f"s3_{role}_access_key")), f"twofold-{role}"
        admin.policy_add(name, policy=policy(role, bucket))
        admin.user_add(user, ours.secret(f"s3_{role}_secret_key"))
        admin.policy_set(name, user=user)
