"""Rules for files of source code; defaults are the published thresholds."""

import dataclasses

from llama_jax.config import checks

# fmt: off
# Source: RedPajama-1's GitHub filter, Together 2023 (github_run_filter.py).
REDPAJAMA_EXTENSIONS = (
    ".asm", ".bat", ".cmd", ".c", ".h", ".cs", ".cpp", ".hpp", ".c++", ".h++", ".cc", ".hh",
    ".C", ".H", ".cmake", ".css", ".dockerfile", ".f90", ".f", ".f03", ".f08", ".f77", ".f95",
    ".for", ".fpp", ".go", ".hs", ".html", ".java", ".js", ".jl", ".lua", ".md", ".markdown",
    ".php", ".php3", ".php4", ".php5", ".phps", ".phpt", ".pl", ".pm", ".pod", ".perl", ".ps1",
    ".psd1", ".psm1", ".py", ".rb", ".rs", ".sql", ".scala", ".sh", ".bash", ".command", ".zsh",
    ".ts", ".tsx", ".tex", ".vb", "Dockerfile", "Makefile", ".xml", ".rst", ".m", ".smali",
)
# fmt: on


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CodeRules:
    """Did a person write this file of source code?

    A threshold that nothing passes or breaks turns its rule off: 0 for a smallest share. Rules
    about names look at the document's path, and do not apply where it has none.

    Sources: the first five, RedPajama-1's GitHub filter, Together 2023; XML, HTML, JSON and YAML,
    StarCoder, Li et al. 2023 (arXiv:2305.06161), section 3.2.

    Attributes:
        extensions: Ends of the paths that are kept; none keeps every path.
        max_line_length: Longest line, in characters.
        max_mean_line_length: Characters for each line.
        min_alphanumeric: Share of characters that are letters or digits.
        min_letters_per_token: Letters for each token; see `data_pipelines.stages.code_rules`.
        drop_xml: Drop files with an XML declaration in the first 100 characters, but for XSLT.
        min_visible_html: Share of an HTML file's characters that a reader sees.
        min_visible_html_characters: How many those must be.
        min_json_yaml_characters: Fewest characters of a JSON or YAML file. Such files are kept only
            if `extensions` has them.
        max_json_yaml_characters: Most of them.
        drop_generated: Drop files that say, in the first 1,000 characters, that a program wrote
            them.
        drop_vendored: Drop files in folders for other people's code, such as "node_modules".
        drop_minified: Drop files named like minified ones, such as "jquery.min.js".
    """

    extensions: tuple[str, ...] = REDPAJAMA_EXTENSIONS
    max_line_length: int = 1000
    max_mean_line_length: float = 100.0
    min_alphanumeric: float = 0.25
    min_letters_per_token: float = 1.5
    drop_xml: bool = True
    min_visible_html: float = 0.2
    min_visible_html_characters: int = 100
    min_json_yaml_characters: int = 50
    max_json_yaml_characters: int = 5000
    drop_generated: bool = False
    drop_vendored: bool = False
    drop_minified: bool = False

    def __post_init__(self) -> None:
        owner = "filters.code"
        checks.fraction(
            owner, min_alphanumeric=self.min_alphanumeric, min_visible_html=self.min_visible_html
        )
        checks.positive(
            owner,
            max_line_length=self.max_line_length,
            max_mean_line_length=self.max_mean_line_length,
        )
        checks.not_negative(
            owner,
            min_letters_per_token=self.min_letters_per_token,
            min_visible_html_characters=self.min_visible_html_characters,
            min_json_yaml_characters=self.min_json_yaml_characters,
        )
        if self.min_json_yaml_characters > self.max_json_yaml_characters:
            raise ValueError(
                f"{owner}.min_json_yaml_characters={self.min_json_yaml_characters} must not be "
                f"above {owner}.max_json_yaml_characters={self.max_json_yaml_characters}: every "
                "JSON and YAML file would be dropped."
            )
