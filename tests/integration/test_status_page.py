"""The status page in Airflow's UI: who gets in, and what a real browser shows of it."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from demo.airflow_rest import AirflowRest
from tests import small_world
from tests.at_work import eventually
from tests.conftest import random_name
from tests.small_world import SmallWorld
from twofold import tables
from twofold.definition.model import Pipeline
from twofold.errors import TwofoldError
from twofold.lake import Lake
from twofold.proof.prover import prove
from twofold.settings import Settings
from twofold.table_state import Landed

Login = Callable[..., dict[str, str]]

ROUTES = (
    "",
    "status.json",
    "runbooks/union-failed",
    *(f"static/{name}" for name in ("page.html", "page.css", "page.js", "parts.js", "charts.js", "format.js")),
    "static/frame.js",
    "static/chart.js",
)
HOSTILE = '<script>document.title = "taken"</script><img src=x onerror="document.title=1">'
WITHIN_S = 120


@pytest.fixture(scope="module")
def world(airflow: Settings, airflow_define: Callable[..., Pipeline]) -> SmallWorld:
    """A pipeline with data in both layers, a proof, and a rejected record whose kind is an attack."""
    made = small_world.build(airflow, airflow_define())
    prove(Lake(airflow, made.pipeline), 0, lambda line: None)
    place = {"kafka_partition": 0, "kafka_offset": 10**6, "kafka_timestamp": datetime.now(UTC), "landing": 3}
    row = {"outcome": tables.REJECTED, "reason_kind": HOSTILE, "reason": HOSTILE, "payload": b"x", **place}
    made.append(tables.STREAM_LOG, [row], Landed(made.pipeline.name, 3, made.topic_id, made.ends(made.rows)))
    return made


@pytest.fixture(scope="module")
def other(airflow_define: Callable[..., Pipeline]) -> Pipeline:
    """A pipeline that nothing was ever sent to."""
    return airflow_define()


@pytest.fixture(scope="module")
def login(airflow: Settings) -> Login:
    """Make a user with a role that may do these (action, resource); returns the headers of their requests."""
    rest, numbers = AirflowRest(airflow), itertools.count()

    def made(*may: tuple[str, str]) -> dict[str, str]:
        name, password = f"{random_name()}_{next(numbers)}", random_name()
        actions = [{"action": {"name": action}, "resource": {"name": resource}} for action, resource in may]
        rest.call("POST", "/auth/fab/v1/roles", json={"name": name, "actions": actions})
        person = {"first_name": "A", "last_name": "B", "email": f"{name}@localhost", "roles": [{"name": name}]}
        rest.call("POST", "/auth/fab/v1/users", json={"username": name, "password": password, **person})
        answer = rest.call("POST", "/auth/token", json={"username": name, "password": password})
        return {"Authorization": f"Bearer {answer['access_token']}"}

    return made


@pytest.fixture(scope="module")
def reader(login: Login) -> dict[str, str]:
    """Someone who may read all DAGs, and do no more."""
    return login(("can_read", "DAGs"), ("can_read", "DAG Runs"))


def get(settings: Settings, route: str, headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.get(f"{settings.airflow_url}/twofold/{route}", headers=headers, timeout=WITHIN_S)


def shown(answer: httpx.Response) -> set[str]:
    assert answer.status_code == 200
    return {pipeline["name"] for pipeline in answer.json()["pipelines"]}


def test_no_route_answers_without_login_or_role(airflow: Settings, login: Login, reader: dict[str, str]) -> None:
    without_role = login(("can_read", "Website"))
    made_up = {"Authorization": "Bearer made.up.token"}
    for route in ROUTES:
        answers = [get(airflow, route, headers).status_code for headers in (None, made_up, without_role, reader)]
        assert answers == [401, 403, 403, 200], route


def test_there_is_no_other_route(airflow: Settings) -> None:
    """Those that FastAPI makes by itself would ask nobody who they are."""
    for route in (
        "docs",
        "redoc",
        "openapi.json",
        "docs/oauth2-redirect",
        "static/../app.py",
        "static/%2e%2e%2fapp.py",
    ):
        assert get(airflow, route).status_code in (401, 404)
        assert "twofold" not in get(airflow, route).text.lower()


def test_a_pipeline_whose_dags_may_not_be_read_is_not_shown(
    airflow: Settings, login: Login, reader: dict[str, str], world: SmallWorld, other: Pipeline
) -> None:
    assert {world.pipeline.name, other.name} <= shown(get(airflow, "status.json", reader))
    own = [
        ("can_read", f"DAG:{other.name}_{kind}")
        for kind in ("services", "batch", "union", "maintenance", "proof", "replay")
    ]
    rights: list[dict[str, str]] = []

    def given() -> bool:
        """A role can name a DAG once the DAG processor has read it."""
        with suppress(TwofoldError):
            rights.append(login(("can_read", "DAG Runs"), *own))
        return bool(rights)

    eventually(given)
    assert shown(get(airflow, "status.json", rights[0])) == {other.name}
    assert shown(get(airflow, "status.json", login(("can_read", "DAG Runs"), *own[1:]))) == set()


def test_files_are_sent_small_and_once(airflow: Settings, reader: dict[str, str]) -> None:
    first = get(airflow, "static/chart.js", reader)
    assert first.headers["content-encoding"] == "gzip"
    assert first.num_bytes_downloaded < 200_000
    assert "script-src 'self'" in first.headers["content-security-policy"]
    again = get(airflow, "static/chart.js", {**reader, "If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    """Debian's Chromium, without a window."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    assert chromium and driver, "type: sudo apt-get install -y chromium chromium-driver"
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,900"):
        options.add_argument(argument)
    opened = webdriver.Chrome(options=options, service=Service(driver))
    opened.set_page_load_timeout(WITHIN_S)
    yield opened
    opened.quit()


