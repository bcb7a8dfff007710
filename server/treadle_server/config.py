"""What an operator can set: by option, by `TREADLE_...` in the environment, or in a TOML file."""

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

PREFIX = "TREADLE_"
_OTHERS = ("TREADLE_TARGET", "TREADLE_API_KEY", "TREADLE_FAILPOINTS", "TREADLE_SOAK_MINUTES")
"""Variables of the clients and of the tests, which a server may inherit."""
_OF_SERVICE_LINKS = re.compile(r"TREADLE_(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_\w+)?)")
"""What Kubernetes sets in every pod beside a service that is called treadle."""


class Config(BaseSettings):
    """Every setting of `treadle serve`. Order of precedence: option, environment, file, default."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid")

    listen: str = "127.0.0.1:50051"
    """Address and port; port 0 takes a free one and prints it."""
    db: Path = Path("treadle.db")
    config: Path | None = None
    take_over: bool = False
    """Take the file from a server that is frozen; its next commit is refused and it exits 75."""
    backup_dir: Path | None = None
    """Folder for backups; absent: `<db>-backups` beside the database. It is made at the first one."""
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
    tenant_pending_threads_max: int = Field(default=100_000, ge=1)
    """Threads of a tenant that may wait to run; then no more are made until some have begun."""
    unary_calls_max: int = Field(default=2000, ge=1)
    tenant_unary_calls_max: int = Field(default=1000, ge=1)
    streams_max: int = Field(default=20_000, ge=1)
    tenant_streams_max: int = Field(default=10_000, ge=1)
    stream_starts_per_second_max: int = Field(default=2000, ge=1)
    """Streams that may begin in a second after a first burst of as many; others are told when to come."""
    tenant_stream_starts_per_second_max: int = Field(default=1250, ge=1)
    connection_streams_max: int = Field(default=1000, ge=600)
    """Calls of one connection at one time; its client keeps back the others. Each may cost up to 50 kB, also
    while it is being refused. This project's clients hold 500 streams on one and make short calls beside
    them."""
    namespace_memories_max: int = Field(default=10_000, ge=1)
    """Memories of one namespace."""
    tenant_memories_max: int = Field(default=100_000, ge=1)
    tenant_memory_mib_max: int = Field(default=256, ge=1, le=1_000_000)
    """Of the texts of a tenant's memories."""
    backlog_max: int = Field(default=20_000, ge=1)
    """Changes that may wait to be written; then calls that change something are refused."""
    disk_reserve_mib: int = Field(default=16, ge=0, le=4096)
    """Of the disk, kept in a file beside the database, so that threads can be ended when it is full."""
    subscriber_stall_seconds: float = Field(default=30.0, gt=0)
    """How long a stream's reader may take nothing before it is ended with SUBSCRIBER_TOO_SLOW."""
    heartbeat_seconds: float = Field(default=15.0, gt=0)
    drain_seconds: float = Field(default=10.0, ge=0)
    """How long calls that must not be repeated may take to end after SIGTERM."""
    thread_retention_days: float | None = Field(default=None, ge=1 / 86_400, le=36_525)
    """How long threads are kept after their end, for tenants that do not say: a second at least; absent: for
    ever."""
    log_format: Literal["console", "json"] = "console"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="after")
    def _check(self) -> "Config":
        host = _host(self.listen)
        for name in ("tls_cert", "tls_key"):
            path = getattr(self, name)
            if path is not None and not path.is_file():
                raise ValueError(f"{name}: there is no file {path}")
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("tls_cert and tls_key go together")
        if not is_loopback(host):
            self._check_guards(host)
        return self

    def _check_guards(self, host: str) -> None:
        if not self.tls_cert and not self.insecure_no_tls:
            raise ValueError(f"listen: {host} is not loopback: give tls_cert and tls_key, or insecure_no_tls")
        if not self.require_keys and not self.insecure_no_keys:
            raise ValueError(f"listen: {host} is not loopback: give require_keys, or insecure_no_keys")

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
        if not Path(path).is_file():
            raise ValueError(f"config: there is no file {path}")
        try:
            file_settings = TomlConfigSettingsSource(settings_cls, Path(path))
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"config: {path} is not TOML: {error}") from None
        return init_settings, env_settings, file_settings


def load(**options: Any) -> Config:
    """The configuration from options that were given (None = not given), environment and file.

    Raises ValueError, which says which setting is faulty.
    """
    given = {name: value for name, value in options.items() if value is not None}
    _check_variables(os.environ)
    try:
        return Config(**given)
    except ValidationError as error:
        raise ValueError("; ".join(_explain(fault) for fault in error.errors())) from None


def _check_variables(names: Iterable[str]) -> None:
    """Raises ValueError for variables that look like settings and are none: one that is misspelt would leave
    its default in force without a word.
    """
    settings = [name.upper() for name in Config.model_fields]
    known = {*_OTHERS, *(f"{PREFIX}{setting}" for setting in settings)}
    unknown = sorted(
        name
        for name in names
        if name.upper().startswith(PREFIX)
        and name.upper() not in known
        and not _OF_SERVICE_LINKS.fullmatch(name)
    )
    if unknown:
        raise ValueError("; ".join(_unknown(name[len(PREFIX) :], settings, PREFIX) for name in unknown))


def _unknown(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Without the prefix names are not alike for having it."""
    closest = difflib.get_close_matches(name, known, n=1)
    meant = f"; did you mean {prefix}{closest[0]}?" if closest else ""
    return f"{prefix}{name}: there is no such setting{meant}"


def _explain(fault: ErrorDetails) -> str:
    """Without the value: it may be one that was meant for another, secret setting."""
    name = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return _unknown(name, Config.model_fields)
    text = str(fault["ctx"]["error"]) if fault["type"] == "value_error" else fault["msg"]
    return f"{name}: {text}" if name else text


def _host(listen: str) -> str:
    """The host of HOST:PORT. Raises ValueError."""
    host, _, port = listen.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    numbered = port.isascii() and port.isdigit() and int(port) < 65_536
    if not bare or not numbered or (":" in host and host != f"[{bare}]"):
        raise ValueError(f"listen: {listen!r} is not HOST:PORT")
    return bare


def is_loopback(host: str) -> bool:
    """`localhost`, or an address that only this machine reaches."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
