"""`chaku arena rate` and `chaku leaderboard`, as typed."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from chaku.arena.example_votes import example_votes
from chaku.cli.main import root
from chaku.errors import UsageError
from chaku.store.comparisons import ComparisonBook
from chaku.store.database import open_store

STRENGTH = {"ant": 0.0, "bee": 0.5, "cat": 1.2, "<dog>": 2.0}


def chaku(*words: object) -> Result:
    return CliRunner().invoke(root, [str(word) for word in words], catch_exceptions=False)


@pytest.fixture(scope="module")
def votes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,200 battles in FastChat's format, in two languages, of 60 voters; long answers win more often."""
    random = np.random.default_rng(0)
    names = list(STRENGTH)
    lines = []
    for number in range(1200):
        a, b = random.choice(names, 2, replace=False)
        tokens = random.integers(20, 400, 2)
        gap = STRENGTH[a] - STRENGTH[b] + (tokens[0] - tokens[1]) / 200
        winner = (
            "tie" if random.random() < 0.1 else "model_a" if random.random() < 1 / (1 + np.exp(-gap)) else "model_b"
        )
        counts = {f"sum_assistant_{side}_tokens": int(num) for side, num in zip("ab", tokens, strict=True)}
        lines.append(
            {
                "question_id": number, "model_a": str(a), "model_b": str(b), "winner": winner,
                "judge": f"arena_user_{number % 60}", "language": "English" if number % 3 else "German",
                "conv_metadata": counts, "tstamp": 1.68e9 + number,
            }
        )  # fmt: skip
    path = tmp_path_factory.mktemp("votes") / "votes.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_models_are_rated_in_their_order_with_intervals(votes: Path, tmp_path: Path) -> None:
    result = chaku("arena", "rate", votes, "-o", tmp_path / "ratings.json")
    lines = result.output.splitlines()
    assert [line.split()[1] for line in lines[1:5]] == ["<dog>", "cat", "bee", "ant"]
    assert "sandwich errors by 60 clusters" in result.output and "would put" in result.output
    written = json.loads((tmp_path / "ratings.json").read_bytes())
    assert json.loads(chaku("arena", "rate", votes, "--json").stdout) == written
    dog = written["models"]["<dog>"]
    assert dog["low"] < dog["rating"] < dog["high"] and (dog["rank_low"], dog["rank_high"]) == (1, 1)
    assert written["num_games"] == 1200 and len(written["data_sha256"]) == 64


def test_an_anchor_stands_where_it_is_put(votes: Path) -> None:
    result = chaku("arena", "rate", votes, "--anchor", "ant", "--anchor-rating", 800, "--json")
    assert json.loads(result.stdout)["models"]["ant"]["rating"] == 800
    with pytest.raises(UsageError, match="elk has no rating"):
        chaku("arena", "rate", votes, "--anchor", "elk")


def test_style_control_finds_what_length_did(votes: Path) -> None:
    found = json.loads(chaku("arena", "rate", votes, "--style-control", "--json").stdout)
    effect = found["style"]["tokens"]
    assert effect["effect"] > 4 * effect["error"] > 0


def test_groups_are_rated_apart(votes: Path, tmp_path: Path) -> None:
    found = json.loads(chaku("arena", "rate", votes, "--by", "language", "--json").stdout)
    assert found["English"]["num_games"] == 800 and found["German"]["num_games"] == 400
    lonely = tmp_path / "lonely.csv"
    lonely.write_text("model_a,model_b,winner,language\nx,y,model_a,French\n")
    table = chaku("arena", "rate", votes, lonely, "--by", "language").output
    assert "language French\nno ratings: the games give no ratings: y lost every game" in table


def test_no_ratings_are_an_error_that_says_why(tmp_path: Path) -> None:
    path = tmp_path / "votes.csv"
    path.write_text("model_a,model_b,winner\nx,y,model_a\n")
    with pytest.raises(UsageError, match="y lost every game"):
        chaku("arena", "rate", path)
    assert chaku("arena", "rate", path, "--prior", 1).exit_code == 0
    path.write_text("model_a,model_b,winner\nx,x,model_a\n")
    with pytest.raises(UsageError, match=r"no comparison was found .*1 x a model against itself"):
        chaku("arena", "rate", path)


