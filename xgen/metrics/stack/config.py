"""The files of monitoring/ for this machine: the same jobs, rules, routes; other addresses, and intervals if asked."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from xgen.metrics.exporter import SetupError, read_users
from xgen.runs import write_atomic
from xgen.spec import Profile

_DASHBOARDS = "/var/lib/grafana/dashboards/xgen"  # in monitoring/grafana/provisioning


class StackError(Exception):
    """What is wrong, where, and what to write or install instead."""


def write_prometheus(
    folder: Path, source: Path, profile: Profile, exporter: str, alertmanager: str, interval: str | None
) -> Path:
    """prometheus.yml in `folder`, beside links to the rules and the announced runs. Raises StackError."""
    file = source / "prometheus.yml"
    config = _read(file)
    jobs = {job["job_name"]: job for job in _named(file, config, "scrape_configs", "job_name")}
    if not {"xgen-runs", "xgen-exporter"} <= jobs.keys():
        raise StackError(
            f"{file}: scrape_configs: has no job xgen-runs or xgen-exporter; they are those of monitoring/"
        )
    address = urlsplit(exporter)
    jobs["xgen-exporter"]["static_configs"] = [{"targets": [address.netloc]}]
    jobs["xgen-exporter"]["scheme"] = address.scheme
    if profile.metrics.tls:  # its name is that of the host, and not what it is called by here
        jobs["xgen-exporter"]["tls_config"] = {"insecure_skip_verify": True}
    if profile.metrics.basic_auth:
        try:
            name, password = next(iter(read_users(Path(profile.metrics.basic_auth.file)).items()))
        except SetupError as error:
            raise StackError(str(error)) from None
        secret = folder / "exporter-password"
        write_atomic(secret, password, mode=0o600)
        jobs["xgen-exporter"]["basic_auth"] = {"username": name, "password_file": str(secret)}
    config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [urlsplit(alertmanager).netloc]}]}]}
    if interval:
        _hurry(config, interval)
    _link(folder / "rules", source / "rules")
    _link(folder / "discovery", Path(profile.run_root) / ".discovery")
    return _write(folder / "prometheus.yml", config)


def write_alertmanager(folder: Path, source: Path, webhook: str | None) -> Path:
    """alertmanager.yml in `folder`: its receivers are the webhook, or nobody. Raises StackError."""
    file = source / "alertmanager.yml"
    config = _read(file)
    told = {"webhook_configs": [{"url": webhook, "send_resolved": True}]} if webhook else {}
    receivers = _named(file, config, "receivers", "name")
    config["receivers"] = [{"name": receiver["name"], **told} for receiver in receivers]
    return _write(folder / "alertmanager.yml", config)


def write_grafana(folder: Path, source: Path) -> Path:
    """The provisioning folder, with the dashboards where they lie."""
    provisioning = folder / "provisioning"
    shutil.rmtree(provisioning, ignore_errors=True)
    shutil.copytree(source / "grafana" / "provisioning", provisioning)
    for file in (provisioning / "dashboards").glob("*.yml"):
        file.write_text(file.read_text().replace(_DASHBOARDS, str(source / "dashboards")))
    return provisioning


def _hurry(part: Any, interval: str) -> None:
    """Every interval, wherever it stands; a time-out may not be longer than its interval."""
    if isinstance(part, dict):
        part.pop("scrape_timeout", None)
        for key in ("scrape_interval", "evaluation_interval", "refresh_interval"):
            if key in part:
                part[key] = interval
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        _hurry(inner, interval)


def _read(file: Path) -> Any:
    try:
        return yaml.safe_load(file.read_text())
    except OSError as error:
        raise StackError(f"{file}: {error.strerror}; write --config FOLDER, one like monitoring/") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StackError(f"{file}: is no YAML: {error}") from None


def _named(file: Path, config: Any, key: str, name: str) -> list[dict[str, Any]]:
    """The list under `key`, of which each has a name. Raises StackError."""
    found = config.get(key) if isinstance(config, dict) else None
    if not isinstance(found, list) or not all(isinstance(one, dict) and name in one for one in found):
        raise StackError(f"{file}: {key}: is no list of which each has {name}; write one like that of monitoring/")
    return found


def _write(file: Path, config: Any) -> Path:
    """For nobody else to read: the address of a webhook may hold a token."""
    write_atomic(file, yaml.safe_dump(config, sort_keys=False, width=200), mode=0o600)
    return file


def _link(link: Path, target: Path) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(target.resolve())
