"""Images on the page, pasted and dropped in Chromium, reach the engine without metadata."""

from __future__ import annotations

import base64
import hashlib

import pytest
from playwright.sync_api import expect

from chaku.images.data_url import clean
from images.pictures import saved
from web.browser import ask, wait_for_answer
from web.test_page_gateway import serving

SCRIPT = "vision: true\nreplies: [{text: 'I see {images}'}]\n"
HAND = """(box, [kind, data, name, type]) => {
  const carried = new DataTransfer();
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  carried.items.add(new File([bytes], name, { type }));
  const more = kind === "paste" ? { clipboardData: carried } : { dataTransfer: carried };
  const Kind = kind === "paste" ? ClipboardEvent : DragEvent;
  box.dispatchEvent(new Kind(kind, { bubbles: true, cancelable: true, ...more }));
}"""


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    (folder / "script.yaml").write_text(SCRIPT)
    with serving(folder, f"eyes=scripted:{folder}/script.yaml") as running:
        yield running.url


@pytest.mark.parametrize(("kind", "form"), [("paste", "PNG"), ("drop", "JPEG")])
def test_what_is_pasted_or_dropped_is_seen_without_its_metadata(warm, url, kind, form):
    before = saved(form, orientation=6)
    after = clean(before).content
    media_type = f"image/{form.lower()}"
    with warm.at(url) as page:
        box = page.locator(".composer textarea")
        expect(box).to_be_enabled()
        expect(page.get_by_role("button", name="Attach pictures or text files")).to_be_attached()
        box.evaluate(HAND, [kind, base64.b64encode(before).decode(), "photo", media_type])
        expect(page.locator(".attachments img")).to_be_visible()
        ask(page, "What is this?")
        wait_for_answer(page)
        seen = f"I see {media_type} of {len(after)} bytes, sha256 {hashlib.sha256(after).hexdigest()}"
        expect(page.locator(".answer-body")).to_have_text(seen)
        page.reload()  # what is shown now comes from the store
        shown = page.locator(".message.user img").get_attribute("src")
        assert base64.b64decode(shown.partition(",")[2]) == after
