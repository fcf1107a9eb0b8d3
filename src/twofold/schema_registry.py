"""The schema registry, by Confluent's interface: the schemas that writers used, and the registration of ours.

    id ─► known? ─► registry ─► Registered        the registry says that there is none: UnknownSchema
                       └─ away ─► asked again, for seconds ─► RegistryAway, which whoever asked waits for

What an id stands for never changes, so an answer is kept for good.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from twofold.errors import NotRunning, TwofoldError, first_line

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import SchemaRegistryClient

    from twofold.settings import Settings

_TIMEOUT_S = 5
_RETRIES, _PAUSE_MS, _LONGEST_PAUSE_MS = 4, 250, 4000
"""At most a quarter of a minute where nothing listens."""
_NO_SCHEMA = (40401, 40402, 40403)
"""What a registry answers where it knows no such subject, version or id; a page that is not there says other things."""
_LOGIN = "check TWOFOLD_SCHEMA_REGISTRY_USER and its password"
_URL = "check TWOFOLD_SCHEMA_REGISTRY_URL, which ends where a registry's /subjects and /schemas begin"
_REMEDIES = {401: _LOGIN, 403: _LOGIN, 404: _URL, 405: _URL}
_PASSING = (408, 429)
_HIGHEST = (1 << 31) - 1
"""Registries count in Java's int, and take a higher number for a page that they do not have."""


class RegistryAway(NotRunning):
    """The schema registry does not answer, or says that it cannot now."""


class UnknownSchema(Exception):
    """The registry says that it has no schema of an id."""


@dataclass(frozen=True)
class Registered:
    """A schema as it is in a registry, with the schemas that it refers to, each after those it needs itself."""

    kind: str
    """AVRO, JSON or PROTOBUF."""
    text: str
    references: tuple[str, ...] = ()


@dataclass(frozen=True)
class Registry:
    """Where a registry is, and the login to it."""

    url: str
    user: str = ""
    password: str = field(default="", repr=False)
    ca: str = ""
    """File of the certificates that the registry's own is checked against; empty: the usual authorities."""

    @classmethod
    def of(cls, settings: Settings) -> Registry:
        """The one that settings name."""
        password = settings.schema_registry_password.get_secret_value()
        ca = settings.schema_registry_ca
        return cls(settings.schema_registry_url, settings.schema_registry_user, password, ca)

    @cache  # noqa: B019  # kept for good, as a registry is a value, and they are few; what is raised is not kept
    def schema(self, number: int) -> Registered:
        """What an id stands for. Raises UnknownSchema, RegistryAway, or TwofoldError where the registry refuses."""
        if number > _HIGHEST:
            raise UnknownSchema(f"no registry gives out {number}")
        with self._explained():
            found = _client(self).get_schema(number)
            return Registered(found.schema_type or "AVRO", found.schema_str or "", tuple(self._references(found)))

    def register(self, subject: str, kind: str, text: str) -> int:
        """The id of a schema, which the registry has under a subject afterwards."""
        from confluent_kafka.schema_registry import Schema

        with self._explained():
            return int(_client(self).register_schema(subject, Schema(text, kind)))

    def _references(self, schema: Any) -> Iterator[str]:  # noqa: ANN401
        for one in schema.references or ():
            found = _client(self).get_version(one.subject, one.version, deleted=True).schema
            yield from self._references(found)
            yield found.schema_str or ""

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What the client meets, raised as one of ours."""
        from confluent_kafka.schema_registry.error import SchemaRegistryError
        from httpx2 import TransportError

        try:
            yield
        except TransportError as error:
            raise self._away(first_line(error)) from None
        except SchemaRegistryError as error:
            status = error.http_status_code
            if error.error_code in _NO_SCHEMA:
                raise UnknownSchema(error.error_message) from None
            if status >= 500 or status in _PASSING:
                raise self._away(f"HTTP {status}") from None
            remedy = _REMEDIES.get(status, "")
            what = f"the schema registry at {self.url} refuses: HTTP {status}: {error.error_message}"
            raise TwofoldError(what, remedy) from None
        except (ValueError, TypeError) as error:  # an address, or an answer, of another kind
            what = f"{self.url} does not answer as a schema registry does: {first_line(error)}"
            raise TwofoldError(what, _URL) from None

    def _away(self, said: str) -> RegistryAway:
        return RegistryAway(
            f"the schema registry at {self.url} does not answer: {said}",
            "start the embedded one with `twofold up --registry`, or set TWOFOLD_SCHEMA_REGISTRY_URL",
        )


@lru_cache(maxsize=8)
def _client(registry: Registry) -> SchemaRegistryClient:
    # Only here: it takes half a second to import, and few streams need it.
    from confluent_kafka.schema_registry import SchemaRegistryClient

    asked: dict[str, Any] = {
        "url": registry.url,
        "timeout": _TIMEOUT_S,
        "max.retries": _RETRIES,
        "retries.wait.ms": _PAUSE_MS,
        "retries.max.wait.ms": _LONGEST_PAUSE_MS,
    }
    if registry.user:
        asked["basic.auth.user.info"] = f"{registry.user}:{registry.password}"
    if registry.ca:
        asked["ssl.ca.location"] = registry.ca
    return SchemaRegistryClient(asked)
