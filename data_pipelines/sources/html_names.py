"""What tags, classes and ids say about a part of a page."""

import re
from functools import lru_cache

# Tags that only format what is inside a line; the text around them belongs together.
FORMATTING = (
    "abbr|acronym|area|b|base|bdi|bdo|big|body|center|cite|code|col|colgroup|data|del|dfn|em|embed"
    "|font|html|i|img|input|ins|kbd|label|link|map|mark|meta|nobr|param|picture|q|rb|rp|rt|ruby|s"
    "|samp|small|source|span|strike|strong|sub|sup|tbody|tfoot|thead|time|track|tt|u|var|wbr"
)
# Tags whose contents are never text of a page.
OPAQUE = (
    "audio|canvas|datalist|head|iframe|math|noscript|object|script|select|style|svg|template"
    "|textarea|title|video"
)
ASIDES = frozenset(["aside", "button", "dialog", "figcaption", "footer", "menu", "nav"])
CELLS = frozenset(["td", "th"])
ITEMS = CELLS | {"dd", "dt", "li"}
HEADINGS = frozenset(["h2", "h3", "h4", "h5", "h6"])
# A start tag ends an open paragraph.
ENDS_PARAGRAPH = frozenset(
    [
        *("address", "article", "aside", "blockquote", "details", "div", "dl", "fieldset"),
        *("figure", "footer", "form", "h1", *HEADINGS, "header", "hr", "main", "nav", "ol", "p"),
        *("pre", "section", "table", "ul"),
    ]
)
# A start tag ends one of the first, unless one of the second is nearer.
ENDS_ITEM = {
    "li": (frozenset(["li"]), frozenset(["ul", "ol"])),
    "dt": (frozenset(["dt", "dd"]), frozenset(["dl"])),
    "dd": (frozenset(["dt", "dd"]), frozenset(["dl"])),
    "tr": (frozenset(["tr", *CELLS]), frozenset(["table"])),
    "td": (CELLS, frozenset(["table", "tr"])),
    "th": (CELLS, frozenset(["table", "tr"])),
}
KNOWN = ENDS_PARAGRAPH | ASIDES | ENDS_ITEM.keys()

HIDDEN, BOILERPLATE, PLAIN, CONTENT, BODY = -2, -1, 0, 1, 2
_MAX_CHARS = 1_000
_MAX_ID_WORDS = 3
_NAMES = re.compile(
    r"\b(class|id|itemprop|role)\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s>\"']+))", re.I
)
_HIDES = re.compile(
    r"(?i)display\s*:\s*none|visibility\s*:\s*hidden|aria-hidden\s*=\s*[\"']?true"
    r"|(?:^|\s)hidden(?=[\s=/]|$)"
)
_BOILERPLATE = re.compile(
    r"(?:^|[\s_-])(?:"
    # what readers write
    r"comments?(?:[\s_-]?(?:area|block|box|container|form|list|s|section|thread|wrap\w*))?|replies"
    r"|disqus\w*|fb-comments|livefyre|respond"
    # how to pass it on
    r"|addthis\w*|share\w*|sharedaddy|sharing|social\w*"
    # what else there is
    r"|jp-relatedposts|more-?(?:from|news|on|stories)|most-?(?:popular|read|viewed)|outbrain\w*"
    r"|popular|read-?(?:also|more|next)|recommend\w*|related\w*|see-?also|taboola\w*|teaser"
    r"|trending|up-?next"
    # what is to be sold
    r"|ads?|adsbygoogle|advert\w*|banner|newsletter\w*|promo\w*|sign-?up|sponsor\w*|subscri\w+"
    # how to get around
    r"|breadcrumbs?|footer|login|menu|nav|navbar|navigation|pager|pagination|side-?bar|skip-link"
    r"|tag-?list|tagcloud|tags?|toc|toolbar|widget\w*"
    # who, when, whose
    r"|author\w*|bio|byline|caption|copyright|credits?|dateline|entry-?meta|post-?meta|timestamp"
    # what opens over the page or is not to be seen
    r"|consent|cookie\w*|gdpr|hidden|hide|modal|noprint|overlay|popup|print-?only"
    r"|screen-reader-text|sr-only|tooltip|visually-?hidden"
    r")(?=$|[\s_-])"
)
_CONTENT = re.compile(
    r"(?:article|blog|body|content|entry|main|news|page|post|story)[\s_-]?"
    r"(?:body|content|copy|entry|inner|main|text)"
    r"|(?:^|[\s_-])(?:article|body|content|entry|main|post|prose|story|text)(?=$|[\s_-])"
)


def verdict(attributes: str) -> int:
    """What the attributes of a tag say of its contents, from HIDDEN to BODY.

    Names that say both content and boilerplate say nothing. They are hints: who uses them sees to
    it that most of a page's text is never lost by them.
    """
    return _verdict(attributes[:_MAX_CHARS])


@lru_cache(maxsize=10_000)
def _verdict(attributes: str) -> int:
    if _HIDES.search(attributes):
        return HIDDEN
    names = " ".join(_names(attributes)).lower()
    if "articlebody" in names:
        return BODY
    is_content, is_boilerplate = bool(_CONTENT.search(names)), bool(_BOILERPLATE.search(names))
    return is_content - is_boilerplate


def _names(attributes: str) -> list[str]:
    names = []
    for key, *values in _NAMES.findall(attributes):
        value = "".join(values)
        # Headings have ids of their own words: "sharing-with-several-people".
        if key.lower() != "id" or len(re.split("[-_ ]", value)) <= _MAX_ID_WORDS:
            names.append(value)
    return names
