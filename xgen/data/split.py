r"""The regular expressions by which tokenizers split text, in a form without look-ahead, which is faster.

The engine of tiktoken hands an expression without look-ahead to a faster one. `\s+(?!\S)` is the only look-ahead of the
usual expressions: of a run of white space, all but the last character is a token where something follows. A mark that
is written into the text before that last character says the same without looking ahead; its token is taken out again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# What ByteLevel(use_regex=True) splits by; GPT-2's.
BYTE_LEVEL = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
MARK = "\ue000"  # of the private use area: a text that has it is encoded without this
# White_Space of Unicode: \s of Python's re has four control characters more.
_SPACE = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_NO_NEWLINE = _SPACE.replace("\t-\r", "\t\x0b\x0c")


@dataclass(frozen=True)
class FastSplit:
    """An expression without look-ahead, for texts that `mark` has prepared."""

    pattern: str
    between: re.Pattern[str]  # the place of a mark

    def mark(self, text: str) -> str:
        return self.between.sub(MARK, text)


def _without_look_ahead(pattern: str) -> str:
    plain = pattern.replace(r"|\s+(?!\S)", "")
    return f"{MARK}|" + re.sub(r"(\[\^[^]]*)\]", rf"\1{MARK}]", plain)


FAST_SPLITS = {
    BYTE_LEVEL: FastSplit(_without_look_ahead(BYTE_LEVEL), re.compile(f"(?<=[{_SPACE}])(?=[{_SPACE}][^{_SPACE}])")),
    # A newline goes with the white space before it: \s*[\r\n]+ comes first.
    LLAMA_3: FastSplit(_without_look_ahead(LLAMA_3), re.compile(f"(?<=[{_SPACE}])(?=[{_NO_NEWLINE}][^{_SPACE}])")),
}
