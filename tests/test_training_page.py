"""The page of a server that trains: jobs with their curves, the queue, and cancelling by a click that is asked about."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from job_servers import Training, training
from playwright.sync_api import Browser, Page, expect
from test_http_jobs import CHATS, TWO_EPOCHS, uploaded
from test_page import HOSTILE, opened

from graftax.models.backbone import Backbone


@pytest.fixture(scope="module")
def trained(teller: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Training]:
    with training(teller, tmp_path_factory.mktemp("training")) as there:
        yield there


def listed(page: Page, part: str) -> Any:
    return page.locator(f"#jobs-{part} .jobs > li")


@pytest.mark.parametrize("width", [360, 1280])
def test_jobs_are_watched_and_cancelled(browser: Browser, trained: Training, width: int) -> None:
    client, before = trained.served.openai(), len(trained.table.listed(None, 99))
    asked: Any = {"model": "backbone", "training_file": uploaded(client, CHATS), "method": TWO_EPOCHS}
    low = {"graftax": {"priority": -1}}
    done = client.fine_tuning.jobs.create(suffix=f"sums-{width}", **asked)
    bad = client.fine_tuning.jobs.create(model="backbone", training_file=uploaded(client, [{HOSTILE: 1}]))
    for job in (done, bad):
        trained.ended(job.id)
    with trained.holding(), opened(browser, trained.served.url) as page:
        page.set_viewport_size({"width": width, "height": 800})
        page.get_by_role("link", name="Training").click()
        over = listed(page, "over")
        expect(over).to_have_count(before + 2)
        first = over.filter(has_text=f"sums-{width}")
        expect(first).to_contain_text("succeeded")
        expect(first).to_contain_text("4 of 4 steps")
        expect(first).to_contain_text(trained.ended(done.id).model)
        drawn = first.locator(".curve")
        expect(drawn).to_have_attribute("aria-label", f"loss over 4 steps, {loss_of(trained, done.id)}")
        expect(first.locator(".curve polyline")).to_have_count(1)
        expect(over.filter(has_text=bad.id)).to_contain_text(f"no column 'prompt', 'completion'; it has {HOSTILE}")
        expect(page.locator("#jobs-waiting")).to_be_hidden()
        waiting = client.fine_tuning.jobs.create(suffix="later", **asked)
        others = [client.fine_tuning.jobs.create(suffix=f"last-{n}", extra_body=low, **asked).id for n in range(2)]
        expect(listed(page, "waiting").locator(".name:first-child")).to_have_text(["later", "last-0", "last-1"])
        for other in others:
            client.fine_tuning.jobs.cancel(other)
        expect(listed(page, "waiting")).to_have_count(1)
        page.once("dialog", lambda dialog: dialog.dismiss())
        listed(page, "waiting").get_by_role("button", name="Cancel").click()
        assert trained.checked(waiting.id).status == "queued"
        page.once("dialog", lambda dialog: dialog.accept())
        listed(page, "waiting").get_by_role("button", name="Cancel").click()
        expect(page.locator("#jobs-waiting")).to_be_hidden()
        assert trained.ended(waiting.id).status == "cancelled"
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.title() == "backbone · graftax"


def loss_of(trained: Training, job: str) -> str:
    """The losses of the first epoch and the last, as the page tells them."""
    numbers = [event.data["loss"] for event in reversed(trained.table.events(job, 99)) if event.kind == "metrics"]
    first, last = (f"{number:.4g}" for number in (numbers[0], numbers[-1]))
    return f"{first} at first, {last} now"


def test_a_server_that_does_not_train_has_no_such_view(browser: Browser, teller: Backbone) -> None:
    from http_servers import served

    with served(teller) as there, opened(browser, there.url) as page:
        expect(page.locator("#status-text")).to_contain_text("ready")
        expect(page.get_by_role("link", name="Traffic")).to_be_visible()
        expect(page.get_by_role("link", name="Training")).to_be_hidden()
