"""The parts that screens are built of: by axe, on a narrow screen in the dark, and by keyboard."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from web.browser import open_page
from web.fake_page import FakePage
from web.fake_world import World
from web.test_page_looks import NARROW, axe, look, pictures

__all__ = ["axe", "pictures"]

SHOW = """async () => {
  const base = document.querySelector('script[src]').src.replace('app/main.js', 'ui/');
  await (await import(`${base}style.js`)).addStyle(new URL(`${base}kit.css`, location.href));
  const names = ['html', 'tabs', 'field', 'charts', 'table', 'states'];
  const parts = Object.assign({}, ...await Promise.all(names.map(name => import(`${base}${name}.js`))));
  const {html, render, useState, Tabs, Field, Select, Interval, Matrix, Table, Empty, Progress} = parts;
  const rows = [
    {name: 'vicuna-7b', low: 1010, value: 1040, high: 1065},
    {name: 'alpaca-7b', low: 930, value: 960, high: 1000},
  ];
  const columns = [
    {name: 'model', cell: row => row.name, by: row => row.name},
    {name: 'rating', cell: row => row.value, by: row => row.value, isNumber: true},
    {name: '95 % interval', cell: row => html`<${Interval} ...${row} from=${900} to=${1100} />`},
  ];
  const views = [
    {name: 'ratings', label: 'Ratings'},
    {name: 'wins', label: 'Win rates'},
    {name: 'scores', label: 'Scores'},
  ];
  const models = ['vicuna-7b', 'alpaca-7b', 'a-model-with-a-long-name-13b'];
  const wins = [[null, 0.7, 1], [0.3, null, 0.5], [0, 0.5, null]];
  const draw = {
    ratings: () => html`<${Table} label="Ratings" columns=${columns} rows=${rows} keyOf=${row => row.name} />`,
    wins: () => html`<${Matrix} title="Win rates" names=${models} values=${wins} />`,
    scores: () => html`<${Empty} title="No scores yet" command="chaku eval run">Judge some answers first.<//>`,
  };
  function Screen() {
    const [tab, setTab] = useState('ratings');
    const [category, setCategory] = useState('all');
    return html`<main class="screen">
      <h1>Kit</h1>
      <${Select} label="Category" help="of the prompts" value=${category} onChoose=${setCategory}
        options=${['all', 'coding', 'maths'].map(value => ({value, label: value}))} />
      <${Field} label="Least votes" draw=${id => html`<input id=${id} type="number" value="30" />`} />
      <${Tabs} label="Views" tabs=${views} chosen=${tab} onChoose=${setTab}>${draw[tab]()}<//>
      <p>Chosen: ${category}</p>
      <${Progress} value=${0.4} label="Judging" />
      <${Empty} title="No battles yet" command="chaku serve a b">Ask two models the same.<//>
    </main>`;
  }
  const place = document.createElement('div');
  document.querySelector('.chat-screen').replaceWith(place);
  render(html`<${Screen} />`, place);
}"""


@pytest.fixture(scope="module", params=["wide", "narrow"])
def kit(request, browser):
    options = {"viewport": NARROW, "color_scheme": "dark"} if request.param == "narrow" else {}
    with FakePage(World()).running() as fake, open_page(browser, fake.url, **options) as page:
        expect(page.get_by_label("Message", exact=True)).to_be_visible()
        page.evaluate(SHOW)
        page.name = request.param  # type: ignore[attr-defined]
        yield page


@pytest.mark.parametrize("view", ["Ratings", "Win rates", "Scores"])
def test_each_view_fits_and_is_accessible(kit: Page, pictures, axe, view: str) -> None:
    kit.get_by_role("tab", name=view).click()
    expect(kit.get_by_role("tabpanel", name=view)).to_be_visible()
    look(kit, axe, pictures / f"kit-{view.replace(' ', '-').lower()}-{kit.name}.png")  # type: ignore[attr-defined]


def test_tabs_are_walked_with_the_arrow_keys(kit: Page) -> None:
    kit.get_by_role("tab", name="Ratings").click()
    for key, name in [
        ("ArrowRight", "Win rates"),
        ("End", "Scores"),
        ("ArrowRight", "Ratings"),
        ("ArrowLeft", "Scores"),
        ("Home", "Ratings"),
    ]:
        kit.keyboard.press(key)
        expect(kit.get_by_role("tab", name=name)).to_be_focused()
        expect(kit.get_by_role("tab", name=name)).to_have_attribute("aria-selected", "true")
    assert kit.locator("[role=tab][tabindex='0']").count() == 1


def test_a_choice_is_labelled_and_heard(kit: Page) -> None:
    kit.get_by_label("Category").select_option("coding")
    expect(kit.get_by_text("Chosen: coding")).to_be_visible()


def test_every_picture_of_numbers_has_its_numbers(kit: Page) -> None:
    kit.get_by_role("tab", name="Ratings").click()
    expect(kit.get_by_role("img", name="1040, between 1010 and 1065")).to_be_visible()
    kit.get_by_role("tab", name="Win rates").click()
    cells = kit.get_by_role("region", name="Win rates").locator("td")
    assert cells.all_inner_texts() == ["–", "70 %", "100 %", "30 %", "–", "50 %", "0 %", "50 %", "–"]
