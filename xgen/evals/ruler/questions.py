"""Question sets for the qa tasks, as SQuAD and HotpotQA publish them: documents, and questions about some of them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, TypeAdapter, ValidationError

from xgen.data.errors import StoreError


@dataclass(frozen=True)
class Question:
    """`gold`: documents that stay; `related`: those that come in before any others. Both are indices."""

    text: str
    answers: tuple[str, ...]
    gold: tuple[int, ...]
    related: tuple[int, ...]


@dataclass(frozen=True)
class Questions:
    """`name` and `digest` say which set: they belong beside every score."""

    name: str
    digest: str
    documents: tuple[str, ...]
    questions: tuple[Question, ...]

    @classmethod
    def read(cls, path: Path) -> Questions:
        """A JSON file of SQuAD 1.1 or 2.0, or of HotpotQA; a question without an answer or documents is left out.
        Raises StoreError when it is neither or has no question."""
        try:
            content = path.read_bytes()
            parsed = _FILE.validate_python(json.loads(content))
        except FileNotFoundError:
            raise StoreError(path, "does not exist", "name a JSON file of SQuAD or HotpotQA") from None
        except (IsADirectoryError, PermissionError) as error:
            fix = "name a JSON file of SQuAD or HotpotQA that you may read"
            raise StoreError(path, f"cannot be read: {error.strerror}", fix) from None
        except (ValidationError, ValueError, RecursionError) as error:
            what = str(error).splitlines()[0]
            raise StoreError(path, f"is no question set ({what})", "give JSON as SQuAD or HotpotQA has it") from None
        documents, questions = _squad(parsed) if isinstance(parsed, _Squad) else _hotpot(parsed)
        if not questions:
            raise StoreError(path, "has no question with an answer", "give another question set")
        digest = hashlib.blake2b(content, digest_size=8).hexdigest()
        return cls(str(path), digest, documents, questions)


class _Answer(BaseModel):
    text: str


class _Asked(BaseModel):
    question: str
    answers: list[_Answer] = []
    is_impossible: bool = False


class _Paragraph(BaseModel):
    context: str
    qas: list[_Asked]


class _Article(BaseModel):
    paragraphs: list[_Paragraph]


class _Squad(BaseModel):
    data: list[_Article]


class _Hop(BaseModel):
    question: str
    answer: str
    context: list[tuple[str, list[str]]]

    @property
    def documents(self) -> list[str]:
        return [f"{title}\n{''.join(sentences)}" for title, sentences in self.context]


_FILE: TypeAdapter[_Squad | list[_Hop]] = TypeAdapter(_Squad | list[_Hop])
_Set = tuple[tuple[str, ...], tuple[Question, ...]]


def _squad(parsed: _Squad) -> _Set:
    documents = sorted({paragraph.context for article in parsed.data for paragraph in article.paragraphs})
    index = {document: i for i, document in enumerate(documents)}
    questions = []
    for article in parsed.data:
        of_article = list(dict.fromkeys(index[paragraph.context] for paragraph in article.paragraphs))
        for paragraph in article.paragraphs:
            gold = index[paragraph.context]
            related = tuple(i for i in of_article if i != gold)
            for asked in paragraph.qas:
                answers = tuple(answer.text for answer in asked.answers if answer.text.strip())
                if answers and not asked.is_impossible:
                    questions.append(Question(asked.question, answers, (gold,), related))
    return tuple(documents), tuple(questions)


def _hotpot(parsed: list[_Hop]) -> _Set:
    documents = sorted({document for hop in parsed for document in hop.documents})
    index = {document: i for i, document in enumerate(documents)}
    return tuple(documents), tuple(
        Question(hop.question, (hop.answer,), tuple(dict.fromkeys(index[d] for d in hop.documents)), ())
        for hop in parsed
        if hop.answer.strip() and hop.context  # any text contains an empty answer
    )
