"""Documents get the language that they are in, and those of other languages stay out."""

import gzip
import re
import sys
import types
from pathlib import Path

import pytest

from data_pipelines.document import Document, Dropped
from data_pipelines.stages.filters import open_filters
from data_pipelines.stages.scripts import main_script
from llama_jax.config import LanguageFilter

BUILT = Path(__file__).parents[3] / "shared/corpora/commoncrawl/built"
SAMPLES = {
    "en": "The people of the village walked down to the river before sunrise, and nobody knew why.",
    "de": "Die Leute aus dem Dorf gingen vor Sonnenaufgang hinunter zum Fluss, und keiner weiß es.",
    "fr": "Les gens du village sont descendus vers la rivière avant l'aube, et personne ne sait.",
    "ru": "Жители деревни спустились к реке ещё до рассвета, и никто не знал, почему они пришли. "
    "Вечером они вернулись домой, потому что вода в реке была слишком холодной, чтобы купаться.",
    "uk": "Мешканці села спустилися до річки ще до світанку, і ніхто не знав, чому вони прийшли. "
    "Увечері вони повернулися додому, бо вода в річці була надто холодною, щоб купатися.",
    "el": "Οι κάτοικοι του χωριού κατέβηκαν στο ποτάμι πριν από την ανατολή.",
    "ja": "村の人々は日の出前に川まで歩いて行ったが、その理由は誰も知らなかった。",
    "zh": "村里的人在日出之前走到河边，没有人知道为什么。",
    "ko": "마을 사람들은 해가 뜨기 전에 강으로 내려갔지만 아무도 이유를 몰랐다.",
    "he": "תושבי הכפר ירדו אל הנהר לפני הזריחה, ואיש לא ידע מדוע הם באו לשם.",
}


def passed(texts, **config):
    """Documents that stay, and the account."""
    dropped = Dropped()
    (stage,) = open_filters([LanguageFilter(**config)])
    documents = [Document(name, text) for name, text in texts.items()]
    return list(stage.keep(documents, dropped)), dropped


def test_without_languages_every_document_stays_and_is_labelled():
    kept, dropped = passed(SAMPLES, languages=(), min_score=0)
    assert [(document.id, document.language) for document in kept] == [(x, x) for x in SAMPLES]
    assert [document.text for document in kept] == list(SAMPLES.values())
    assert not dropped.counts
    assert dropped.notes == {"language": dict.fromkeys(SAMPLES, 1)}


def test_other_languages_are_dropped_with_what_they_are():
    kept, dropped = passed({x: SAMPLES[x] for x in ("en", "ru", "ja")}, languages=("ru", "en"))
    assert [document.id for document in kept] == ["en", "ru"]
    assert dropped.counts == {"language: another": 1}
    assert dropped.examples["language: another"] == ["ja (ja, 1.00)"]


def test_a_low_score_is_no_language():
    close = {"mixed": "Latin America, Radio Roma, Madrid, Milano, Paris, Berlin, 2001 - 2002"}
    kept, dropped = passed(close, languages=("en", "es", "it", "la"), min_score=0.99)
    assert not kept
    assert dropped.counts == {"language: not sure": 1}
    kept, dropped = passed(close, languages=(), min_score=0.99)
    assert kept[0].language == ""
    assert dropped.notes == {"language": {"none": 1}}


@pytest.mark.parametrize("text", ["", "12 345 678 !?", "\n\n", "ພາສາລາວ"])
def test_what_has_no_letters_or_an_unknown_script_has_no_language(text):
    kept, _ = passed({"x": text}, languages=())
    assert kept[0].language == ""
    kept, dropped = passed({"x": text})
    assert not kept
    assert dropped.examples == {"language: not sure": ["x (none, 0.00)"]}


def test_latin_names_do_not_hide_the_script():
    names = (
        " The people of the village use the package manager to install the packages of the "
        "distribution, and so on and on, with aptitude and dpkg."
    )
    texts = {x: SAMPLES[x] * 3 + names for x in ("ru", "el", "ja", "zh", "he")}
    kept, _ = passed(texts, languages=())
    assert [document.language for document in kept] == list(texts)


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("plain", "Latin"),
        ("naïve ÷ × 1", "Latin"),
        ("", "Latin"),
        ("日本語の文章", "Kana"),
        ("日本", "Han"),
        ("ab cd ef 日", "Latin"),
        ("日本語 abcd efgh", "Han"),
        ("𝒜 😀 слово", "Cyrillic"),
    ],
)
def test_the_script_of_a_text(text, script):
    assert main_script(text) == script


def test_a_language_that_no_detector_knows_is_refused_with_those_like_it():
    with pytest.raises(ValueError, match=r"filters\.language\.languages='eng'.*Did you mean en"):
        open_filters([LanguageFilter(languages=("eng",))])
    with pytest.raises(ValueError, match=r"filters\.language\.min_score must be in"):
        LanguageFilter(min_score=1.5)


def test_a_fasttext_model_without_its_package_is_refused_with_the_fix(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="there is no such file"):
        open_filters([LanguageFilter(model=str(tmp_path / "lid.bin"))])
    (tmp_path / "lid.bin").write_bytes(b"x")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install fasttext"):
        open_filters([LanguageFilter(model=str(tmp_path / "lid.bin"))])


def test_a_fasttext_model_is_asked_for_one_line(tmp_path, monkeypatch):
    asked = []

    class Model:
        f = types.SimpleNamespace(
            predict=lambda *given: asked.append(given) or [(1.00003, "__label__fr")]
        )

        def get_labels(self):
            return ["__label__en", "__label__fr"]

    module = types.ModuleType("fasttext")
    module.__spec__ = types.SimpleNamespace()
    module.load_model = lambda path: Model()
    monkeypatch.setitem(sys.modules, "fasttext", module)
    (tmp_path / "lid.bin").write_bytes(b"x")
    kept, _ = passed({"a": "un\ndeux"}, languages=("fr",), model=str(tmp_path / "lid.bin"))
    assert kept[0].language == "fr"
    assert asked == [("un deux", 1, 0.0, "strict")]


def test_the_fingerprint_names_the_detector():
    (builtin,) = open_filters([LanguageFilter()])
    assert re.fullmatch(r"resiliparse [\d.]+", builtin.fingerprint())


@pytest.mark.skipif(not BUILT.is_dir(), reason=f"{BUILT} is not here")
def test_real_pages_of_known_language_are_recognised():
    """Translated manuals; those that are English still, by their function words, do not count."""
    records = []
    for path in sorted(BUILT.glob("*.wet.gz")):
        records += gzip.decompress(path.read_bytes()).split(b"\r\n\r\nWARC/1.0\r\n")
    texts, wanted = {}, {}
    for record in records:
        head, _, body = record.partition(b"\r\n\r\n")
        label = re.search(rb"Target-URI: \S+/([a-z]{2})(?:-[A-Z]{2}/|/\S+\.\1\.html)", head)
        if not label:
            continue
        text = body.decode("utf-8", "replace")
        words = re.findall(r"[^\W\d_]+", text.lower())
        english = sum(word in ("the", "of", "and", "to", "is") for word in words)
        if len(text) > 500 and english < 0.005 * len(words):
            name = str(len(texts))
            texts[name] = text
            wanted[name] = label.group(1).decode().replace("nb", "no")
    kept, _ = passed(texts, languages=())
    assert len(kept) == len(texts) > 40
    right = sum(document.language == wanted[document.id] for document in kept)
    assert right >= 0.9 * len(kept)
