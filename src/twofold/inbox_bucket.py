"""The inbox of a pipeline in an S3 store; see `twofold.inbox`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any, TypeVar

import fsspec  # type: ignore[import-untyped]
import s3fs  # type: ignore[import-untyped]
from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]

from twofold.errors import StoreAway, TwofoldError
from twofold.inbox import File, Progress, is_hidden, put_by_users
from twofold.places import TableInInbox
from twofold.settings import Settings

_Answer = TypeVar("_Answer")


class BucketFolder:
    """An inbox in an S3 bucket: the keys under one prefix."""

    def __init__(self, settings: Settings, uri: str, table: TableInInbox | None = None) -> None:
        self._table = table
        self._endpoint = settings.s3_endpoint
        self._root = uri.split("://", 1)[1]
        self._store = s3fs.S3FileSystem(
            key=settings.s3_access_key,
            secret=settings.s3_secret_key.get_secret_value(),
            endpoint_url=settings.s3_endpoint,
            client_kwargs={"region_name": settings.s3_region},
            config_kwargs={"s3": {"addressing_style": "path"}},
            use_listings_cache=False,
        )

    def files(self) -> list[File]:
        """All keys under the prefix; empty keys that stand for folders are passed over."""
        found: dict[str, dict[str, Any]] = self._reach(lambda: self._store.find(self._root, detail=True))
        named = ((key.removeprefix(f"{self._root}/"), info) for key, info in found.items())
        listed = ((name, info) for name, info in named if info["type"] == "file" and not is_hidden(name))
        return put_by_users((File(name, _etag_version(info), info["size"]) for name, info in listed), self._table)

    def version(self, name: str) -> str | None:
        """The file's version now; None where it is gone."""
        try:
            return _etag_version(self._reach(lambda: self._store.info(f"{self._root}/{name}", refresh=True)))
        except FileNotFoundError:
            return None

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Open one file to read its bytes."""
        opened: AbstractContextManager[IO[bytes]] = self._reach(lambda: self._store.open(f"{self._root}/{name}", "rb"))
        return opened

    def put(self, source: Path, name: str, progress: Progress) -> None:
        """Upload at once, or in parts that are aborted together."""
        if self._table:
            self._table.refuse(name)
        watcher = _Watcher(progress)
        self._reach(lambda: self._store.put_file(str(source), f"{self._root}/{name}", callback=watcher))

    def _reach(self, request: Callable[[], _Answer]) -> _Answer:
        try:
            return request()
        except BotoCoreError as error:
            raise StoreAway(self._endpoint, error) from None
        except PermissionError as error:
            raise TwofoldError(
                f"the S3 store at {self._endpoint} refuses access to {self._root}: {error}",
                "set TWOFOLD_S3_ACCESS_KEY and TWOFOLD_S3_SECRET_KEY to keys that may read and write the bucket",
            ) from None


class _Watcher(fsspec.callbacks.Callback):  # type: ignore[misc]
    """fsspec's progress as ours."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress

    def relative_update(self, inc: int = 1) -> None:
        self._progress(inc)


def _etag_version(info: dict[str, Any]) -> str:
    return f"{info['size']}-{str(info['ETag']).strip(chr(34))}"
