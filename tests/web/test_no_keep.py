"""A gateway that keeps nothing: the page works as ever and says so, and no text reaches the database."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa

from chaku.cli.serve_options import FLAGS, VARIABLES, serve_options
from chaku.config import load
from chaku.engines.scripted import Reply
from chaku.errors import ConfigError
from chaku.policies import GuestPolicy, Retention
from chaku.settings import ServeConfig
from chaku.store.database import open_store
from chaku.store.tables import metadata
from chaku.web.page import NOT_KEPT
from gateways import page_gateway, scripted
from processes import PATIENCE_S
from tabs import tab

SECRET = "xylophone-secret"


async def test_no_text_reaches_the_database_and_every_screen_says_so(database: Path) -> None:
    engines = [scripted(Reply(text="You said: {prompt}"), name=name) for name in ("scripted", "other")]
    async with page_gateway(database, *engines, keep=False, guests=GuestPolicy()) as g, tab(g) as me, tab(g) as other:
        session = await me.call("GET", "/session")
        assert NOT_KEPT in " ".join(session["guest_notice"])
        assert "stored on this server" not in " ".join(session["guest_notice"])
        await me.call("POST", "/guest")
        await other.call("POST", "/guest")

        async def talk() -> str:
            chat = await me.chat(title=SECRET)
            _, answer = await me.ask(chat, SECRET)
            assert answer["content"] == f"You said: {SECRET}"
            await me.call("PUT", f"/chats/{chat}/messages/{answer['id']}/feedback", {"value": "up", "consent": True})
            return chat

        async def vote() -> None:
            battle = (await me.call("POST", "/arena/battles", {"consent": {"keep": True, "publish": True}}))["id"]
            await me.call("POST", f"/arena/battles/{battle}/turns", {"content": SECRET})
            async with asyncio.timeout(PATIENCE_S), me.stream(f"/arena/battles/{battle}/events") as events:
                async for _ in events:
                    pass
            token = (await me.call("GET", f"/arena/battles/{battle}"))["token"]
            await me.call("POST", f"/arena/battles/{battle}/vote", {"choice": "a", "token": token})
            assert (await me.call("GET", f"/arena/battles/{battle}"))["revealed"]

        await vote()
        chats = await asyncio.gather(*(talk() for _ in range(5)))
        listed = (await me.call("GET", "/chats"))["chats"]
        assert {chat["id"] for chat in listed} == set(chats)
        assert (await other.call("GET", "/chats"))["chats"] == []
        status, page, _ = await me.raw("GET", "/")
        assert status in (200, 503)
        if status == 200:
            assert NOT_KEPT.encode() in page
    with open_store(f"sqlite:///{database}") as store, store.read() as connection:
        said = ("conversations", "messages", "feedback", "battles", "votes", "comparisons", "contestants")
        for name in said:
            rows = connection.execute(sa.select(sa.func.count()).select_from(metadata.tables[name])).scalar_one()
            assert rows == 0, name
        kinds = connection.execute(sa.select(metadata.tables["visitors"].c.kind)).scalars().all()
        assert kinds == ["guest", "guest"]
    for file in database.parent.glob(f"{database.name}*"):
        assert SECRET.encode() not in file.read_bytes()


def test_every_setting_has_a_flag_a_key_and_a_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import click

    command = click.command()(serve_options(lambda **_: None))
    flags = {param.name for param in command.params}
    assert set(ServeConfig.model_fields) - {"models"} <= flags
    given = {
        "MODELS": "smollm2-135m scripted:", "HOST": "127.0.0.1", "PORT": "0", "ALLOWED_HOSTS": "a.example b.example",
        "GUESTS": "true", "MODERATION": "{rules: true, actions: {slur: warn}}", "TRUSTED_PROXIES": "[10.0.0.0/8]",
        "USER_HEADER": "X-Forwarded-User", "CONVERSATION_TURNS": "7", "INPUT_CHARACTERS": "100", "KEEP": "false",
        "PRICES": "m=1/2", "RETENTION_DAYS": "chats=9 usage=5", "CONTESTANTS": "a b=m", "LOG_LEVEL": "WARNING",
        "DATABASE": "sqlite:///x.db", "SCORE_MODEL": "m",
    }  # fmt: skip
    for name, value in given.items():
        monkeypatch.setenv(VARIABLES + name, value)
    file = tmp_path / "serve.yaml"
    file.write_text("input_characters: 1\nconversation_turns: 1\nrouting: lottery\n")
    loaded = load(ServeConfig, file, {"conversation_turns": 9}, flag_names=FLAGS, variables=VARIABLES)
    config = loaded.config
    assert [model.source for model in config.models] == ["smollm2-135m", "scripted:"]
    assert config.allowed_hosts == ("a.example", "b.example")
    assert config.guests == GuestPolicy()
    assert config.moderation is not None and config.moderation.actions == {"slur": "warn"}
    assert (config.conversation_turns, config.input_characters, config.routing) == (9, 100, "lottery")
    assert (config.keep, config.retention_days) == (False, Retention(chats=9, usage=5))
    assert config.prices["m"].completion == 2
    assert [contestant.model for contestant in config.contestants] == ["a", "m"]
    assert loaded.origins["guests"] == "CHAKU_SERVE_GUESTS"
    for name, value in (("PORT", "abc"), ("RETENTION_DAYS", "chats"), ("GUESTS", "{limit: 3}"), ("KEEP", "[")):
        with monkeypatch.context() as changed:
            changed.setenv(VARIABLES + name, value)
            with pytest.raises(ConfigError, match=VARIABLES + name):
                load(ServeConfig, None, {}, flag_names=FLAGS, variables=VARIABLES)
