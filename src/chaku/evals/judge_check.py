"""What a trial shows of a judge: every finding, and whether the judge is fit for use, in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from chaku.comparison import Comparison
from chaku.evals import judge_faults as faults
from chaku.evals.agreement import Agreement, among_people, with_people
from chaku.evals.judge_faults import GOOD_KAPPA, SLOW_S, Case, Finding
from chaku.evals.judge_trial import Trial
from chaku.evals.probes import Material, Probe

Fitness = Literal["fit", "fit for ranking only", "not fit"]


@dataclass
class Diagnosis:
    """All findings, and the verdict."""

    judge: str
    fitness: Fitness = "fit"
    reasons: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def faults(self) -> set[str]:
        """Names of the findings that are faults."""
        return {finding.name for finding in self.findings if finding.is_fault}

    @property
    def warnings(self) -> set[str]:
        """Names of the findings that are warnings."""
        return {finding.name for finding in self.findings if finding.is_warning}

    def as_json(self) -> dict[str, Any]:
        """The diagnosis as plain values."""
        return {
            "judge": self.judge,
            "fitness": self.fitness,
            "reasons": self.reasons,
            "findings": [asdict(finding) for finding in self.findings],
        }


def diagnose(
    judge: str,
    probes: Sequence[Probe],
    trial: Trial,
    material: Material,
    *,
    own: str | None = None,
    other_judges: Iterable[Comparison] = (),
    slow_s: float = SLOW_S,
) -> Diagnosis:
    """What the trial shows. `own`: the contestant that is the judge itself; `other_judges`: their verdicts."""
    said = [(probe, trial.judgements[probe.task.key]) for probe in probes if probe.task.key in trial.judgements]
    cases = faults.cases_of(said, "pair")
    games = [game for case in cases if case.is_read for game in faults.games_of(case, judge)]
    diagnosis = Diagnosis(judge)
    found = diagnosis.findings
    found.append(faults.readable(said))
    found += faults.position(cases)
    found.append(faults.retest(said))
    found += faults.controls(said)
    found += faults.padding(faults.cases_of(said, "padded"))
    agreement = with_people(games, material.labels) if material.labels else None
    found += faults.agreement_found(agreement, material)
    found.append(faults.length_errors(cases, material))
    found.append(faults.self_preference(cases, own, material, list(other_judges)))
    found += faults.exaggeration(games, material.labels)
    found += faults.service(trial, slow_s)
    _decide(diagnosis, agreement, material, cases)
    return diagnosis


def _decide(diagnosis: Diagnosis, agreement: Agreement | None, material: Material, cases: Sequence[Case]) -> None:
    """The verdict in words. Faults forbid any use; doubts leave ranking, where errors of both orders cancel out."""
    found = [finding for finding in diagnosis.findings if finding.is_fault]
    if found or not any(case.is_read for case in cases):
        diagnosis.fitness = "not fit"
        diagnosis.reasons = [_reason(finding) for finding in found] or ["it gave no verdict that can be read"]
        return
    doubts = []
    if agreement is None or agreement.kappa is None:
        doubts.append(
            "nothing says whether it agrees with people: give --labels, or label some with `chaku eval label`"
        )
    else:
        ceiling = among_people(material.labels).kappa if material.of_people else None
        if not material.of_people:
            doubts.append("it was only tried on pairs whose worse answer was made worse here: give --labels of people")
        least = ceiling.low if ceiling is not None else GOOD_KAPPA
        if agreement.kappa.value < least:
            doubts.append(f"kappa with the labels is {agreement.kappa.value:.2f}, below {least:.2f}")
    doubts += [
        _reason(one) for one in diagnosis.findings if one.is_warning and one.name in ("identical", "exaggeration")
    ]
    diagnosis.reasons = doubts or ["no fault was found, and it agrees with the labels"]
    diagnosis.fitness = "fit for ranking only" if doubts else "fit"


def _reason(finding: Finding) -> str:
    return f"{finding.name}: {finding.meaning}: {finding.number}"
