"""What an operator can set: by option, by `TREADLE_...` in the environment, or in a TOML file."""

import ipaddress
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)


class Config(BaseSettings):
    """Every setting of `treadle serve`. Order of precedence: option, environment, file, default."""

    model_config = SettingsConfigDict(env_prefix="TREADLE_", extra="forbid")

    listen: str = "127.0.0.1:50051"
    """Address and port; port 0 takes a free one and prints it."""
    db: Path = Path("treadle.db")
    config: Path | None = None
    take_over: bool = False
    """Take the file from a server that is frozen; its next commit is refused and it exits 75."""
    durability: Literal["full", "relaxed"] = "full"
    """`relaxed` may lose the newest acknowledged changes at a power loss, never at a crash."""

    require_keys: bool = False
    """Refuse calls without an API key, on loopback too."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    insecure_no_tls: bool = False
    """Serve a non-loopback address without TLS."""
    insecure_no_keys: bool = False
    """Serve a non-loopback address without API keys: every caller is an admin."""

    running_threads_max: int = Field(default=1000, ge=1, le=100_000)
    """Threads that run at once; others wait in PENDING."""
    tenant_running_threads_max: int = Field(default=500, ge=1, le=100_000)
    unary_calls_max: int = Field(default=2000, ge=1)
    streams_max: int = Field(default=20_000, ge=1)
    subscriber_stall_seconds: float = Field(default=30.0, gt=0)
    """How long a stream's reader may take nothing before it is ended with SUBSCRIBER_TOO_SLOW."""
    heartbeat_seconds: float = Field(default=15.0, gt=0)
    drain_seconds: float = Field(default=10.0, ge=0)
    """How long calls that must not be repeated may take to end after SIGTERM."""
    log_format: Literal["console", "json"] = "console"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="after")
    def _safe_address(self) -> "Config":
        host = self.listen.rpartition(":")[0].strip("[]")
        if not self.listen.rpartition(":")[2].isdigit() or not host:
            raise ValueError(f"listen: {self.listen!r} is not HOST:PORT")
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("tls_cert and tls_key go together")
        if is_loopback(host):
            return self
        if not self.tls_cert and not self.insecure_no_tls:
            raise ValueError(f"{host} is not loopback: give tls_cert and tls_key, or insecure_no_tls")
        if not self.require_keys and not self.insecure_no_keys:
            raise ValueError(f"{host} is not loopback: give require_keys, or insecure_no_keys")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        path = init_settings().get("config") or env_settings().get("config")
        if not path:
            return init_settings, env_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, Path(path))


def load(**options: Any) -> Config:
    """The configuration from options that were given (None = not given), environment and file."""
    given = {name: value for name, value in options.items() if value is not None}
    path = given.get("config")
    if path is not None and not Path(path).is_file():
        raise ValueError(f"config: there is no file {path}")
    return Config(**given)


def is_loopback(host: str) -> bool:
    """`localhost`, or an address that only this machine reaches."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
