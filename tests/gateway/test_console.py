"""The console in a real browser: what it shows, what its buttons do, what it never lets in."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import msgspec
import numpy as np
import pytest
from playwright.async_api import Browser, Page, async_playwright

from cascade import config
from cascade.certify import Certificate
from cascade.gateway.console import checks_of, flow_of, load_page
from cascade.gateway.keys import Keys
from cascade.gateway.lanes import Lanes
from cascade.gateway.observe import Metrics
from cascade.store import AuditRecord, DecisionRecord, Said
from cascade.types import Answer, Query, Reply, Usage

from .conftest import TASK, Build, House, lane_of, send, typed, until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium"
)
HOSTILE = "<img src=x onerror=alert(1)>"


def answered(tier: str, at: float, **changes: Any) -> DecisionRecord:
    trail = (Said(tier, 0.1, 0.01, label="yes", confidence=0.9, needed=0.8),)
    fields = {"reason": "certified", "tier": tier, "label": "yes", "trail": trail, **changes}
    return DecisionRecord(f"d{at}", at, "mood", **fields)


def test_a_flow_adds_up() -> None:
    passed_on = (Said("proxy", 0.0, 0.0, label="no", confidence=0.5), Said("large", 1.0, 0.4, "no"))
    records = [
        answered("proxy", 3.0, seconds=0.2, dollars=0.01),
        answered("large", 2.0, reason="audit", dollars=0.2, trail=()),
        answered("large", 1.0, reason="below_threshold", dollars=0.5, trail=passed_on),
    ]
    flow = flow_of(records, ["proxy", "large"])
    assert (flow.decisions, flow.below, flow.since, flow.until) == (2, 1, 1.0, 3.0)
    assert [(one.tier, one.asked, one.answered) for one in flow.stations] == [
        ("proxy", 2, 1),
        ("large", 1, 1),
    ]
    assert flow.reasons == {"certified": 1, "below_threshold": 1}
    assert [one.at for one in flow.escalations] == [1.0]
    # the teacher's own price, not the escalation's; and an audit's is the same price
    assert flow.money.teacher_only == pytest.approx(2 * (0.4 + 0.2) / 2)
    assert (flow.money.spent, flow.money.audits) == (0.51, 0.2)


def test_no_data_yet_is_no_figure() -> None:
    flow = flow_of([], ["proxy", "large"])
    assert flow.money.teacher_only is None and flow.since is None
    assert [one.p50_seconds for one in flow.stations] == [None, None]
    assert checks_of([]) == []


def test_rare_audits_weigh_more() -> None:
    """Counting audits alike would favour whatever is audited most."""
    often = AuditRecord("a", 1.0, "mood", "proxy", "no", 0.5, settled_at=1.0, teacher_answer="no")
    rarely = AuditRecord("b", 2.0, "mood", "proxy", "no", 0.01, settled_at=2.0)
    assert checks_of([rarely, often])[-1].agreement == pytest.approx(2 / 102)


def test_the_page_runs_only_what_is_written_in_it() -> None:
    page = load_page()
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and policy.count("'sha256-") == 2
    assert "unsafe" not in policy and "http" not in policy
    text = page.body.decode()
    assert text.count("<script") == text.count("<style") == 1
    for attribute in ("onclick", "onerror", "onload", "style=", "innerHTML", "insertAdjacent"):
        assert attribute not in text


async def test_without_an_admin_key_there_is_no_console(open_house: Build) -> None:
    with open_house() as house:
        got = await send(house.url + "/console", method="GET")
        assert got.status == 200 and got.headers["content-type"].startswith("text/html")
        house.services.admin_keys = Keys([])
        assert (await send(house.url + "/console", method="GET")).status == 403


async def test_overview_wants_a_task(house: House) -> None:
    headers = {"authorization": "Bearer admin-secret"}
    url = f"{house.url}/admin/overview"
    assert (await send(f"{url}?task=none", method="GET", **headers)).status == 404
    assert (await send(f"{url}?task=mood", method="GET")).status == 401
    got = await send(f"{url}?task=mood", method="GET", **headers)
    assert got.json["flow"]["decisions"] == 0 and got.json["checks"] == []
    assert got.json["teacher"] == "large" and got.json["bound"] is None


class Fallible:
    """A tier that is as often right as it says, about texts of the form "<number> ...".

    seconds : how long an answer takes. sure : shape of its confidence, from 0 to 1.
    """

    def __init__(self, name: str, seconds: float, sure: tuple[float, float], dollars: float):
        self.name = name
        self._seconds = seconds
        self._sure = sure
        self._usage = Usage(prompt_tokens=80, output_tokens=1, seconds=seconds, dollars=dollars)

    async def answer(self, queries: list[Query]) -> list[Reply]:
        await asyncio.sleep(self._seconds)
        return [self._reply(int((query.text or "").split()[0])) for query in queries]

    def _reply(self, number: int) -> Reply:
        rng = np.random.default_rng([number, len(self.name)])
        confidence = float(rng.beta(*self._sure))
        truth = "yes" if number % 2 else "no"
        wrong = "no" if number % 2 else "yes"
        right = self.name == "large" or rng.random() < confidence
        return Answer(self.name, truth if right else wrong, confidence, self._usage)


@pytest.fixture
def busy(open_house: Build, certificate: Certificate) -> Iterator[House]:
    """A gateway with some traffic behind it, a quarter of it audited."""
    metrics = Metrics()
    tiers = {
        "proxy": Fallible("proxy", 0.004, (6.0, 0.6), 0.0),
        "small": Fallible("small", 0.05, (6.0, 1.2), 8e-6),
        "large": Fallible("large", 0.15, (20.0, 1.0), 6e-5),
    }
    lanes = Lanes({"mood": lane_of(certificate, metrics, **tiers)})
    audited = config.Audit(rate=0.2, floor=0.05)
    with open_house(lanes=lanes, metrics=metrics, audit=audited) as house:
        asyncio.run(traffic(house, 240))
        until(lambda: len(house.store.audits.settled("mood", 500)) > 15, seconds=60)
        yield house


async def traffic(house: House, requests: int) -> None:
    free = asyncio.Semaphore(16)

    async def one(session: aiohttp.ClientSession, number: int) -> None:
        body = typed(f"{number} stars")
        async with free, session.post(f"{house.v1}/chat/completions", json=body) as answer:
            assert answer.status == 200

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(one(session, number) for number in range(requests)))


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        # as root, in a container: neither a sandbox nor much of /dev/shm
        arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        await browser.close()


@asynccontextmanager
async def console(house: House, **settings: Any) -> AsyncIterator[Page]:
    """Opened with the right key; whatever the browser complains of fails the test."""
    complaints: list[str] = []
    async with chromium() as browser:
        page = await browser.new_page(**settings)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text))
        await enter(page, house.url, "admin-secret")
        await page.wait_for_selector(".figures")
        yield page
    assert complaints == []


async def enter(page: Page, url: str, key: str) -> None:
    await page.goto(f"{url}/console")
    await page.fill("#key", key)
    await page.press("#key", "Enter")


@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("desktop", {"viewport": {"width": 1280, "height": 1080}}),
        ("phone", {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2}),
        ("dark", {"viewport": {"width": 1280, "height": 1080}, "color_scheme": "dark"}),
    ],
)
async def test_it_shows_what_happens(
    busy: House, tmp_path: Any, name: str, settings: dict[str, Any]
) -> None:
    async with console(busy, **settings) as page:
        text = await page.inner_text("main")
        for word in ("Who answers", "Promise", "Audits over time", "Why", "Last escalations"):
            assert word in text
        assert "240" in text and "p50" in text and "below_threshold" in text
        await page.screenshot(path=tmp_path / f"{name}.png", full_page=True)
        width = await page.evaluate("document.documentElement.scrollWidth")
        assert width == settings["viewport"]["width"]  # nothing sticks out to the side


@needs_chromium
@pytest.mark.slow
async def test_the_switches_ask_first(house: House) -> None:
    async with console(house) as page:
        await page.click("#demote")
        await page.click("text=Cancel")
        lane = house.lanes.get("mood")
        assert lane is not None and not lane.reason
        await page.click("#demote")
        await page.fill("#why", HOSTILE)
        await page.click("#yes")
        await page.wait_for_selector("text=Reinstate the champion")
        lane = house.lanes.get("mood")
        assert lane is not None and (lane.reason, lane.detail) == ("demoted", HOSTILE)
        # what an operator typed is shown as text; as markup it would have run, or complained
        assert HOSTILE in await page.inner_text("main")
        assert await page.locator("main img").count() == 0
        await page.click("#demote")
        await page.click("#yes")
        await page.wait_for_selector("text=Demote the champion")
        await page.click("#switch")
        await page.click("#yes")
        await page.wait_for_selector("text=Everything is switched off")
        assert house.lanes.off
        await page.click("#switch")
        await page.click("#yes")
        await page.wait_for_selector("text=Switch off")
        assert not house.lanes.off


@needs_chromium
@pytest.mark.slow
async def test_a_task_without_a_champion_and_one_with_many_labels(
    open_house: Build, certificate: Certificate, tmp_path: Any
) -> None:
    metrics = Metrics()
    many = {f"proxy:label {i}": 0.9 for i in range(150)}
    thresholds = {**certificate.thresholds, **many}
    wide = msgspec.structs.replace(certificate, thresholds=thresholds)
    rich = replace(lane_of(wide, metrics), task=replace(TASK, name="wide"))
    poor = replace(lane_of(certificate, metrics), version=None, certificate=None)
    lanes = Lanes({"mood": poor.without_champion("no_champion", ""), "wide": rich})
    with open_house(lanes=lanes, metrics=metrics) as house:
        await send(f"{house.v1}/chat/completions", typed("hard"))
        async with console(house) as page:
            text = await page.inner_text("main")
            assert "Nothing is certified for this task" in text and "nothing promoted" in text
            assert not await page.is_visible("#demote")
            await page.screenshot(path=tmp_path / "poor.png", full_page=True)
            await page.click("nav >> text=wide")
            await page.wait_for_selector("text=More thresholds")
            assert "144, in /admin/status" in await page.inner_text("main")


@needs_chromium
@pytest.mark.slow
async def test_the_key_is_asked_for_once_and_can_be_forgotten(house: House) -> None:
    async with chromium() as browser:
        page = await browser.new_page()
        await enter(page, house.url, "a guess")
        await page.wait_for_selector("text=not the admin key")
        await enter(page, house.url, "admin-secret")
        await page.wait_for_selector(".figures")
        await page.reload()
        await page.wait_for_selector(".figures")
        house.served.stop()
        await page.wait_for_selector("text=no contact", timeout=15_000)
        await page.click("#leave")
        assert await page.is_visible("#key")
        assert await page.evaluate("sessionStorage.length + localStorage.length") == 0


INJECTION = """() => {
    const script = document.createElement("script");
    script.textContent = "window.ran = true";
    const image = document.createElement("div");
    image.innerHTML = "<img src=x onerror='window.ran = true'>";
    document.body.append(script, image);
    return fetch("http://127.0.0.2:9/").then(() => "sent", () => "blocked");
}"""


@needs_chromium
@pytest.mark.slow
async def test_the_policy_holds_where_the_page_itself_would_fail(house: House) -> None:
    """Markup that got in all the same runs nothing and tells nobody."""
    async with chromium() as browser:
        page = await browser.new_page()
        refused: list[str] = []
        page.on("console", lambda said: refused.append(said.text))
        await page.goto(f"{house.url}/console")
        assert await page.evaluate(INJECTION) == "blocked"
        await page.wait_for_timeout(200)
        assert await page.evaluate("window.ran") is None
        assert sum("Content Security Policy" in text for text in refused) >= 3
