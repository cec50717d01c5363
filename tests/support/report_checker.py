"""Reads a page of a report and checks it: tags closed, anchors unique and all there, nothing fetched from outside."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

FETCHED = re.compile(r"""@import|url\(|(?:src|srcset|href|poster|data|action|background)\s*=(?!["']?(?:data:|#))""")
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Checker(HTMLParser):
    """Balanced tags, unique ids, labelled references; collects tags and text."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.text, self.ids, self.refs = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        found = dict(attrs)
        if "id" in found:
            self.ids.append(found["id"])
        self.refs += found.get("aria-labelledby", "").split()

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def outside(page):
    """References of a page to anything but itself; text is looked at without its tags."""
    tags = re.findall(r"<[^>]*>", page)
    style = page[page.index("<style>") : page.index("</style>")]
    return [part for part in (*tags, style) if FETCHED.search(re.sub(r'title="[^"]*"', "", part))]


def check(page):
    assert outside(page) == []
    assert "default-src 'none'" in page
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == page.count("<script") == 1  # the page's own, and the only one that its policy lets run
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in page
    assert len(checker.ids) == len(set(checker.ids))
    assert set(checker.refs) <= set(checker.ids)
    return checker
