"""The report on a phone: how large the smallest letter of each figure is there, from the page's own style sheet."""

import re

import pytest
import report_fixture as fixture
from report_page import written

pytestmark = pytest.mark.no_backend
PHONE = 390  # CSS pixels
SMALLEST = 9.0


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return written(fixture.write_run(tmp_path_factory.mktemp("runs") / "small_run"))


def pixels(text, pattern):
    """The one number of the style sheet that a pattern finds."""
    (found,) = re.findall(pattern, text)
    return float(found)


def room(text):
    """Width that a section's content has on a phone."""
    (phone,) = re.findall(r"@media \(max-width: 720px\) \{(.*)\}\n", text)
    page = pixels(phone, r"header, main \{ padding-left: (\d+)px; padding-right: \d+px")
    section = pixels(phone, r"section \{ padding: \d+px (\d+)px")
    return PHONE - 2 * page - 2 * section - 2  # borders of a pixel


def column(text, grid):
    """Width of a figure on a phone: of the columns that fit beside each other, or what it is at most."""
    selector, figure = (r"\.grid\.small", r"\.small figure svg") if "small" in grid else (r"\.grid", r"\nfigure svg")
    least = pixels(text, selector + r" \{[^}]*minmax\(min\(100%, (\d+)px\)")
    gap = pixels(text, selector + r" \{[^}]*gap: \d+px (\d+)px")
    columns = max(1, int((room(text) + gap) // (least + gap)))
    most = pixels(text, figure + r" \{[^}]*max-width: (\d+)px")
    return min((room(text) - gap * (columns - 1)) / columns, most)


def letters(svg):
    """Sizes of the letters in an SVG, in its units."""
    return [float(size) for size in re.findall(r'<text[^>]*style="[^"]*?font(?:-size)?: (?:bold )?([\d.]+)px', svg)]


def figures(text):
    """Every figure: its SVG, the class of what it stands in, its width in its units."""
    for grid, body in re.findall(r'<div class="(grid[^"]*)">\n(.*?)\n</div>\n', text, flags=re.S):
        for svg in re.findall(r"<svg.*?</svg>", body, flags=re.S):
            yield grid, svg, pixels(svg[:400], r'viewBox="0 0 (\d+)')


def test_no_letter_of_a_figure_is_under_nine_pixels(text):
    width = room(text)
    found = list(figures(text))
    assert len(found) == len(re.findall(r'<svg role="img"', text)), "a figure stands outside of a grid"
    assert len(found) >= 20 and 300 < width < PHONE
    for grid, svg, units in found:
        sizes, label = letters(svg), re.findall(r'aria-label="([^"]*)"', svg)[0]
        assert len(sizes) == len(re.findall(r"<text", svg)) > 3, label
        shown = column(text, grid)
        assert min(sizes) * shown / units >= SMALLEST, (label, min(sizes), shown, units)


def test_the_chain_keeps_its_letters_and_scrolls(text):
    (width, least) = re.findall(r'<svg class="chain"[^>]*viewBox="0 0 ([\d.]+) [^>]*min-width: (\d+)px', text)[0]
    smallest = min(float(size) for size in re.findall(r"\.chain [^{]*\{[^}]*font(?:-size)?: (\d+)px", text))
    assert smallest * float(least) / float(width) >= SMALLEST
    assert '<div class="scroll">\n<svg class="chain"' in text


def test_panels_of_one_reward_have_one_range(text):
    """The same value stands at the same height over steps and over the KL."""
    ends = {}
    for metric in ("eval_reward", "eval_gold"):
        for along in ("step", "eval_kl_sequence"):
            (svg,) = re.findall(
                rf'<svg[^>]*>(?:(?!</svg>).)*?id="overoptimization-{metric}--{along}-.*?</svg>', text, re.S
            )
            ends[metric, along] = re.findall(r"ytick_\d+\">.*?<text[^>]*>([^<]*)</text>", svg, re.S)
        assert ends[metric, "step"] == ends[metric, "eval_kl_sequence"] != []


def test_tables_of_many_columns_scroll_by_themselves(text):
    """So that the page does not."""
    for before, head in re.findall(r"([^\n]*)\n<table[^>]*>\n<thead>(.*?)</thead>", text, re.S):
        assert before == '<div class="scroll">' or head.count("<th") <= 2, head[:200]
    assert len(re.findall(r"<thead>", text)) >= 6
