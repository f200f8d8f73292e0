"""What makes the site out of the files as they are: pages from outside docs/, and GitHub's anchors.

The README is the site's first page; changelog, contributing, security and the cards of the weights are pages
too. Links from and to them are those that work on GitHub, and are turned to the pages' places in the site.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pymdownx.slugs import slugify

ROOT = Path(__file__).resolve().parent.parent
CARDS = "src/sdg/testbed/weights"
MODELS = ("detector", "generator", "scorer", "aligned")
OUTSIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    **{f"{CARDS}/{name}/README.md": f"reference/models/{name}.md" for name in MODELS},
}
PLACES = {place: source for source, place in OUTSIDE.items()}
_LINK = re.compile(r"(\]\()([^)\s:#]+)(?=[#)])")


def on_config(config: MkDocsConfig) -> None:
    """Headings get the anchors that GitHub gives them."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = slugify(case="lower")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The pages that lie outside docs/."""
    for source, place in OUTSIDE.items():
        files.append(File.generated(config, place, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """A page whose links are those of the site; a link to no page stays, for mkdocs to complain of."""
    here = page.file.src_uri
    folder = posixpath.dirname(PLACES.get(here, f"docs/{here}"))

    def turned(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[2]))
        if target == "docs":
            target = "README.md"  # the site itself
        place = OUTSIDE.get(target) or (target.removeprefix("docs/") if target.startswith("docs/") else None)
        if place is None:
            return link[0]
        return link[1] + posixpath.relpath(place, posixpath.dirname(here) or ".")

    return _LINK.sub(turned, markdown)
