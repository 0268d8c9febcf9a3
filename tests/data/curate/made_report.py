"""Reports of curations that never ran, for the page that is made of them."""

from __future__ import annotations

from itertools import count

from xgen.data.curate.report_model import (
    Classifier,
    CommonLine,
    Copies,
    Count,
    Dedup,
    Domain,
    EvaluationLeaks,
    Flow,
    Frequency,
    Histogram,
    Input,
    Lines,
    Mixture,
    PlanRow,
    Quarantined,
    Quota,
    RateBin,
    Reason,
    Report,
    Sample,
    SizeBin,
    Slice,
    Step,
    sum_of,
)

EMPTY = Report(
    name="empty", recipe="0", xgen="0", inputs=(), quarantine=(), steps=(), pii={},
    dedup=Dedup(
        ngram=5, bands=20, rows=6, threshold=0.55, curve=(), exact=0, near=0, earlier=0, unplaced=0, clusters=0,
        largest=0, sizes=(), slices=(),
    ),
    frequency=Frequency(rule="none", table={}, documents=(), bins=(), rate=None, note=""),
    leaks=(), lines=None, classifiers=(), domains=(), mixtures=(),
)  # fmt: skip


def full(text: str = "some text", name: str = "") -> Report:
    """A report with something in every part, in which no number occurs twice."""
    ticket = count(1_000_001, 1_003)
    domains = [f"{name}web", f"{name}code"]

    def new() -> int:
        return next(ticket)

    def counted() -> Count:
        return Count(documents=new(), bytes=new())

    def by_domain() -> dict[str, Count]:
        return {domain: counted() for domain in domains}

    def flow() -> Flow:
        return Flow(taken=counted(), kept=counted(), dropped=counted(), cut=new())

    def histogram(edges: tuple[float, ...]) -> Histogram:
        return Histogram(edges=edges, counts=tuple(new() for _ in edges[1:]))

    def reason(rule: str, bound: float | None, other: int | None = None) -> Reason:
        sample = Sample(
            document=new(), domain=domains[0], source=f"{name}source", value=0.125, text=text, id=text, place=text,
            other=other, other_text=text if other is not None else "",
        )  # fmt: skip
        return Reason(name=rule, bound=bound, dropped=counted(), by_domain=by_domain(), samples=(sample,))

    def step(step_name: str, *reasons: Reason) -> Step:
        flows = {domain: flow() for domain in domains}
        return Step(name=step_name, by_domain=flows, reasons=reasons, **dict(flow()))

    read = counted()
    return Report(
        name=f"{name}corpus",
        recipe="9f8e7d6c",
        xgen="0.1.0",
        inputs=(
            Input(path=text, files=new(), ignored={".pdf": new()}, units=new(), read=counted(), quarantined=new()),
        ),
        quarantine=(Quarantined(reason=f"{name}is no JSON", records=new(), places=(text,)),),
        steps=(
            step_of("read", dict.fromkeys(domains, Flow(taken=read, kept=read))),
            step("gopher_quality", reason("gopher_quality.min_words", 50), reason("gopher_quality.max_words", 123_457)),
            step("exact", reason("exact.duplicate", None, new())),
            step("near", reason("near.duplicate", None, new())),
            step("common_lines", reason("common_lines.nothing_left", None)),
            step("leaks", reason(f"leaks.{name}quiz", None, new())),
        ),
        pii={"email": new(), "ip": new()},
        dedup=Dedup(
            ngram=5, bands=20, rows=6, threshold=0.55, curve=((0.0, 0.0), (0.5, 0.3), (1.0, 1.0)), exact=new(),
            near=new(), earlier=new(), unplaced=new(), clusters=new(), largest=new(),
            sizes=(
                SizeBin(size=1, clusters=new(), documents=new()), SizeBin(size=2, clusters=new(), documents=new()),
                SizeBin(size=1000, clusters=new(), documents=new()),
            ),
            slices=(Slice(read=new(), first=new(), exact=new(), near=new(), earlier=new()),),
        ),
        frequency=Frequency(
            rule="rehydrate", table={1: 1, 2: 3}, documents=(new(), new()),
            bins=(RateBin(size=1, documents=new(), removed=new(), rate=0.25, low=0.2, high=0.3, copies=1),),
            rate=0.25, note=text,
        ),
        leaks=(EvaluationLeaks(name=f"{name}quiz", items=new(), short=new(), leaked=new(), documents=new()),),
        lines=Lines(
            unit="line", max_documents=new(), frequent=new(), cut=new(), bytes=new(), documents=new(),
            samples=(CommonLine(text=text, documents=new()),),
        ),
        classifiers=(
            Classifier(
                role="quality", fingerprint="abcd", labels=("good", "bad"), documents=new(), accuracy=0.9876,
                log_loss=0.0543, calibration_error=0.0321, auc={"good": 0.9912},
            ),
        ),
        domains=tuple(
            Domain(
                name=domain, documents=new(), bytes=new(), tokens=new(), sources={f"{name}source": new()},
                licences={"MIT": new()}, languages={"en": new()}, lengths=histogram((1.0, 2.0, 4.0, 8.0)),
                quality=histogram((-1.0, 0.0, 1.0)), rejected=histogram((-1.0, 0.0, 1.0)), bands=(-0.5, 0.5),
            )
            for domain in domains
        ),
        mixtures=(
            Mixture(
                name=f"{name}broad", budget=new(), planned=new(), written=new(), documents=new(), store="broad",
                fingerprint="beef",
                quotas=tuple(
                    Quota(
                        domain=domain, part="long", documents=new(), supply=new(), cap=new(), wanted=new(),
                        tokens=new(), epochs=1.25,
                    )
                    for domain in domains
                ),
                rows=tuple(
                    PlanRow(
                        domain=domain, source=f"{name}source", band=9, size=2, documents=new(), tokens=new(),
                        taken=new(), copies=new(), planned=new(),
                    )
                    for domain in domains
                ),
                copies=(Copies(copies=0, documents=new()), Copies(copies=3, documents=new())),
                lengths={domain: histogram((1.0, 2.0, 4.0, 8.0)) for domain in domains},
                unmet=(text,),
            ),
        ),
    )  # fmt: skip


def step_of(name: str, by_domain: dict[str, Flow], *reasons: Reason) -> Step:
    whole = {key: sum_of(getattr(flow, key) for flow in by_domain.values()) for key in ("taken", "kept", "dropped")}
    cut = sum(flow.cut for flow in by_domain.values())
    return Step(name=name, cut=cut, by_domain=by_domain, reasons=reasons, **whole)
