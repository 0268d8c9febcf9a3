"""What `xgen monitor` runs on one machine, from the files of monitoring/."""

from xgen.metrics.stack.config import StackError
from xgen.metrics.stack.stack import Seen, Stack, Wanted

__all__ = ["Seen", "Stack", "StackError", "Wanted"]
