"""The pages in a real browser: nothing leaves them, nothing is amiss, all can be reached by mouse and keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import decisions
import pytest
import reports
from chromium import Tab, browser, find_chromium

from tl_core.report import render_report
from tl_core.report.decision_page import render_decision

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>\u202e\udcff\x00' + "w" * 90
FACTS = {
    **reports.DEMOS,
    "everything ok": lambda: reports.full_demo("ok"),
    "everything to act on": lambda: reports.full_demo("warn"),
    "everything unclear": lambda: reports.full_demo("unclear"),
    "hostile": lambda: reports.hostile_demo(EVIL),
}
DECISIONS = {f"decision, {name}": facts for name, facts in decisions.DEMOS.items()} | {
    "decision, hostile": lambda: decisions.hostile(EVIL)
}
PAGES = [*FACTS, *DECISIONS]
# elements wider than the window that no scrolling box of their own holds
SPILL = """
(() => {
  const wide = document.documentElement.clientWidth;
  const boxed = e => { for (let p = e.parentElement; p && p !== document.body; p = p.parentElement)
    if (getComputedStyle(p).overflowX !== "visible") return true; return false; };
  return [...document.querySelectorAll("main *")].filter(e => {
    const r = e.getBoundingClientRect();
    return r.width > 0 && r.right > wide + 1 && !boxed(e) && !(e instanceof SVGElement);
  }).slice(0, 5).map(e => e.tagName + "." + e.className);
})()
"""
CONTRAST = """
(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
  const rgb = colour => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = c => { const [r, g, b] = c.map(v => { v /= 255; return v <= 0.04045 ? v / 12.92 :
    ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor);
    if (c[3] === 255) return c; } return [255, 255, 255, 255]; };
  const poor = new Set();
  for (const e of document.querySelectorAll("header *, main *, footer *")) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || e instanceof SVGElement || !e.getClientRects().length) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.add(e.tagName + "." + e.className + " " + ratio.toFixed(2));
  }
  return [...poor];
})()
"""
DEAD_LINKS = """
[...document.querySelectorAll("a[href]")].map(a => a.getAttribute("href"))
  .filter(h => h !== "report.html" && (!h.startsWith("#") || !document.getElementById(h.slice(1))))