@pytest.fixture(scope="module")
def page(airflow: Settings, browser: webdriver.Chrome, world: SmallWorld) -> Page:
    """Logged in by Airflow's own form, and led to the page by the UI's navigation."""
    browser.get(f"{airflow.airflow_url}/auth/login")
    until(browser, lambda: browser.find_elements(By.NAME, "password"))
    browser.find_element(By.NAME, "username").send_keys(airflow.airflow_user)
    browser.find_element(By.NAME, "password").send_keys(airflow.airflow_password.get_secret_value())
    browser.find_element(By.CSS_SELECTOR, "[type=submit]").click()
    until(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "a[href*='/plugin/twofold']"))
    return Page(browser, airflow.airflow_url, world.pipeline.name)


def until(browser: webdriver.Chrome, condition: Callable[[], Any]) -> Any:  # noqa: ANN401
    """Wait for a condition; a timeout says what the browser showed, which a stack trace does not."""
    try:
        return WebDriverWait(browser, WITHIN_S, 0.2).until(lambda _: condition())
    except TimeoutException as error:
        shown = browser.find_element(By.TAG_NAME, "body").text
        logged = [entry["message"] for entry in browser.get_log("browser")]  # type: ignore[no-untyped-call]
        raise AssertionError(f"not within {WITHIN_S} s at {browser.current_url}: {shown!r}; log: {logged}") from error


class Page:
    """The page in the browser, in the UI's frame or on its own, and one pipeline's section of it."""

    def __init__(self, browser: webdriver.Chrome, url: str, pipeline: str) -> None:
        self.browser, self.url, self.pipeline = browser, url, pipeline

    def framed(self) -> WebElement:
        """Open it in the UI's frame; the pipeline's section, once it is drawn."""
        self.browser.switch_to.default_content()
        self.browser.get(f"{self.url}/plugin/twofold")
        frame = until(self.browser, lambda: self.browser.find_elements(By.CSS_SELECTOR, "iframe"))[0]
        self.browser.switch_to.frame(frame)
        return self.section()

    def alone(self) -> WebElement:
        """Open it on its own."""
        self.browser.switch_to.default_content()
        self.browser.get(f"{self.url}/twofold/")
        return self.section()

    def section(self) -> WebElement:
        found: WebElement = until(self.browser, lambda: self.browser.find_elements(By.ID, self.pipeline))[0]
        until(self.browser, lambda: "as of" in self.browser.find_element(By.ID, "fresh").text)
        return found

    def emulate(self, command: str, **parameters: Any) -> None:  # noqa: ANN401
        self.browser.execute_cdp_cmd(f"Emulation.{command}", parameters)

    def script(self, text: str, *arguments: Any) -> Any:  # noqa: ANN401
        return self.browser.execute_script(text, *arguments)