def test_a_file_becomes_chakus_own_and_rates_the_same(votes: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    assert "1,200 comparisons, 1,200 of them counted" in chaku("arena", "import", votes, "-o", own).output
    assert chaku("arena", "rate", own, "--json").stdout == chaku("arena", "rate", votes, "--json").stdout


def test_the_leaderboard_is_a_table_a_csv_and_a_page_that_is_safe(votes: Path, tmp_path: Path) -> None:
    rows = list(csv.DictReader(chaku("leaderboard", votes, "--csv").stdout.splitlines()))
    assert [row["model"] for row in rows] == ["<dog>", "cat", "bee", "ant"]
    page = tmp_path / "board.html"
    chaku("leaderboard", votes, "--html", page, "--title", "Us & <them>")
    text = page.read_text()
    assert "<dog>" not in text and "&lt;dog&gt;" in text and "Us &amp; &lt;them&gt;" in text
    assert "//" not in text and "<script" not in text


MT_BENCH = Path(__file__).parents[2] / ".." / "shared" / "data" / "mt_bench"


@pytest.mark.parametrize(
    ("file", "ratings"),
    [
        ("human.jsonl", {"gpt-4": 1177, "claude-v1": 1112, "gpt-3.5-turbo": 1104, "llama-13b": 749}),
        ("gpt4_pair.jsonl", {"gpt-4": 1314, "llama-13b": 666}),
    ],
)
def test_mt_benchs_labels_give_the_known_ratings(file: str, ratings: dict[str, int]) -> None:
    if not (MT_BENCH / file).is_file():
        pytest.skip("MT-bench's labels are not on this machine")
    found = json.loads(chaku("arena", "rate", MT_BENCH / file, "--json").stdout)["models"]
    assert {name: round(found[name]["rating"]) for name in ratings} == ratings


@pytest.fixture
def stored(votes: Path, database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The votes, imported into the store that commands use by default."""
    monkeypatch.setenv("CHAKU_DATABASE", f"sqlite:///{database}")
    assert chaku("arena", "import", votes).output.startswith("1,200 new comparisons of 1,200")
    return database


def test_without_a_file_the_store_is_rated(votes: Path, stored: Path) -> None:
    assert chaku("arena", "import", votes).output.startswith("0 new comparisons")
    from_file, from_store = (json.loads(chaku("arena", "rate", *files, "--json").stdout) for files in ((votes,), ()))
    assert from_store == from_file
    assert json.loads(chaku("leaderboard", "--json").stdout)["models"] == from_store["models"]


def test_votes_come_out_again_and_the_snapshot_knows_of_them(stored: Path, tmp_path: Path) -> None:
    chaku("leaderboard", "--html", tmp_path / "board.html")
    chaku("arena", "export", "-o", tmp_path / "all.jsonl")
    chaku("arena", "export", "--redact", "-o", tmp_path / "shared.jsonl")
    ratings = [
        json.loads(chaku("arena", "rate", tmp_path / name, "--json", "--cluster", "none").stdout)["models"]
        for name in ("all.jsonl", "shared.jsonl")
    ]
    assert ratings[0] == ratings[1]
    assert "arena_user" in (tmp_path / "all.jsonl").read_text()
    assert "arena_user" not in (tmp_path / "shared.jsonl").read_text()
    with open_store(f"sqlite:///{stored}") as store:
        gone = ComparisonBook(store).forget("arena_user_3")
    assert gone.snapshots == ("all.jsonl", "board.html", "shared.jsonl")
    assert json.loads(chaku("arena", "rate", "--json").stdout)["num_games"] == 1180


def test_a_window_of_time_chooses_games_of_files_and_store_alike(stored: Path, votes: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in votes.read_text().splitlines()]
    moved = [{**line, "tstamp": 1.68e9 + number * 3600} for number, line in enumerate(lines)]
    path = tmp_path / "moved.jsonl"
    path.write_text("\n".join(map(json.dumps, moved)))
    window = ("--since", "2023-04-01", "--until", "2023-04-20")
    by_file = json.loads(chaku("arena", "rate", path, *window, "--json").stdout)
    assert 0 < by_file["num_games"] < 1200
    empty = CliRunner().invoke(root, ["arena", "rate", "--since", "2030-01-01"])
    assert isinstance(empty.exception, UsageError) and "no votes" in str(empty.exception)


def test_example_votes_count_only_if_they_are_asked_for(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAKU_DATABASE", f"sqlite:///{database}")
    with open_store(f"sqlite:///{database}") as store:
        for _ in range(2):
            ComparisonBook(store).add(example_votes("steady", "pirate"), is_example=True)
        assert ComparisonBook(store).games() == []
    assert "steady" in chaku("leaderboard", "--examples").output
    refused = CliRunner().invoke(root, ["leaderboard"])
    assert isinstance(refused.exception, UsageError)


def test_fastchats_logs_rate_as_an_independent_fit_does(tmp_path: Path) -> None:
    """Votes as FastChat's arena writes them down, and evalica's Bradley-Terry."""
    evalica = pytest.importorskip("evalica")
    random = np.random.default_rng(7)
    names, lines, rows = list(STRENGTH), [], []
    kinds = {"leftvote": evalica.Winner.X, "rightvote": evalica.Winner.Y, "tievote": evalica.Winner.Draw,
             "bothbad_vote": evalica.Winner.Draw}  # fmt: skip
    for number in range(800):
        pair = [str(name) for name in random.choice(names, 2, replace=False)]
        share = 1 / (1 + np.exp(STRENGTH[pair[1]] - STRENGTH[pair[0]]))
        kind = str(random.choice(list(kinds), p=[0.85 * share, 0.85 * (1 - share), 0.1, 0.05]))
        states = [{"model_name": name, "conv_id": f"c{number}", "messages": [["USER", "q"], ["ASSISTANT", "r"]]}
                  for name in pair]  # fmt: skip
        lines.append({"type": kind, "models": ["", ""], "states": states, "tstamp": 1.68e9 + number, "ip": "10.9.8.7"})
        rows.append((*pair, kinds[kind]))
    log = tmp_path / "2023-05-01-conv.json"
    log.write_text("\n".join(map(json.dumps, lines)))
    url = f"sqlite:///{tmp_path / 'chaku.db'}"
    chaku("arena", "import", log, "--database", url)
    found = json.loads(chaku("arena", "rate", "--database", url, "--json").stdout)["models"]
    oracle = evalica.bradley_terry(*map(list, zip(*rows, strict=True)), tolerance=1e-12, limit=100_000).scores
    points = 400 / np.log(10) * np.log(oracle)
    for name, rating in (points - points.mean() + 1000).items():
        assert found[name]["rating"] == pytest.approx(rating, abs=0.01)
    assert b"10.9.8.7" not in b"".join(file.read_bytes() for file in tmp_path.glob("chaku.db*"))
