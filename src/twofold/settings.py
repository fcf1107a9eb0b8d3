"""Settings: frozen, typed, made once at the entry point; no other code reads the environment.

    environment TWOFOLD_* ─► stack.env (written by `twofold up`) ─► defaults
        first wins

Children (Spark jobs, producer) get the same settings through `Settings.environment()`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.sources import DotEnvSettingsSource

CATALOG = "twofold"
"""Name of the Iceberg catalog, the same for Spark and pyiceberg: rows of the JDBC tables carry it."""


class Settings(BaseSettings):
    """Where everything is. Every field is set by `TWOFOLD_<FIELD>`."""

    model_config = SettingsConfigDict(env_prefix="TWOFOLD_", frozen=True, extra="ignore")

    home: Path = Path(".twofold")
    pipelines: Path = Path("pipelines")

    store: Literal["local", "minio"] = "local"
    bucket: str = "twofold"
    s3_endpoint: str = "http://127.0.0.1:19000"
    s3_region: str = "us-east-1"
    s3_access_key: str = "twofold"
    s3_secret_key: SecretStr = SecretStr("")

    kafka_bootstrap: str = "127.0.0.1:19092"

    postgres_host: str = "127.0.0.1"
    postgres_port: int = 15432
    postgres_user: str = "twofold"
    postgres_password: SecretStr = SecretStr("")
    postgres_database: str = "twofold"

    statsd_host: str = "127.0.0.1"
    statsd_port: int = 19125

    spark_master: str = "local[2]"
    spark_driver_memory: str = "1g"
    jars: Path = Path("~/.cache/twofold/jars")
    """Folder made by `make setup`; its `spark/` goes on Spark's class path, `kafka/` starts ZooKeeper and Kafka."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the stack's own file, so one setting can be overridden for one command."""
        home = Path(os.environ.get("TWOFOLD_HOME", ".twofold"))
        stack = DotEnvSettingsSource(settings_cls, env_file=home / "stack.env")
        return init_settings, env_settings, stack

    def model_post_init(self, context: Any, /) -> None:
        """Paths are made absolute once, so that children with another working folder agree."""
        for name in ("home", "pipelines", "jars"):
            object.__setattr__(self, name, getattr(self, name).expanduser().absolute())

    @property
    def warehouse(self) -> str:
        """Root URI of everything durable: tables, checkpoints, landing files."""
        if self.store == "local":
            return (self.home / "bucket").as_uri()
        return f"s3a://{self.bucket}"

    @property
    def jdbc_url(self) -> str:
        """PostgreSQL, as Spark's catalog and lock connection address it."""
        return f"jdbc:postgresql://{self.postgres_host}:{self.postgres_port}/{self.postgres_database}"

    def postgres_url(self, driver: str = "postgresql") -> str:
        """PostgreSQL, as psycopg (`postgresql`) or SQLAlchemy (`postgresql+psycopg`) address it."""
        password = self.postgres_password.get_secret_value()
        return f"{driver}://{self.postgres_user}:{password}@{self.postgres_host}:{self.postgres_port}/{self.postgres_database}"

    def checkpoint(self, pipeline: str, query: str) -> str:
        """Checkpoint URI of one streaming query (`log`, or a view's name)."""
        return f"{self.warehouse}/checkpoints/{pipeline}/{query}"

    def landing(self, pipeline: str) -> str:
        """Folder URI where the files of a pipeline are landed."""
        return f"{self.warehouse}/landing/{pipeline}"

    def environment(self) -> dict[str, str]:
        """These settings as environment variables, for a child process."""
        plain = {
            name: value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            for name, value in self
        }
        return {f"TWOFOLD_{name.upper()}": value for name, value in plain.items()}
