"""The arena's JSON: what the page may send, and the shapes of what it gets.

Nothing that a visitor gets of a battle before the vote has a contestant's or a model's name.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from pydantic import BaseModel, ConfigDict, Field

from chaku.comparison import Outcome
from chaku.store.battles import Side

MAX_PROMPT_CHARACTERS = 32_000
REASONS = ("Correct", "Complete", "Clear", "Creative", "Well formatted", "Follows instructions", "Unsafe", "Other")
"""What the page offers as reasons of a vote; others are taken too."""
_STRICT = ConfigDict(extra="forbid", strict=True)

BattleState = Literal["drawn", "answering", "votable", "voted", "failed"]
SideState = Literal["waiting", "answering", "ended", "failed"]


class _Asked(BaseModel):
    model_config = _STRICT


class Consent(_Asked):
    """What the visitor agreed to. `keep`: texts and vote are stored here; `publish`: the texts may be shown."""

    keep: Literal[True]
    publish: bool


class NewBattle(_Asked):
    """POST /api/arena/battles: 201 with a BattleShown. 409 `arena_closed` where two contestants are not ready."""

    consent: Consent


class NewTurn(_Asked):
    """POST /api/arena/battles/ID/turns: 202 with a BattleShown. 409 while an answer runs or after a vote."""

    content: Annotated[str, Field(min_length=1, max_length=MAX_PROMPT_CHARACTERS)]


class NewVote(_Asked):
    """POST /api/arena/battles/ID/vote: 200 with a Revealed. 409 `stale_vote` for a token that is not the battle's."""

    choice: Outcome
    reasons: Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=20)] = []
    token: Annotated[str, Field(max_length=100)]


class NewReasons(_Asked):
    """PATCH /api/arena/battles/ID/vote: 200 with a Revealed. 409 `no_vote` where there is no vote."""

    reasons: Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=20)]


class NewExclusion(_Asked):
    """POST /api/arena/operator/exclusions: 201 with an ExclusionShown. `lifted` ends an earlier one."""

    kind: Literal["voter", "battle", "contestant"]
    id: Annotated[str, Field(min_length=1, max_length=300)]
    reason: Annotated[str, Field(min_length=3, max_length=500)]
    lifted: bool = False


class SideShown(TypedDict):
    """One side before the vote."""

    state: SideState
    answers: list[str]
    """One for each turn, the last as it stands."""


class SideRevealed(TypedDict):
    """One side after the vote."""

    contestant: str
    model: str
    tokens_per_s: float | None
    num_tokens: int | None
    num_parameters: int | None
    """Weights of the model as it is served now; null where nobody says."""
    parameters: dict[str, Any]
    """The system prompt (`system`) and the sampling parameters under which the model stood here."""


class Revealed(TypedDict):
    """The answer to a vote."""

    state: Literal["revealed"]
    choice: Outcome
    counted: bool
    reason: str | None
    """Why it is kept and not counted."""
    sides: dict[Side, SideRevealed]
    reasons: list[str]
    undo_s: float
    """Seconds for which the vote can still be undone. No moment: a browser's clock may be wrong."""


class BattleShown(TypedDict):
    """GET /api/arena/battles/ID."""

    id: str
    state: BattleState
    turn: int
    """Turns so far."""
    token: str | None
    """Goes with a vote; only in state `votable`, and another one after each turn."""
    consent: dict[str, bool]
    prompts: list[str]
    sides: dict[Side, SideShown]
    side_replaced: bool
    """A side failed and another contestant answers in its place: a vote will not count."""
    revealed: Revealed | None
    """After the vote."""


class BattleEvent(TypedDict):
    """One event of GET /api/arena/battles/ID/events. A snapshot comes first unless Last-Event-ID is known here.

    `began`: its first text follows (both sides begin together); `delta`: more `text`; `ended`; `failed`: no answer to
    this turn; `replaced`: drop this side's texts, another contestant answers from the start; `votable`: with `token`;
    `snapshot`: forget what was shown, `battle` is how things are. The stream ends with the turn, after both sides.
    """

    kind: Literal["snapshot", "began", "delta", "ended", "failed", "replaced", "votable"]
    side: NotRequired[Side]
    text: NotRequired[str]
    token: NotRequired[str]
    battle: NotRequired[BattleShown]


