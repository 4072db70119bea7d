"""Names that wikitext is read by: namespaces, sections, tags and templates.

The languages are the 20 of LLaMA-1 (Touvron et al. 2023, arXiv:2302.13971, section 2.1): bg, ca,
cs, da, de, en, es, fr, hr, hu, it, nl, pl, pt, ro, ru, sl, sr, sv, uk. All names are lower-case.
"""


def _words(text: str) -> frozenset[str]:
    return frozenset(word.replace("_", " ") for word in text.split())


# Source of the names: MediaWiki's localised namespaces and their aliases (Help:Namespaces).
_FILE = """file image media fitxer imatge soubor fil billede datei bild archivo imagen fichier
datoteka slika fájl kép immagine bestand afbeelding plik grafika ficheiro arquivo imagem fișier
fişier imagine medij fișiere файл картинка изображение зображення датотека слика медия медиа медіа
medie média"""
_CATEGORY = """ category kategorie categoría catégorie kategori categoria kategorija kategória
categorie kategoria категория категорија категорія"""

HIDDEN_NAMESPACES = _words(_FILE + _CATEGORY)
"""Prefixes of links that show no text where they stand: pictures, media and categories."""

# Language editions whose code is not two or three letters.
LONG_LANGUAGES = _words(
    """simple tokipona bat-smg be-tarask be-x-old cbk-zam fiu-vro map-bms nds-nl roa-rup roa-tara
    zh-classical zh-min-nan zh-yue"""
)

REDIRECTS = _words(
    """redirect rinvia rimando виж пренасочване redirecció weiterleitung redirection redirección
    redireccion redirecionamento preusmjeri átirányítás doorverwijzing przekieruj patrz tam
    redirecționare redirectează перенаправление перенапр preusmeritev преусмери preusmeri
    omdirigering перенаправлення přesměruj omstilling"""
)

DROPPED_SECTIONS = frozenset(
    line.strip()
    for line in """
        references
        external links
        external link
        see also
        further reading
        notes
        footnotes
        notes and references
        references and notes
        notes and sources
        citations
        sources
        bibliography
        works cited
        gallery
        note
        note e riferimenti
        bibliografia
        voci correlate
        altri progetti
        collegamenti esterni
        riferimenti
        fonti
        външни препратки
        източници
        вижте още
        вижте също
        бележки
        бележки и източници
        литература
        препратки
        einzelnachweise
        weblinks
        literatur
        siehe auch
        anmerkungen
        belege
        quellen
        notes et références
        références
        liens externes
        lien externe
        voir aussi
        articles connexes
        bibliographie
        annexes
        referencias
        enlaces externos
        véase también
        bibliografía
        notas
        notas y referencias
        referências
        ligações externas
        ver também
        referències
        enllaços externs
        vegeu també
        referenties
        externe links
        externe link
        zie ook
        bronnen
        literatuur
        przypisy
        linki zewnętrzne
        zobacz też
        uwagi
        reference
        externí odkazy
        související články
        literatura
        poznámky
        referencer
        eksterne henvisninger
        se også
        kilder
        izvori
        vanjske poveznice
        povezani članci
        jegyzetek
        források
        további információk
        lásd még
        kapcsolódó szócikkek
        note de subsol
        referințe
        legături externe
        vezi și
        примечания
        ссылки
        см. также
        источники
        sklici
        zunanje povezave
        glej tudi
        viri
        спољашње везе
        види још
        извори
        референце
        referenser
        externa länkar
        se även
        källor
        примітки
        посилання
        див. також
        джерела
        література
    """.splitlines()
    if line.strip()
)
"""Headings of sections that hold no prose: references, links, reading lists."""

DROPPED_TAGS = _words(
    """ref references gallery timeline score hiero imagemap graph mapframe maplink templatedata
    templatestyles inputbox categorytree includeonly style script section indicator
    ext"""
)
"""Tags that go with all that they hold."""

LITERAL_TAGS = frozenset(["nowiki", "pre", "source", "syntaxhighlight", "math", "chem", "ce"])
"""Tags whose contents are no wikitext."""

BREAK_TAGS = frozenset(["br", "hr", "p", "div", "blockquote", "li", "ul", "ol", "dd", "dt", "dl"])
"""Tags at which a line ends."""

PLAIN_TAGS = _words(
    """abbr b bdi bdo big center cite code data del dfn em font h1 h2 h3 h4 h5 h6 i ins kbd mark
    noinclude onlyinclude poem q rb rp rt rtc ruby s samp small span strike strong sub sup time tt
    u var wbr caption thead tbody tfoot tr td th noindex translate tvar languages"""
)
"""Tags that go alone."""

DASHES = {
    "ndash": "–",
    "en dash": "–",
    "mdash": "—",
    "em dash": "—",
    "snd": " – ",
    "spnd": " – ",
    "spaced ndash": " – ",
    "spaced en dash": " – ",
    "spaced mdash": " — ",
    "'": "'",
    "'s": "'s",
    "nbsp": " ",
    "spaces": " ",
    "clear": "\n",
    "·": " · ",
    "dot": " · ",
    "bullet": " • ",
    "=": "=",
}
"""Templates that stand for a few characters."""

FIRST_ARGUMENT = _words(
    """nowrap nobr small big smaller larger em strong mvar math var abbr tooltip sc smallcaps
    nihongo val formatnum sup sub text chem2 quote blockquote cquote quotation citazione
    цитат zitat citation bloc ill illm lien vanchor anchored
    e n° tl code mono keypress samp sic linktext nowrapped nihongo2
    zh-full quote_box interlanguage_link visible_anchor not_a_typo as_written"""
)
"""Templates that show their first argument (or the one named 1, text or quote)."""

LAST_ARGUMENT = frozenset(["lang", "transl", "transliteration", "langue", "font", "color", "audio"])
"""Templates that show the last of their arguments without a name."""

MEASURES = frozenset(["convert", "cvt", "unité", "unità", "unidad"])
"""Templates that show a number and its unit."""
