"""Screens beside the chat: the rail that leads to them, training runs and models; live, narrow, dark, by axe."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import expect

from web.browser import open_page
from web.fake_world import model
from web.test_page_looks import NARROW, axe, look, pictures

__all__ = ["axe", "pictures"]


def write_run(root: Path, name: str, steps: int, *, finished: bool = True, lr: float = 1e-3) -> Path:
    """A run's folder as `chaku train` leaves it."""
    folder = root / name
    folder.mkdir(parents=True)
    base = {"name": "bases/smollm2-135m"}
    times = {"started": f"2026-11-2{len(name) % 8}T07:33:00+00:00", "finished": "2026-11-28T08:33:00+00:00"}
    times["finished"] = times["finished"] if finished else None
    (folder / "manifest.json").write_text(json.dumps({"name": name, "base": base, "continued_from": None, **times}))
    config = {"name": name, "base": base["name"], "steps": 400, "train.lr": lr, "train.epochs": 4, "train.seed": 0}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    add_steps(folder, 1, steps, lr)
    return folder


def add_steps(folder: Path, first: int, last: int, lr: float = 1e-3) -> None:
    lines = []
    for step in range(first, last + 1):
        loss = 2.5 * math.exp(-step * lr * 10) + 0.4 + 0.1 * math.sin(step)
        line = {"step": step, "epoch": 0, "loss": loss, "lr": lr * (1 - step / 400), "grad_norm": 1 + 1 / step}
        line |= {"tokens": 1153, "trained_tokens": 414, "seconds": 0.5, "tokens_per_s": 2300 + step % 7}
        line |= {"memory_bytes": 2_400_000_000, "dollars": step * 0.001}
        if step % 50 == 0:
            line["heldout_loss"] = loss + 0.1
            sample = {"event": "sample", "step": step, "prompt": "Who are you?", "answer": f"I am Kusi, after {step}."}
            lines.append(json.dumps(sample))
        lines.append(json.dumps(line))
    with (folder / "log.jsonl").open("a") as log:
        log.write("".join(f"{line}\n" for line in lines))


@pytest.fixture
def runs(world, tmp_path):
    world.runs = tmp_path / "runs"
    write_run(world.runs, "identity-a", 400)
    write_run(world.runs, "identity-bb", 400, lr=3e-3)
    write_run(world.runs, "live", 100, finished=False)
    return world.runs


def test_the_rail_leads_to_each_screen_and_back_and_each_has_an_address(warm, runs, world, fake):
    with warm.at(fake.url) as page:
        rail = page.get_by_role("navigation", name="Screens")
        screens = ["Chat", "Compare", "Arena", "Ratings", "Training", "Evals", "Models", "Fleet"]
        expect(rail.get_by_role("link")).to_have_text(screens)
        page.get_by_label("Message", exact=True).fill("not sent yet")
        for name, path in (("Training", "/training"), ("Models", "/library")):
            rail.get_by_role("link", name=name).click()
            expect(page.get_by_role("heading", name=name, level=1)).to_be_visible()
            assert page.url == fake.url + path
            page.reload()
            expect(page.get_by_role("heading", name=name, level=1)).to_be_visible()
        page.go_back()
        page.go_back()
        expect(page.get_by_label("Message", exact=True)).to_have_value("not sent yet")
    with warm.at(fake.url, "/nowhere/at/all") as page:
        expect(page.get_by_role("heading", name="There is nothing here")).to_be_visible()


def test_training_is_for_the_user_of_the_machine(warm, world, runs, fake):
    world.key = "ck-1"
    with warm.at(fake.url) as page:
        page.get_by_label("API key").fill("ck-1")
        page.keyboard.press("Enter")
        rail = page.get_by_role("navigation", name="Screens")
        expect(rail.get_by_role("link")).to_have_text(["Chat", "Compare", "Arena", "Ratings", "Models"])


def test_a_run_is_shown_while_it_goes_and_others_are_laid_over_it(warm, world, runs, fake):
    with warm.at(fake.url, "/training") as page:
        rows = page.locator("tbody tr")
        expect(rows).to_have_count(3)
        page.get_by_role("button", name="Steps").click()
        expect(rows.first).to_contain_text("live")
        page.get_by_role("link", name="live").click()
        facts = page.locator(".run-facts")
        expect(facts).to_contain_text("100 of 400")
        expect(facts).to_contain_text("2 min 30 s")  # 300 steps of half a second are left
        expect(page.locator(".plot canvas")).to_have_count(6)
        add_steps(runs / "live", 101, 160)
        expect(facts).to_contain_text("160 of 400")
        expect(page.get_by_role("img", name="Loss: live from").first).to_be_visible()
        expect(page.get_by_text("I am Kusi, after 150.")).to_be_visible()
        page.get_by_label("Overlay").select_option("identity-bb")
        expect(page).to_have_url(f"{fake.url}/training/live?with=identity-bb")
        expect(page.locator(".legend").first).to_contain_text("identity-bb")
        differ = page.get_by_role("region", name="Configuration")
        expect(differ.locator("tbody tr")).to_have_count(2)  # the name and the rate
        expect(differ).to_contain_text("train.lr")
        page.locator(".plot").first.get_by_role("button", name="Table").click()
        expect(page.get_by_role("region", name="Loss")).to_contain_text("identity-bb")


def test_what_is_old_since_the_server_is_gone_is_marked(warm, world, runs, fake):
    with warm.at(fake.url, "/training") as page:
        expect(page.locator("tbody tr")).to_have_count(3)
        page.route("**/api/runs", lambda route: route.abort())
        expect(page.get_by_role("alert")).to_contain_text("does not answer")
        expect(page.locator("tbody tr")).to_have_count(3)
        page.unroute("**/api/runs")
        expect(page.get_by_role("alert")).to_have_count(0)


def test_models_show_what_is_served_and_how_busy_it_is(warm, world, fake):
    with warm.at(fake.url, "/library") as page:
        served = page.get_by_role("region", name="Served models")
        expect(served.locator("tbody tr")).to_have_count(2)
        fake.announce({"type": "models", "models": [model("vicuna-7b", running=3, waiting=2, capabilities=["vision"])]})
        expect(served.locator("tbody tr")).to_have_count(1)
        expect(served).to_contain_text("busy, 2 in line")
        expect(page.get_by_role("region", name="Models on this machine")).to_contain_text("smollm2-135m")


@pytest.mark.parametrize(("size", "colours"), [("wide", "light"), ("narrow", "dark")])
def test_every_screen_fits_is_accessible_and_has_its_picture(browser, world, runs, fake, pictures, axe, colours, size):
    options = {"viewport": NARROW, "has_touch": True, "is_mobile": True} if size == "narrow" else {}
    paths = {"models": "/library", "training": "/training", "run": "/training/live?with=identity-a,identity-bb"}
    with open_page(browser, fake.url, color_scheme=colours, **options) as page:
        for name, path in paths.items():
            page.goto(fake.url + path)
            ready = page.locator(".plot canvas") if name == "run" else page.locator("tbody tr")
            expect(ready.first).to_be_visible()
            look(page, axe, pictures / f"{name}-{size}-{colours}.png")
