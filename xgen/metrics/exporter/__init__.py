"""One exporter a cluster: collectors polled at their own pace, served as bytes to any number of Prometheus servers."""

from xgen.metrics.exporter.collector import Collector, CollectorError
from xgen.metrics.exporter.exporter import Exporter
from xgen.metrics.exporter.targets import Targets
from xgen.metrics.exporter.web import App, SetupError, read_users, tls_context

__all__ = ["App", "Collector", "CollectorError", "Exporter", "SetupError", "Targets", "read_users", "tls_context"]