class ArenaLimits(TypedDict):
    """Per visitor."""

    battles_per_hour: int
    battles_left: int
    turns: int
    prompt_characters: int
    undo_s: float


class ArenaShown(TypedDict):
    """GET /api/arena."""

    contestants_count: int
    is_open: bool
    why_closed: str | None
    consent_needed: bool
    """The visitor has not had a battle yet."""
    consent: dict[str, bool] | None
    """What was agreed to last."""
    limits: ArenaLimits
    sampling: str
    """How pairs are drawn, in a sentence."""
    reasons: list[str]
    is_operator: bool


class LeaderRow(TypedDict):
    """One model."""

    model: str
    rating: float
    low: float
    high: float
    rank_low: int
    rank_high: int
    votes: int
    collecting: bool


class Matrix(TypedDict):
    """(models, models) Points that the row's model won against the column's, and games."""

    models: list[str]
    wins: list[list[float]]
    games: list[list[int]]


class Month(TypedDict):
    """Ratings of one month; `error` where they can't be had."""

    month: str
    votes: int
    error: str | None
    rows: list[LeaderRow]


class PairShown(TypedDict):
    """How often a pair was drawn."""

    model_a: str
    model_b: str
    probability: float | None
    """Of the next draw. None: one of them is not ready."""
    battles: int
    votes: int


class ExclusionShown(TypedDict):
    """Something that is not counted, for everybody to see. A voter's id is shortened."""

    kind: str
    id: str
    reason: str
    created_at: str
    lifted_at: str | None


class Leaderboard(TypedDict):
    """GET /api/leaderboard?sources=human,judge,import&category=&language=&style=1&from=&to=&examples=1."""

    rows: list[LeaderRow]
    error: str | None
    """Why there are no ratings."""
    note: str | None
    """Something about the ratings as a whole, such as how many reversed votes would change who is first."""
    matrix: Matrix
    counts: dict[str, dict[str, int]]
    """source, category and language: value to games, without these filters; `vote`: counted and not counted."""
    months: list[Month]
    method: str
    data_sha256: str
    style: dict[str, dict[str, float]]
    """With style control: feature to effect and error."""
    excluded: dict[str, int]
    """Reason to games that are not counted."""
    exclusions: list[ExclusionShown]
    sampling: list[PairShown]
    sampling_method: str
    has_examples: bool
    """There are example votes; they are counted with `examples=1` only."""


class BattleListed(TypedDict):
    """One battle of a cell of the matrix."""

    id: str
    created_at: str
    model_a: str
    model_b: str
    outcome: str
    category: str | None
    language: str | None
    turns: int
    prompts: list[str] | None
    """None: the voter did not agree to publish."""
    answers_a: list[str] | None
    answers_b: list[str] | None


class BattleList(TypedDict):
    """GET /api/arena/battles?model_a=&model_b=."""

    battles: list[BattleListed]
    total: int


class VoterShown(TypedDict):
    """A voter, by shortened id. `e_value` of 20 or more: the votes fit those of the others too badly for chance."""

    id: str
    votes: int
    e_value: float
    is_outlier: bool
    is_excluded: bool


class FlaggedBattle(TypedDict):
    """A battle that something happened in."""

    id: str
    created_at: str
    state: str
    flags: list[str]
    model_a: str
    model_b: str
    is_excluded: bool


class Operator(TypedDict):
    """GET /api/arena/operator."""

    battles: dict[str, int]
    """State to number."""
    voters: list[VoterShown]
    flagged: list[FlaggedBattle]
    exclusions: list[ExclusionShown]
    sampling: list[PairShown]
