"""The notice for guests in a real browser: read once, then the chat opens."""

from __future__ import annotations

from playwright.sync_api import expect


def test_a_guest_reads_the_notice_and_begins(warm, world, fake):
    world.key = "ck-right"
    world.guest_notice = ["This is a research preview.", "Your chats are stored here."]
    with warm.at(fake.url) as page:
        expect(page.get_by_text("This is a research preview.")).to_be_visible()
        expect(page.get_by_label("API key")).to_be_visible()
        page.get_by_role("button", name="I understand").click()
        expect(page.get_by_role("textbox", name="Message")).to_be_visible()
    with warm.at(fake.url) as page:
        page.get_by_label("API key").fill("ck-right")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_text("research preview")).to_have_count(0)
