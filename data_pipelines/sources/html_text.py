"""HTML pages to plain text."""


def html_to_text(page: str, *, main_content: bool = True) -> str:
    """Text of a page."""
    from resiliparse.extract.html2text import extract_plain_text

    return extract_plain_text(page, main_content=main_content, alt_texts=False)
