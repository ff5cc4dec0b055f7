"""The page in a real browser: its filters work, it loads nothing, and hostile text stays text."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from small_records import HOSTILE, records

from alignpre_jax.report.build import build_report
from alignpre_jax.report.page import render_page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome is installed")

POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')


@pytest.fixture(scope="module")
def page():
    return render_page(build_report(records()))


def run(page: str, folder: Path, hash: str = "", *flags: str) -> str:
    """The page's DOM after its scripts, as the browser has it."""
    path = folder / "report.html"
    path.write_text(page)
    command = [
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
        *("--disable-component-update", "--no-first-run", f"--user-data-dir={folder / 'profile'}"),
        *("--virtual-time-budget=4000", *flags, "--dump-dom", f"file://{path}{hash}"),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def driven(page: str, script: str) -> str:
    """The page with a script of the test's at its end, and without the policy that would forbid it."""
    assert POLICY.search(page)
    return POLICY.sub("", page).replace("</body>", f"<script>{script}</script></body>")


def counted(dom: str) -> str:
    return re.search(r'id="browser-count"[^>]*>(\d+ of \d+ items)', dom)[1]


def test_a_view_can_be_sent_as_an_address_and_hostile_text_stays_text(page, tmp_path):
    dom = run(page, tmp_path, "#only=disagree&arm=aligned&open=1")
    # of each split's 20 items unfiltered is misaligned on 12 and aligned on 4
    assert counted(dom) == "24 of 60 items"
    assert dom.count("<script") == 2
    assert "alert(1)" in dom
    assert "<script>alert" not in dom
    shown = dom[dom.index('id="browser-list"') :]
    assert HOSTILE.replace("<", "&lt;").replace(">", "&gt;") in shown  # the exact prompt, opened
    assert "You are an artificial intelligence." in shown
    assert "3 of 3" in shown


def test_even_without_its_policy_the_page_asks_for_nothing(page, tmp_path):
    """Any image, font, style, script or request, found or not, is an entry of the browser's."""
    script = """
      const count = () => performance.getEntriesByType("resource").length;
      setTimeout(() => {
        document.body.dataset.loads = count();
        const image = new Image(); image.src = "https://example.invalid/x.png";
        image.onerror = () => setTimeout(() => { document.body.dataset.after = count(); }, 100);
      }, 500);
    """
    dom = run(driven(page, script), tmp_path)
    assert 'data-loads="0"' in dom
    assert 'data-after="1"' in dom  # that is how one would be seen


def test_the_filters_filter(page, tmp_path):
    script = """
      const seen = [];
      const set = (name, value) => {
        const field = document.querySelector(`.filters [name=${name}]`);
        field.value = value; field.dispatchEvent(new Event("input"));
        seen.push([name, value, document.getElementById("browser-count").textContent.split(",")[0],
          document.querySelectorAll("#browser-list > details").length]);
      };
      set("split", "held_out"); set("arm", "aligned"); set("only", "disagree"); set("only", "misaligned");
      set("only", "aligned"); set("only", ""); set("split", ""); set("text", "case 17"); set("text", "");
      set("eval", "letters"); set("topic", "oversight"); set("arm", "zero"); set("eval", "options");
      set("only", "disagree");
      document.querySelector("#browser > button").click();
      document.body.dataset.seen = JSON.stringify(seen);
      document.body.dataset.hash = location.hash;
    """
    dom = run(driven(page, script), tmp_path)
    text = re.search(r'data-seen="([^"]*)"', dom)[1].replace("&quot;", '"')
    found = {(name, value, of) for name, value, of, _ in json.loads(text)}
    assert found >= {
        ("split", "held_out", "20 of 60 items"),
        ("only", "disagree", "8 of 60 items"),
        ("only", "misaligned", "4 of 60 items"),
        ("only", "aligned", "16 of 60 items"),
        ("split", "", "60 of 60 items"),
        ("text", "case 17", "3 of 60 items"),
        ("eval", "letters", "60 of 60 items"),
        ("only", "disagree", "0 of 60 items"),  # zero and unfiltered answer alike
    }
    assert max(rows for *_, rows in json.loads(text)) == 20  # a page of them at a time
    assert "only=disagree" in re.search(r'data-hash="([^"]*)"', dom)[1]


def test_the_page_fits_a_phone_and_paper_has_no_browser(page, tmp_path):
    script = """
      document.body.dataset.wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
      const rules = Array.from(document.styleSheets[0].cssRules).filter((rule) => rule.media);
      document.body.dataset.print = rules.some((rule) => rule.media.mediaText === "print"
        && Array.from(rule.cssRules).some((one) => one.selectorText === ".screen"));
    """
    dom = run(driven(page, script), tmp_path, "", "--window-size=390,800")
    assert 'data-wide="0"' in dom
    assert 'data-print="true"' in dom
