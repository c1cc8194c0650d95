import json
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner

from chaku.cli.keys import keys
from chaku.errors import InvalidRequest, NotFound, StoreError, UsageError
from chaku.store.database import open_store
from chaku.store.keyring import KeyRing
from chaku.store.usage import UsageRow, record


@pytest.fixture
def url(tmp_path, monkeypatch) -> str:
    url = f"sqlite:///{tmp_path / 'chaku.db'}"
    monkeypatch.setenv("CHAKU_DATABASE", url)
    return url


def run(*arguments: str):
    return CliRunner().invoke(keys, arguments, catch_exceptions=True)


def test_create_prints_the_token_alone_on_stdout_and_the_token_works(url):
    result = run("create", "laptop")
    assert result.exit_code == 0
    token = result.stdout.removesuffix("\n")
    assert "can't be shown again" in result.stderr
    assert "From now on, every gateway on this database asks callers for a key" in result.stderr
    with open_store(url) as store:
        assert KeyRing(store).find(token).name == "laptop"


def test_create_as_json_has_the_token_and_list_never_does(url):
    made = json.loads(run("create", "laptop", "--json").stdout)
    listed = run("list", "--json")
    (key,) = json.loads(listed.stdout)["keys"]
    token = made.pop("token")
    assert key == made
    assert (key["name"], key["last_used_at"], key["revoked_at"]) == ("laptop", None, None)
    assert datetime.fromisoformat(key["created_at"]).utcoffset() is not None
    for output in (listed.output, run("list").output, run("list", "--usage").output):
        assert token not in output
        assert key["prefix"] in output


def test_list_shows_what_each_key_used_and_what_came_without_one(url):
    made = json.loads(run("create", "laptop", "--json").stdout)
    now = datetime.now(UTC)
    with open_store(url) as store:
        for key_id in (made["id"], None, None):
            row = UsageRow(
                time=now, model="m", route="chat", status=200, duration_s=1, request_id="r", key_id=key_id,
                prompt_tokens=1200, cached_tokens=200, completion_tokens=34,
            )  # fmt: skip
            record(store, [row])
    listed = json.loads(run("list", "--usage", "--json").stdout)
    one = {"num_requests": 1, "num_failed": 0, "prompt_tokens": 1200, "cached_tokens": 200, "completion_tokens": 34}
    one |= {"dollars": 0}
    assert listed["keys"][0]["usage"] == one
    assert datetime.fromisoformat(listed["keys"][0]["last_used_at"]) == now
    assert listed["without_key"] == {name: 2 * count for name, count in one.items()}
    head, laptop, keyless = (line.split("\t") for line in run("list", "--usage").stdout.splitlines())
    assert dict(zip(head, laptop, strict=True))["prompt"] == "1,200"
    assert (keyless[0], dict(zip(head, keyless, strict=True))["requests"]) == ("(no key)", "2")


def test_list_of_nothing_says_how_to_make_one(url):
    result = run("list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "chaku keys create" in result.stderr


def test_revoke_takes_the_name_and_the_list_says_so(url):
    token = run("create", "laptop").stdout.strip()
    result = run("revoke", "laptop")
    assert (result.exit_code, "'laptop'" in result.stdout) == (0, True)
    assert "revoked" in run("list").stdout
    with open_store(url) as store:
        assert KeyRing(store).find(token) is None


def test_the_database_option_wins_over_the_environment(url, tmp_path):
    other = f"sqlite:///{tmp_path / 'other.db'}"
    run("create", "laptop", "--database", other)
    assert "laptop" not in run("list").output
    assert "laptop" in run("list", "--database", other).output


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["create", "laptop"], InvalidRequest),
        (["revoke", "phone"], NotFound),
        (["list", "--database", "sqlite://"], StoreError),
    ],
)
def test_what_goes_wrong_is_one_error_of_ours(url, arguments, error):
    run("create", "laptop")
    result = run(*arguments)
    assert type(result.exception) is error
    assert result.exception.fix


