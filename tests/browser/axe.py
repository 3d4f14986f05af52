"""axe-core inside a page: the violations of WCAG 2.x A and AA, said so that one can mend them."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page

#: The rules that the standard asks for; axe's "best practices" are not among them.
STANDARD = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22a", "wcag22aa")

_RUN = """async (tags) => {
  const found = await axe.run(document, {runOnly: {type: 'tag', values: tags}, resultTypes: ['violations']});
  return {
    passes: found.passes.length,
    violations: found.violations.flatMap(rule => rule.nodes.map(node => ({
      rule: rule.id, help: rule.help, target: node.target.join(' '), html: node.html.slice(0, 200),
      why: (node.failureSummary || '').replace(/\\s+/g, ' '),
    }))),
  };
}"""


def violations(page: Page, source: str) -> list[str]:
    """Every element of the page as it stands now that breaks a rule; `source` is axe-core's.

    Raises AssertionError when no rule applied at all: an empty answer of a check that did not run is no good news.
    """
    if not page.evaluate("typeof window.axe === 'object'"):
        page.evaluate(f"() => {{ {source}\n; return null; }}")  # not by a script tag: the page's own policy forbids it
    found: dict[str, Any] = page.evaluate(_RUN, list(STANDARD))
    assert found["passes"], f"axe-core found nothing to look at on {page.url}"
    return [f"{one['rule']}: {one['target']}: {one['why']} {one['html']}" for one in found["violations"]]
