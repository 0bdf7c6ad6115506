"""The pages lead where they say: links, anchors and the list of programs."""

from collections.abc import Iterator
from pathlib import Path
import re

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', ROOT / 'QUALITY_DECLARATION.md',
         *sorted((ROOT / 'docs').rglob('*.md')), *sorted((ROOT / 'checkpoints').rglob('*.md'))]


def without_blocks(page: Path) -> str:
    """Return a page without its blocks of code, whose comments look like headings."""
    return re.sub(r'^```.*?^```', '', page.read_text(), flags=re.M | re.S)


def prose(page: Path) -> str:
    """Return a page without its code, which may hold what looks like a link."""
    return re.sub(r'`[^`\n]*`', '', without_blocks(page))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, made as GitHub makes them."""
    titles = re.findall(r'^#+ +(.+)$', without_blocks(page), re.M)
    return {re.sub(r'[^\w\- ]', '', re.sub(r'\[([^]]*)\]\([^)]*\)', r'\1', title)
                   .strip().lower()).replace(' ', '-') for title in titles}


def broken_links(page: Path) -> Iterator[str]:
    """Yield every relative link of a page that leads nowhere."""
    for link in re.findall(r'\]\(([^)\s]+)\)', prose(page)):
        if re.match(r'[a-z]+:', link):
            continue
        name, _, anchor = link.partition('#')
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            yield link


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    """A file that moved and a heading that was reworded are found here, not by a reader."""
    assert not list(broken_links(page))


def test_the_page_of_programs_names_those_that_are_installed() -> None:
    """A program that nobody can find does not exist."""
    installed = set(re.findall(r"'(\w+) = ros2_lstm_policy", (ROOT / 'setup.py').read_text()))
    assert set(re.findall(r'^\| `(\w+)`', (ROOT / 'docs/programs.md').read_text(), re.M)) \
        == installed