"""
REPEATED_IDS = """
(ids => ids.filter((id, i) => ids.indexOf(id) !== i))([...document.querySelectorAll("[id]")].map(e => e.id))
"""
NAMELESS = """
[...document.querySelectorAll("a, button, summary, [role=img], [role=region], [role=group]")].filter(e =>
  !(e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") || e.textContent.trim())).map(e => e.outerHTML)
"""
SHOWN = '[...document.querySelectorAll("#rows tbody")].filter(b => b.getClientRects().length).map(b => b.id)'


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium found; install one, or name its program in TL_CHROMIUM")
    with browser(program, tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    texts = {name: render_report(facts()) for name, facts in FACTS.items()}
    texts |= {name: render_decision(facts()) for name, facts in DECISIONS.items()}
    paths = {name: folder / f"{number}.html" for number, name in enumerate(texts)}
    for name, text in texts.items():
        paths[name].write_text(text, encoding="utf-8")
    return paths


@pytest.mark.parametrize("name", PAGES)
def test_nothing_leaves_and_nothing_is_amiss_at_any_width_in_any_light(
    name: str, tab: Tab, pages: dict[str, Path]
) -> None:
    tab.open(pages[name])
    tab.value("document.querySelectorAll('details').forEach(d => d.open = true)")
    for width, dark in ((1100, False), (700, True), (360, False)):
        tab.show(width, dark=dark)
        spilled = tab.value(SPILL)
        assert tab.value("document.documentElement.scrollWidth <= innerWidth"), (width, spilled)
        assert spilled == [], width
        assert tab.value(CONTRAST) == [], (width, dark)
    assert tab.complaints() == []
    assert tab.requests() == [pages[name].as_uri()]


@pytest.mark.parametrize("name", PAGES)
def test_each_section_has_its_heading_and_room(name: str, tab: Tab, pages: dict[str, Path]) -> None:
    tab.open(pages[name])
    sections = tab.value(
        """[...document.querySelectorAll("main > section")].map(s => [s.getAttribute("aria-labelledby"),
        !!document.getElementById(s.getAttribute("aria-labelledby")), s.getBoundingClientRect().height])"""
    )
    assert len(sections) >= 4
    assert all(found and height > 60 for _, found, height in sections), sections
    levels = tab.value('[...document.querySelectorAll("h1, h2, h3, h4")].map(h => +h.tagName[1])')
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert tab.value(DEAD_LINKS) == []
    assert tab.value(REPEATED_IDS) == []
    assert tab.value(NAMELESS) == []


def test_a_click_on_a_cell_shows_its_rows_and_no_others(tab: Tab, pages: dict[str, Path]) -> None:
    tab.open(pages["everything to act on"])
    everything = tab.value(SHOWN)
    assert len(everything) > 5
    tab.click("svg.heat a.miss")
    wanted = tab.value("document.querySelector('svg.heat a.miss').getAttribute('href').slice(1)")
    assert tab.soon(SHOWN, [wanted])
    assert tab.soon("document.querySelector('svg.heat a[aria-current=true]')?.getAttribute('href')", f"#{wanted}")
    said = tab.value("document.getElementById('shown-rows').textContent")
    assert said.startswith("Shown: ")
    assert "labelled" in said
    tab.click("#rows .reset")
    assert tab.soon(SHOWN, everything)
    assert tab.soon("document.getElementById('shown-rows').textContent.slice(0, 4)", "All ")


def test_a_row_that_a_gallery_shows_stands_in_the_file_once_and_on_the_page_twice(
    tab: Tab, pages: dict[str, Path]
) -> None:
    message = "hi can you cancle my last order and give me the money back pls"
    assert pages["everything to act on"].read_text(encoding="utf-8").count(message) == 1
    tab.open(pages["everything to act on"])
    assert tab.value("document.querySelector('#rows a.twin').parentElement.textContent").startswith(message)
    assert tab.value(f"document.body.innerText.split({message!r}).length") == 3


def test_the_matrix_is_one_stop_of_the_tab_key_and_arrows_go_on(tab: Tab, pages: dict[str, Path]) -> None:
    tab.open(pages["everything to act on"])
    assert tab.value("[...document.querySelectorAll('svg.heat a')].filter(a => a.tabIndex === 0).length") == 1
    tab.value("document.querySelector('svg.heat').closest('.scroll').focus()")
    tab.press("Tab")
    first = tab.value("document.activeElement.dataset.at")
    assert first is not None
    tab.press("ArrowDown")
    second = tab.value("document.activeElement.dataset.at")
    assert int(second.split()[0]) > int(first.split()[0])
    assert tab.value("getComputedStyle(document.activeElement.querySelector('rect')).strokeWidth") == "2px"
    tab.press("Enter")
    wanted = "cell-" + second.replace(" ", "-")
    assert tab.soon(SHOWN, [wanted])
    assert tab.soon("document.activeElement.closest('tbody')?.id", wanted)


def test_a_click_on_a_title_sorts_the_classes_and_says_so(tab: Tab, pages: dict[str, Path]) -> None:
    tab.open(pages["image"])
    column = "[...document.querySelectorAll('table.sortable tbody tr')].map(r => +r.cells[3].dataset.v)"
    before = tab.value(column)
    button = "table.sortable thead th:nth-child(4) button"
    tab.click(button)
    assert sorted(before) != before
    assert tab.soon(column, sorted(before))
    tab.value(f"document.querySelector('{button}').focus()")
    tab.press("Enter")
    assert tab.soon(column, sorted(before, reverse=True))
    assert tab.value(f"document.querySelector('{button}').parentElement.getAttribute('aria-sort')") == "descending"


def test_without_the_script_the_rows_can_be_filtered_all_the_same(tab: Tab, pages: dict[str, Path]) -> None:
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.open(pages["everything to act on"])
        tab.click("svg.heat a.miss")
        assert tab.soon(f"{SHOWN}.length", 1)
        assert tab.value("document.querySelectorAll('.sort').length") == 0
    finally:
        tab.call("Emulation.setScriptExecutionDisabled", value=False)


def test_printing_shows_all_that_is_folded_and_no_filter(tab: Tab, pages: dict[str, Path]) -> None:
    tab.open(pages["everything to act on"])
    tab.show(on_paper=True)
    tab.value("dispatchEvent(new Event('beforeprint'))")
    assert tab.soon("[...document.querySelectorAll('main details')].every(d => d.open)", True)
    tab.value("location.hash = document.querySelector('svg.heat a.miss').getAttribute('href')")
    assert len(tab.value(SHOWN)) > 3
    assert tab.value("getComputedStyle(document.querySelector('.rows .scroll')).overflowY") == "visible"
    assert tab.value("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert len(tab.call("Page.printToPDF")["data"]) > 10_000
