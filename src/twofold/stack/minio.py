"""MinIO, built by `twofold.setup`: the bucket of the embedded stack where a real S3 store is wanted."""

from __future__ import annotations

from functools import partial
from urllib.parse import urlsplit

from twofold.settings import Settings
from twofold.setup.servers import MINIO as MINIO_SERVER
from twofold.setup.servers import binary_path, ensure
from twofold.stack import health
from twofold.stack.ports import MINIO, MINIO_CONSOLE
from twofold.stack.program import Program


def prepare(settings: Settings) -> None:
    """Build the server if this user never did, and make the data folder."""
    ensure(MINIO_SERVER)
    (settings.home / "minio").mkdir(exist_ok=True)


def program(settings: Settings) -> Program:
    """The server, on loopback; it goes after everything that writes tables and before the catalog."""
    return Program(
        name="minio",
        command=(
            str(binary_path(MINIO_SERVER)),
            "server",
            str(settings.home / "minio"),
            "--address",
            f"127.0.0.1:{settings.minio_port}",
            "--console-address",
            f"127.0.0.1:{settings.minio_console_port}",
        ),
        check=partial(health.minio, settings),
        start_order=15,
        ports=(MINIO, MINIO_CONSOLE),
        environment={
            "MINIO_ROOT_USER": settings.s3_access_key,
            "MINIO_ROOT_PASSWORD": settings.s3_secret_key.get_secret_value(),
            "MINIO_REGION": settings.s3_region,
            "MINIO_UPDATE": "off",
            "MINIO_BROWSER": "on",
            # Its metrics are open to whoever may connect, which is this machine.
            "MINIO_PROMETHEUS_AUTH_TYPE": "public",
        },
        directory=settings.home,
    )


def finish(settings: Settings) -> None:
    """Create the bucket with a plain S3 client."""
    from pyarrow.fs import S3FileSystem  # takes as long to import as all else together, and only MinIO needs it

    endpoint = urlsplit(settings.s3_endpoint)
    client = S3FileSystem(
        access_key=settings.s3_access_key,
        secret_key=settings.s3_secret_key.get_secret_value(),
        region=settings.s3_region,
        scheme=endpoint.scheme,
        endpoint_override=endpoint.netloc,
        allow_bucket_creation=True,
    )
    client.create_dir(settings.bucket)