def test_a_table_is_drawn_on_a_terminal_and_a_name_is_not_markup(url, monkeypatch):
    run("create", "[bold]x[/bold]")
    monkeypatch.setattr("chaku.cli.keys._is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    result = run("list", "--usage")
    assert result.exit_code == 0
    assert "[bold]x[/bold]" in result.stdout
    assert "\t" not in result.stdout
    assert len(result.stdout.splitlines()) == 2  # no cell is folded at 80 columns


def test_a_database_that_is_not_there_is_no_empty_list(tmp_path):
    with pytest.raises(UsageError, match="there is no database"):
        CliRunner().invoke(keys, ["list", "--database", f"sqlite:///{tmp_path}/typo.db"], catch_exceptions=False)
    assert not (tmp_path / "typo.db").exists()


def test_a_new_key_says_how_the_terminal_takes_it(url):
    assert "OPENAI_API_KEY=" in CliRunner().invoke(keys, ["create", "two", "--database", url]).stderr


def test_limits_are_given_changed_and_lifted(url):
    made = json.loads(
        run("create", "demo", "--expires", "30d", "--tokens-per-day", "50_000", "--model", "m", "--json").stdout
    )
    assert made["limits"] == {"tokens_per_day": 50000, "models": ["m"]}
    assert 29 <= (datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC)).days <= 30
    assert "50,000 tokens per day" in run("list").stdout
    edited = run("edit", "demo", "--tokens-per-day", "none", "--model", "all", "--expires", "never")
    assert "no limits" in edited.stdout
    (key,) = json.loads(run("list", "--json").stdout)["keys"]
    assert (key["limits"], key["expires_at"]) == ({}, None)
    run("edit", "demo", "--expires", "2020-01-01", "--dollars-per-month", "2.5")
    assert "expired" in run("list").stdout
    assert "2.5 dollars per month" in run("list").stdout


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--tokens-per-day", "0"),
        ("--tokens-per-day", "-1"),
        ("--tokens-per-day", "9" * 20),
        ("--max-tokens", "1.5"),
        ("--dollars-per-month", "nan"),
        ("--dollars-per-month", "1e300"),
        ("--expires", "soon"),
    ],
)
def test_an_odd_limit_is_refused_by_the_option_s_name(url, option, value):
    result = run("create", "demo", option, value)
    assert result.exit_code == 2
    assert option in result.stderr
    assert json.loads(run("list", "--json").stdout)["keys"] == []


def test_an_edit_without_an_option_says_what_to_give(url):
    run("create", "demo")
    with pytest.raises(UsageError, match="nothing is to be changed"):
        CliRunner().invoke(keys, ["edit", "demo"], catch_exceptions=False)


def test_usage_is_shown_by_key_model_and_day(url):
    made = json.loads(run("create", "laptop", "--json").stdout)
    now = datetime.now(UTC)
    with open_store(url) as store:
        for key_id, dollars in ((made["id"], 0.25), (None, 0.0)):
            row = UsageRow(
                time=now, model="m", route="chat", status=200, duration_s=1, request_id="r", key_id=key_id,
                prompt_tokens=1200, completion_tokens=34, dollars=dollars,
            )  # fmt: skip
            record(store, [row])
    by_key = json.loads(run("usage", "--json").stdout)["usage"]
    assert [(row["key"], row["num_requests"], row["dollars"]) for row in by_key] == [(None, 1, 0), ("laptop", 1, 0.25)]
    head, line = run("usage", "--by", "model", "--by", "day", "--csv").stdout.splitlines()
    assert head == "model,day,num_requests,num_failed,prompt_tokens,cached_tokens,completion_tokens,dollars"
    assert line == f"m,{now:%Y-%m-%d},2,0,2400,0,68,0.25"
    assert "laptop\t1\t0\t1,200\t0\t34\t0.2500" in run("usage").stdout
    assert "Nothing was used" in run("usage", "--since", "2999-01-01").stderr
