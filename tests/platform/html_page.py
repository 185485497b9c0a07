"""A page of HTML as tests look at it."""

from html.parser import HTMLParser
from pathlib import Path


class Page(HTMLParser):
    """Whatever a browser would load, the text, and whether every tag is closed."""

    void = frozenset({"meta", "link", "img", "source", "br", "hr"})

    def __init__(self, text: str):
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.void:
            self.open.append(tag)
        for key, value in attrs:
            if key in ("src", "srcset", "data", "poster") or (tag == "link" and key == "href"):
                self.loads.append(value or "")
            elif key == "href":
                self.links.append(value or "")
            elif key == "id":
                self.ids.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data


def read_page(path: Path) -> Page:
    page = Page(path.read_text(encoding="utf-8"))
    assert page.open == []
    return page
