"""Telling people what happened to a run: one message for each fact and channel, whoever sees it first."""

from xgen.notify.channels import Channel, channels_of, check_hooks
from xgen.notify.facts import Fact, Facts
from xgen.notify.look import Notifier, Told
from xgen.notify.send import SendError

__all__ = ["Channel", "Fact", "Facts", "Notifier", "SendError", "Told", "channels_of", "check_hooks"]
