"""Exported folders, read by transformers: the same logits, the same words, the same ids."""

import dataclasses
import random
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from llama_jax.convert.hugging_face import export_hugging_face
from llama_jax.convert.origin import Origin
from llama_jax.convert.tiktoken import Vocabulary
from llama_jax.convert.words import no_words, words_of
from llama_jax.data.sentencepiece import train_sentencepiece
from llama_jax.data.tiktoken import TiktokenTokenizer
from llama_jax.data.tokenizer import load_tokenizer
from llama_jax.infer.generate import generate
from llama_jax.infer.sampling import Sampling
from tests.parity.exported import MODEL, VARIANTS, our_model, random_weights, run_config

torch = pytest.importorskip("torch", reason="PyTorch is not installed: make test-slow")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("one_device")]

ROOT = Path(__file__).parents[2]
LLAMA2 = ROOT / "../shared/corpora/tokenizers/llama2.model"
LLAMA3 = ROOT / "../shared/corpora/tokenizers/llama3.tiktoken"
TEXTS = [
    "",
    " ",
    "  two  spaces ",
    "\n\n\tdef main():\n\treturn 12345.678\n",
    "naïve café, Straße, ŁÓDŹ, e\u0301",
    "漢字かな交じり文, 한국어, العربية, עברית, ไทย",
    "🙂👩‍👩‍👧‍👦🏳️‍🌈",
    "</s> <s> <unk> <0x0A> [INST]",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "\x00\x01\x7f\u200b\ufeff\u2028",
    "x" * 3000 + " " * 300 + "y",
]


@pytest.fixture(scope="module", params=VARIANTS.values(), ids=VARIANTS.keys())
def pair(request, tmp_path_factory):
    """Our weights, and the model that transformers made of their export."""
    model = request.param
    weights = random_weights(model)
    out = tmp_path_factory.mktemp("export") / "out"
    arguments = {"origin": Origin(step=1), "words": no_words(), "max_shard_bytes": 100_000}
    export_hugging_face(weights, run_config(model), out, **arguments)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    return model, weights, theirs.eval()


def test_logits_agree(pair):
    model, weights, theirs = pair
    tokens = np.random.default_rng(1).integers(0, model.vocab_size, (3, 150))
    with torch.no_grad():
        expected = theirs(input_ids=torch.from_numpy(tokens)).logits.numpy()
    ours = our_model(model, weights)
    places = jnp.broadcast_to(jnp.arange(150), tokens.shape)
    logits = jax.jit(lambda m, *args: m(*args))(
        ours, jnp.asarray(tokens), places, jnp.ones_like(places)
    )
    assert np.std(expected) > 0.5
    np.testing.assert_allclose(logits, expected, atol=1e-4, rtol=0)


def test_greedy_generation_agrees(pair):
    model, weights, theirs = pair
    rng = np.random.default_rng(2)
    prompts = [rng.integers(0, model.vocab_size, length).tolist() for length in (1, 7, 33, 90)]
    ours = generate(
        our_model(model, weights), prompts, max_new_tokens=50, sampling=Sampling(temperature=0)
    )
    for prompt, completion in zip(prompts, ours, strict=True):
        ids = torch.tensor([prompt])
        out = theirs.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=50, do_sample=False
        )
        assert completion.tokens == out[0, len(prompt) :].tolist()


def test_a_bfloat16_export_loads_as_rounded_weights(tmp_path):
    weights = random_weights(MODEL)
    arguments = {"origin": Origin(step=1), "words": no_words(), "dtype": "bfloat16"}
    export_hugging_face(weights, run_config(MODEL), tmp_path / "out", **arguments)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert theirs.dtype == torch.bfloat16
    loaded = theirs.lm_head.weight.detach().float().numpy()
    np.testing.assert_array_equal(
        loaded, weights["output.table"].astype(ml_dtypes.bfloat16).astype(np.float32)
    )


@pytest.fixture(scope="module", params=["trained here", "LLaMA-2", "LLaMA-3"])
def tokenizers(request, tmp_path_factory):
    """Our tokenizer, and the one that transformers made of its export."""
    folder = tmp_path_factory.mktemp("tokenizer")
    source = LLAMA3 if request.param == "LLaMA-3" else LLAMA2
    if request.param == "trained here":
        source = folder / "tokenizer.model"
        texts = [path.read_text() for path in sorted((ROOT / "llama_jax").rglob("*.py"))]
        train_sentencepiece(texts, source, vocab_size=1000)
    elif not source.is_file():
        pytest.skip(f"{source} is not here")
    ours = load_tokenizer(source)
    exportable: Path | Vocabulary = source
    if isinstance(ours, TiktokenTokenizer):
        names = {token: name for name, token in ours.special.items()}
        ends = names[ours.bos_id], names[ours.eos_id]
        exportable = Vocabulary(source, ours.ranks, ours.pattern, ours.special, *ends)
    model = dataclasses.replace(MODEL, num_layers=1, vocab_size=ours.vocab_size)
    export_hugging_face(
        random_weights(model),
        run_config(model),
        folder / "out",
        origin=Origin(step=1),
        words=words_of(exportable, model.max_seq_len),
    )
    return ours, transformers.AutoTokenizer.from_pretrained(folder / "out")


def random_texts() -> list[str]:
    rng = random.Random(0)
    alphabets = ["ab  \n", "0123456789.", "eéê漢🙂 ", "<s>/unk|", "".join(map(chr, range(0x250)))]
    return ["".join(rng.choices(rng.choice(alphabets), k=rng.randrange(80))) for _ in range(300)]


def test_tokenizers_agree_on_ids_and_text(tokenizers):
    ours, theirs = tokenizers
    code = [path.read_text() for path in sorted((ROOT / "llama_jax").rglob("*.py"))]
    # A literal U+2581 is a space to transformers; ours tells the two apart.
    for text in TEXTS + random_texts() + [text.replace("\u2581", "") for text in code]:
        ids = ours.encode(text, bos=True).tolist()
        assert theirs(text)["input_ids"] == ids, text[:80]
        assert theirs.decode(ids, skip_special_tokens=True) == ours.decode(ids), text[:80]


def test_special_tokens_keep_their_ids(tokenizers):
    ours, theirs = tokenizers
    assert theirs.bos_token_id == ours.bos_id
    assert theirs.eos_token_id == ours.eos_id
    assert len(theirs) == ours.vocab_size
