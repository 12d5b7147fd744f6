"""What the documentation says about files and settings is so."""

import re
from pathlib import Path

import pytest

from core.settings import Settings

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
SETTINGS_TABLE = (ROOT / "docs/operations.md").read_text()


def anchors(page: Path) -> set[str]:
    """The fragments that a page's headings can be linked by."""
    headings = re.findall(r"^#+ +(.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_within_the_repository_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith(("http://", "https://")):
            continue
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        if fragment:
            assert fragment in anchors(target), f"{link}: no such heading"


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented_with_its_default(name: str) -> None:
    row = re.search(rf"^\| `MERCATO_{name.upper()}` \| (.*?) \|", SETTINGS_TABLE, re.MULTILINE)
    assert row, f"MERCATO_{name.upper()} is missing in docs/operations.md"
    default = Settings.model_fields[name].default
    if isinstance(default, bool):
        assert row[1] == f"`{str(default).lower()}`"
    elif isinstance(default, str | int | float) and str(default):
        assert row[1] == f"`{default}`"


def test_no_setting_is_documented_that_does_not_exist() -> None:
    documented = set(re.findall(r"^\| `MERCATO_(\w+)`", SETTINGS_TABLE, re.MULTILINE))
    assert documented == {name.upper() for name in Settings.model_fields}


def test_every_module_that_the_decisions_name_exists() -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        for path in re.findall(r"`((?:\w+/)+\w+\.py)`", page.read_text()):
            assert (ROOT / path).exists(), f"{page.name} names {path}"
