"""A hook of MkDocs: pages that are outside of docs/, and links as they are on a forge.

Every document is written to be read on a forge, where links lead from file to file. The site has some of these files
under other names, which `extra.elsewhere` of mkdocs.yml lists. Links are translated here; a link to a file that the
site does not have becomes its text.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<path>[^)#\s:]+)(?P<anchor>#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are outside of docs/."""
    for path, name in config.extra["elsewhere"].items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Translate the links of a page."""
    elsewhere: dict[str, str] = config.extra["elsewhere"]
    names = {name: path for path, name in elsewhere.items()}
    here = page.file.src_uri
    source = names.get(here, f"docs/{here}")

    def translate(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link["path"]))
        name = elsewhere.get(target) or target.removeprefix("docs/")
        if files.get_file_from_path(name) is not None:
            path = posixpath.relpath(name, posixpath.dirname(here) or ".")
            return f"{link['image']}[{link['text']}]({path}{link['anchor'] or ''})"
        if not (ROOT / target).exists():
            return link[0]  # MkDocs reports it
        if config.repo_url:
            return f"[{link['text']}]({config.repo_url.rstrip('/')}/blob/main/{target})"
        return link["text"]

    return _LINK.sub(translate, markdown)