def drawn(canvas: WebElement) -> bool:
    """Whether anything is painted on it."""
    script = """const {width, height} = arguments[0];
        return arguments[0].getContext("2d").getImageData(0, 0, width, height).data.some((value) => value > 0)"""
    return bool(canvas.parent.execute_script(script, canvas))


def test_it_renders_what_is_there(page: Page, world: SmallWorld) -> None:
    section = page.framed()
    text = section.text
    # At once: they are drawn anew as the seconds pass.
    shown = "return [...arguments[0].querySelectorAll('.tile strong')].map((number) => number.textContent)"
    behind, rate, past, late, rejected = page.script(shown, section)
    unioned = sum(row["landing"] == 1 for row in world.rows)
    assert (behind, past, late, rejected) == ("0", f"{len(world.rows) - unioned} records", "–", "3")
    assert rate.endswith("/s")
    assert text.count("✓") == 8
    assert "not_json" in text
    assert f"twofold rejects {world.pipeline.name}" in text
    assert all(drawn(canvas) for canvas in section.find_elements(By.TAG_NAME, "canvas"))


def test_what_came_from_outside_is_text(page: Page) -> None:
    section = page.framed()
    assert HOSTILE in section.text
    assert not section.find_elements(By.CSS_SELECTOR, "script, img")
    assert page.script("return document.title") == "Twofold: status"


def test_links_lead_out_of_the_frame(page: Page) -> None:
    section = page.framed()
    until(page.browser, lambda: section.find_elements(By.LINK_TEXT, "union"))
    section.find_element(By.LINK_TEXT, "union").click()
    page.browser.switch_to.default_content()
    until(page.browser, lambda: page.browser.current_url == f"{page.url}/dags/{page.pipeline}_union")


def test_the_link_from_a_task_leads_to_its_pipeline(page: Page, airflow: Settings) -> None:
    page.browser.switch_to.default_content()
    page.browser.get(airflow.status_page_url.replace("{pipeline}", page.pipeline))
    frame = until(page.browser, lambda: page.browser.find_elements(By.CSS_SELECTOR, "iframe"))[0]
    page.browser.switch_to.frame(frame)
    assert page.section().is_displayed()
    assert page.script("return location.hash") == f"#{page.pipeline}"


def test_it_is_dark_where_the_system_or_the_ui_is(page: Page) -> None:
    ground = "return getComputedStyle(document.body).backgroundColor"
    found = []
    for wish in ("light", "dark"):
        page.emulate("setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": wish}])
        page.alone()
        found.append(page.script(ground))
    page.emulate("setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}])
    page.framed()
    found.append(page.script(ground))
    # As the UI's own switch does.
    page.script("parent.document.documentElement.className = 'dark'")
    until(page.browser, lambda: page.script(ground) != found[2])
    assert found == ["rgb(246, 246, 247)", "rgb(19, 20, 23)", "rgb(246, 246, 247)"]
    assert page.script(ground) == found[1]


def test_it_fits_a_phone(page: Page) -> None:
    page.emulate("setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=1, mobile=True)
    try:
        page.alone()
        beyond = """return [...document.querySelectorAll("body *")]
            .filter((node) => node.getBoundingClientRect().right > 360.5).map((node) => node.outerHTML.slice(0, 80))"""
        assert page.script(beyond) == []
        assert page.script("return [document.documentElement.scrollWidth, innerWidth]") == [360, 360]
    finally:
        page.emulate("clearDeviceMetricsOverride")


def test_it_keeps_the_last_data_and_says_so_when_a_refresh_fails(page: Page) -> None:
    page.alone()
    trouble = page.browser.find_element(By.ID, "trouble")
    page.browser.execute_cdp_cmd("Network.enable", {})
    page.browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*status.json*"]})
    try:
        until(page.browser, trouble.is_displayed)
        assert "does not answer. What you see is of" in trouble.text
        assert page.section().find_elements(By.CLASS_NAME, "tile")
    finally:
        page.browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
    until(page.browser, lambda: not trouble.is_displayed())


def test_it_says_so_when_the_session_has_ended(page: Page) -> None:
    page.alone()
    page.browser.delete_all_cookies()
    trouble = page.browser.find_element(By.ID, "trouble")
    until(page.browser, trouble.is_displayed)
    assert "Your session has ended" in trouble.text
    assert trouble.find_element(By.TAG_NAME, "a").text == "Log in again"
