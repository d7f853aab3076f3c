"""Widgets whose modules load too late for anywidget: its own browser part, our modules, and a kernel of a few lines."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anywidget
import plotly.graph_objects as go
import pytest
from lab import CHROMIUM, FLAGS
from playwright.sync_api import Page, sync_playwright

from workbench.widgets import views
from workbench.widgets.hearing import Hearing, module
from workbench.widgets.views import Picture, Table

# anywidget's limit passes before anything is loaded; what it then refuses is told nobody
DEAF = """
AbortSignal.timeout = () => {
  const gone = new AbortController();
  queueMicrotask(() => gone.abort());
  return gone.signal;
};
addEventListener("unhandledrejection", (event) => event.preventDefault());
"""
PLOTLY = "window.Plotly = { react: (place) => (place.textContent = 'drawn'), purge() {} }"
# what anywidget needs of ipywidgets' and Backbone's models and views, with the names they have there
BASE = """
class DOMWidgetModel {
  initialize(state, comm) {
    Object.assign(this, { state, comm, listeners: [] });
    comm.on_msg(this._handle_comm_msg.bind(this));
  }
  get(name) { return this.state[name] }
  set(name, value) { this.state[name] = value; this.trigger(`change:${name}`, this, value) }
  on(name, act, context) { this.listeners.push({ name, act, context }) }
  once() {}
  off(name, act, context) {
    const given = { name, act, context };
    const goes = (one) => Object.keys(given).every((key) => !given[key] || one[key] === given[key]);
    this.listeners = this.listeners.filter((one) => !goes(one));
  }
  trigger(name, ...rest) {
    for (const one of [...this.listeners]) if (one.name === name) one.act.apply(one.context, rest);
  }
  send(content) { sent.push({ custom: content }) }
  save_changes() { sent.push({ update: { heard: this.state.heard } }) }
  _handle_comm_msg(message) {
    const { method, state, content, buffers } = message;
    if (method === "custom") this.trigger("msg:custom", content, buffers);
    else for (const [name, value] of Object.entries(state)) this.set(name, value);
    return Promise.resolve();
  }
}
class DOMWidgetView {
  constructor(model) { this.model = model; this.el = document.body.appendChild(document.createElement("div")); }
  get $el() { return { empty: () => this.el.replaceChildren() } }
  remove() {}
}
window.sent = [];
window.define = (needs, make) => (window.kinds = make({ DOMWidgetModel, DOMWidgetView }));
window.show = async (state) => {
  state.brought = new TextEncoder().encode(state.brought);
  const comm = { on_msg: (act) => (comm.act = act) };
  window.model = new kinds.AnyModel();
  model.initialize(state, comm);
  await new Promise((resolve) => setTimeout(resolve, 50));
  window.view = new kinds.AnyView(model);
  await view.render();
};
window.hears = (message) => void model.comm.act(message)?.catch?.(() => {});
"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found: install it to test modules in a real page")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(params=["in time", "late"])
def page(browser: Any, request: pytest.FixtureRequest) -> Iterator[Page]:
    page = browser.new_page()
    for script in (*[DEAF] * (request.param == "late"), BASE):
        page.add_script_tag(content=script)
    page.add_script_tag(path=Path(anywidget.__file__).parent / "nbextension" / "index.js", type="module")
    yield page
    page.close()


def show(page: Page, widget: Hearing, esm: str | None = None) -> None:
    state = widget.get_state()
    names = [name for name in state if name[0] != "_" and name not in ("layout", "tabbable", "tooltip")]
    kept = {name: state[name] for name in names} | {"brought": widget.brought.decode()}
    page.evaluate("(state) => show(state)", kept | {"_esm": esm or state["_esm"], "_anywidget_id": "one", "_css": ""})


def test_a_table_that_loads_late_hears_the_kernel(page):
    table = Table(label="numbers")
    show(page, table)
    page.wait_for_function("sent.some((one) => one.update)")
    table.heard = page.evaluate("sent.find((one) => one.update).update.heard")
    assert table.heard == 1
    shown = {"columns": ["a"], "kinds": ["number"], "rows": [["41"]], "ids": [0], "note": ""}
    page.evaluate("(message) => hears(message)", {"method": "update", "state": {"shown": shown}})
    page.wait_for_function("document.querySelector('td')?.textContent === '41'", timeout=5000)


def test_without_ours_a_late_module_is_deaf(page):
    """What the mend is for: were it gone, the test above would fail likewise."""
    show(
        page, Table(), (Path(__file__).parents[1] / "workbench/widgets/table.js").read_text().replace("initialize,", "")
    )
    page.wait_for_function("document.querySelector('table') !== null")
    page.evaluate("(message) => hears(message)", {"method": "update", "state": {"label": "changed"}})
    page.wait_for_timeout(200)
    late = page.evaluate("AbortSignal.timeout.toString().includes('queueMicrotask')")
    heard = page.evaluate("document.querySelector('.wb-grid').getAttribute('aria-label')")
    assert heard == ("" if late else "changed")


def test_a_picture_says_what_it_waits_for_until_the_kernel_sends_it(page):
    page.evaluate("window.setTimeout = ((plain) => (act, time, ...rest) => plain(act, time / 10, ...rest))(setTimeout)")
    show(page, Picture(go.Figure(go.Bar(y=[1]))))
    page.wait_for_function("document.body.textContent.includes('Waiting for the kernel, which may be busy')")
    page.wait_for_function("document.body.textContent.includes('does not answer')", timeout=8000)  # it is asked again
    page.wait_for_function("sent.filter((one) => one.custom?.type === 'library').length === 2")
    page.evaluate(
        """(text) => hears({ method: "custom", content: { library: "plotly" }, buffers: [new TextEncoder().encode(text)]
        })""",
        PLOTLY,
    )
    page.wait_for_function("document.body.textContent.trim() === 'drawn'")


def test_a_picture_that_brings_plotly_asks_nobody(page, monkeypatch):
    """As `watch` shows it, whose cell keeps the kernel from answering."""
    monkeypatch.setattr(views, "get_plotlyjs", lambda: PLOTLY)
    show(page, Picture(go.Figure(go.Bar(y=[1])), brings=True))
    page.wait_for_function("document.body.textContent.trim() === 'drawn'", timeout=8000)
    assert not page.evaluate("sent.some((one) => one.custom)")


def test_what_a_page_missed_is_sent_again(monkeypatch):
    told: list[Any] = []
    table = Table()
    table.height = 300
    monkeypatch.setattr("ipywidgets.Widget.send_state", lambda self, key=None: told.append(key))
    table.heard = 1
    assert {"shown", "height"} <= told[-1] <= {"shown", "height", "heard"}


def test_each_of_our_modules_hears():
    for name in ("table.js", "picture.js", "scatter.js"):
        assert "export default { initialize, render };" in module(name)
